"""`bioner-edge extract`: read documents, extract, write; failures are named, and everything else is written."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from bioner_edge.document import Document
from bioner_edge.errors import BionerError, CrashError, InputError, UsageError
from bioner_edge.extraction import Extraction
from bioner_edge.guard import LostError, Reader
from bioner_edge.io.entries import Entry
from bioner_edge.io.inputs import Inputs
from bioner_edge.io.notice import Notice, NoticeHandler
from bioner_edge.io.sinks import Sink
from bioner_edge.report import Advance, Report

__all__ = ["MAX_CRASHES", "Outcome", "OutputError", "run"]

MAX_CRASHES = 3
"""Documents in a row that crash the reading process before the run ends: then the documents are not the cause."""

_MAX_NAMED = 20


class OutputError(UsageError):
    """The output cannot be written: this ends a run, unlike a document that cannot be read."""


@dataclass
class Outcome:
    """The outcome of a run: documents written, their entities, and failures.

    A resumed run counts what earlier ones did; `read` counts the documents of this one alone. `failed` are the messages
    of the first failures, documents and text that could not be read. `crashed` says how the reading process ended, if
    it did so often enough to end the run; `stopped` is any other error that ended the run early.
    """

    documents: int = 0
    entities: int = 0
    problems: int = 0
    failures: int = 0
    read: int = 0
    failed: list[str] = field(default_factory=list)
    crashed: str = ""
    stopped: BionerError | None = None

    @property
    def exit_code(self) -> int:
        """0: all done; 1: something failed, the rest is written; 2: nothing was done."""
        if (self.crashed or self.stopped) and not self.documents:
            return 2
        return 1 if self.failures or self.crashed or self.stopped else 0

    def count(self, entry: Entry) -> None:
        """Count a document that an earlier run has dealt with."""
        if entry.failed:
            self.fail(entry.failed)
        else:
            self._add(entry.entities, entry.problems)

    def take(self, extraction: Extraction) -> None:
        self._add(len(extraction.entities), len(extraction.problems))
        self.read += 1

    def _add(self, entities: int, problems: int) -> None:
        self.documents += 1
        self.entities += entities
        self.problems += problems

    def fail(self, message: str) -> None:
        self.failures += 1
        if len(self.failed) < _MAX_NAMED:
            self.failed.append(message)


def run(
    reader: Reader,
    inputs: Inputs,
    sink: Sink,
    *,
    out: str,
    complain: Callable[[str], None],
    report: Report | None = None,
    shown: Callable[[Extraction], None] | None = None,
) -> Outcome:
    """Extract from every document of `inputs`, in order. `shown` is called with each extraction once it is written;
    `report` receives the progress.

    `out` is the output's name in messages. `complain` receives the message of each document that fails. Raises
    InputError if there was nothing to write, and UsageError if the inputs are not those of the run that is resumed;
    after the first document was read, such an error is in the outcome instead. What was written stays in either case.
    """
    outcome = Outcome()
    # In bytes: a stream does not say how many documents it holds.
    with (report or Report()).progress("extracting", inputs.total_bytes) as advance:
        try:
            sink.begin(inputs)
            documents = inputs.read(_note(inputs, sink, outcome, out))
            _read_all(reader, inputs, documents, sink, outcome, advance, out=out, complain=complain, shown=shown)
            if not (outcome.documents or outcome.crashed):
                lost = "no document could be read" if outcome.failures else "no documents in the input"
                raise InputError(f"{lost}; nothing was written")
            if not outcome.crashed:
                with _writing(out):
                    sink.finish()
        except (LostError, OutputError) as error:
            outcome.stopped = error
            outcome.documents = sink.ledger.done if sink.ledger else outcome.documents
        except BionerError as error:
            if not outcome.read:
                raise
            outcome.stopped = error
    return outcome


def _read_all(
    reader: Reader,
    inputs: Inputs,
    documents: Iterator[Document],
    sink: Sink,
    outcome: Outcome,
    advance: Advance,
    *,
    out: str,
    complain: Callable[[str], None],
    shown: Callable[[Extraction], None] | None,
) -> None:
    crashes, count, begun, done_bytes = 0, 0, time.monotonic(), 0
    for document in documents:
        if entry := sink.done(inputs.current, document):
            outcome.count(entry)
            crashes = crashes if entry.failed else 0
            continue
        found = _attempt(reader, sink, document, out)
        count += 1
        rate = count / max(time.monotonic() - begun, 1e-9)
        advance(inputs.done_bytes - done_bytes, f"{count} documents, {rate:.1f}/s")
        done_bytes = inputs.done_bytes
        if isinstance(found, Extraction):
            crashes = 0
            outcome.take(found)
            if shown:
                shown(found)
            continue
        complain(str(found))
        outcome.fail(str(found))
        crashes = crashes + 1 if isinstance(found, CrashError) else 0
        if isinstance(found, CrashError) and crashes == MAX_CRASHES:
            outcome.crashed = found.how
            return


def _attempt(reader: Reader, sink: Sink, document: Document, out: str) -> Extraction | BionerError:
    """Extract from one document and write the extraction; or record the error and return it."""
    try:
        extraction = reader(document)
        with _writing(out):
            sink.write(extraction)
    except (OutputError, LostError):
        raise
    except BionerError as error:
        named = str(error).startswith("document ")
        found = error if named else InputError(f"document {document.id}: {error}")
        with _writing(out):
            sink.fail(document, str(found))
        return found
    return extraction


@contextmanager
def _writing(out: str) -> Iterator[None]:
    """Raise OutputError if something cannot be written; a closed pipe (`| head`) is not an error."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"{out}: cannot be written: {error.strerror}") from None


def _note(inputs: Inputs, sink: Sink, outcome: Outcome, out: str) -> NoticeHandler:
    """A handler that counts lost text as failures."""

    def handle(notice: Notice) -> None:
        inputs.report(notice)
        if notice.text_lost:
            outcome.fail(str(notice))
            with _writing(out):
                sink.lose(inputs.current, str(notice))

    return handle
