"""`bioner-edge extract`: read documents, extract, write; whatever fails is named and everything else is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from bioner_edge.document import Document
from bioner_edge.errors import BionerError, CrashError, InputError, UsageError
from bioner_edge.extraction import Extraction
from bioner_edge.guard import LostError, Reader
from bioner_edge.io.inputs import Inputs
from bioner_edge.io.ledger import Entry, Place
from bioner_edge.io.registry import Notice
from bioner_edge.io.sinks import Sink
from bioner_edge.progress import Progress

__all__ = ["MOST_CRASHES", "Outcome", "OutputError", "run"]

MOST_CRASHES = 3
"""Documents in a row that end the process that reads them: then it is not the documents."""


class OutputError(UsageError):
    """The output cannot be written to: that ends a run, where a document that cannot be read does not."""


@dataclass
class Outcome:
    """How a run went: documents written, entities in them, and what could not be read or done.

    `failed` says what failed, documents and text that could not be read, of a run that is remembered in earlier times
    too; `lost` that there was such text; `crashed` what ended the run before its end.
    """

    documents: int = 0
    entities: int = 0
    problems: int = 0
    failures: int = 0
    failed: list[str] = field(default_factory=list)
    lost: bool = False
    crashed: str = ""

    @property
    def exit_code(self) -> int:
        """0 all done; 1 something failed and the rest is written; 2 nothing was done."""
        if self.crashed and not self.documents:
            return 2
        return 1 if self.failures or self.crashed else 0

    def count(self, entry: Entry) -> None:
        """Take in a document that an earlier run has dealt with."""
        if entry.failed:
            self.failures += 1
            self.failed.append(entry.failed)
        else:
            self.documents += 1
            self.entities += entry.entities
            self.problems += entry.problems


def run(
    reader: Reader,
    inputs: Inputs,
    sink: Sink,
    *,
    out: str,
    complain: Callable[[str], None],
    quiet: bool = False,
    shown: Callable[[Extraction], None] | None = None,
) -> Outcome:
    """Extract from every document of `inputs`, in order. `shown` is called with each extraction after it was written.

    `out` is what messages call the output. A document that fails is named through `complain`. Raises InputError where
    there was nothing to write, UsageError where it cannot be written: what was written before stays in either case.
    """
    outcome, crashes = Outcome(), 0
    with Progress(inputs, quiet=quiet or shown is not None) as progress, _noting(inputs, outcome, progress):
        for place, document in _placed(inputs):
            if entry := sink.done(place, document):
                outcome.count(entry)
                crashes = crashes if entry.failed else 0
                continue
            found = _attempt(reader, sink, place, document, out)
            progress.advance()
            if isinstance(found, BionerError):
                progress.clear()
                complain(str(found))
                outcome.failures += 1
                outcome.failed.append(str(found))
                crashes = crashes + 1 if isinstance(found, CrashError) else 0
                if isinstance(found, CrashError) and crashes == MOST_CRASHES:
                    outcome.crashed = found.how
                    return outcome
                continue
            crashes = 0
            outcome.documents += 1
            outcome.entities += len(found.entities)
            outcome.problems += len(found.problems)
            if shown:
                shown(found)
        if not outcome.documents:
            lost = "no document could be read" if outcome.failures else "no documents in the input"
            raise InputError(f"{lost}; nothing was written")
        with _writing(out):
            sink.finish(outcome.lost)
    return outcome


def _placed(inputs: Inputs) -> Iterator[tuple[Place, Document]]:
    """Each document with its input and its place among the documents of that."""
    name, index = "", -1
    for document in inputs:
        index = index + 1 if inputs.current == name else 0
        name = inputs.current
        yield (name, index), document


def _attempt(reader: Reader, sink: Sink, place: Place, document: Document, out: str) -> Extraction | BionerError:
    """The extraction of one document, written; or why there is none, noted."""
    try:
        extraction = reader(document)
        with _writing(out):
            sink.write(place, extraction)
    except (OutputError, LostError):
        raise
    except BionerError as error:
        named = str(error).startswith("document ")
        found = error if named else InputError(f"document {document.id}: {error}")
        with _writing(out):
            sink.fail(place, document, str(found))
        return found
    return extraction


@contextmanager
def _writing(out: str) -> Iterator[None]:
    """Raises OutputError where something cannot be written; a reader that has seen enough (`| head`) is no mistake."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"{out}: cannot be written: {error.strerror}") from None


@contextmanager
def _noting(inputs: Inputs, outcome: Outcome, progress: Progress) -> Iterator[None]:
    """Count text that the inputs lose, and keep their notices apart from the line of progress."""
    report = inputs.report

    def noted(notice: Notice) -> None:
        if notice.text_lost:
            outcome.failures += 1
            outcome.failed.append(str(notice))
            outcome.lost = True
        progress.clear()
        report(notice)

    inputs.report = noted
    yield
