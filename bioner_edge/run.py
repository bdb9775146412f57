"""`bioner-edge extract`: read documents, extract, write; whatever fails is named and everything else is written."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from .corpora import Notice, jsonl, writer
from .errors import BionerError, InputError, UsageError
from .extract import Extraction, Extractor
from .inputs import Inputs
from .progress import Progress
from .span import Document, entity_json

__all__ = ["Outcome", "Output", "run"]


@dataclass
class Outcome:
    """How a run went: documents written, entities in them, and what could not be read or done."""

    documents: int = 0
    entities: int = 0
    problems: int = 0
    failures: int = 0

    @property
    def exit_code(self) -> int:
        """0 all done; 1 something failed and the rest is written; 2 nothing could be done."""
        if not self.failures:
            return 0
        return 1 if self.documents else 2


@dataclass(frozen=True)
class Output:
    """Where extractions go. `path` None is standard output, or nowhere where the user is shown them there instead.

    A file appears under its name only when it is whole.
    """

    path: Path | None
    file_type: str
    with_gold: bool = False
    shown: bool = False

    @classmethod
    def named(cls, out: Path | None, file_type: str | None, *, overwrite: bool, with_gold: bool, shown: bool) -> Output:
        """Check an output before anything is read. The extension of `out` tells the format where `file_type` does not."""
        kind = file_type or ("pubtator" if out and ".pubtator" in out.name.lower() else "jsonl")
        writer(kind)
        if with_gold and kind != "jsonl":
            raise UsageError(f"--keep-annotations needs --to jsonl: {kind} has one place for entities")
        if out and out.exists() and not overwrite:
            raise UsageError(f"{out}: exists; give --overwrite to replace it")
        if out and not out.parent.is_dir():
            raise UsageError(f"{out.parent}: no such folder; make it first")
        return cls(out, kind, with_gold, shown)

    @contextmanager
    def opened(self) -> Iterator[TextIO]:
        if self.path is None and self.shown:
            with open(os.devnull, "w", encoding="utf-8") as nowhere:
                yield nowhere
            return
        if self.path is None:
            sys.stdout.reconfigure(encoding="utf-8", newline="\n")  # type: ignore[union-attr]
            yield sys.stdout
            return
        partial = self.path.with_name(self.path.name + ".partial")
        try:
            with partial.open("w", encoding="utf-8", newline="\n") as stream:
                yield stream
            os.replace(partial, self.path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise

    def write(self, extraction: Extraction, stream: TextIO) -> None:
        if self.file_type == "jsonl":
            record = extraction.to_json()
            if self.with_gold:
                document = extraction.document
                record["gold"] = [entity_json(e, document.text) for e in document.entities]
            jsonl.write_record(record, stream)
        else:
            writer(self.file_type)(extraction.document.with_entities(extraction.entities), stream)


def run(
    extractor: Extractor,
    inputs: Inputs,
    output: Output,
    *,
    complain: Callable[[str], None],
    quiet: bool = False,
    shown: Callable[[Extraction], None] | None = None,
) -> Outcome:
    """Extract from every document of `inputs`, in order. `shown` is called with each extraction after it was written.

    Raises InputError where there was nothing to write; a document that fails is named through `complain`.
    """
    outcome = Outcome()
    report = inputs.report

    def noted(notice: Notice) -> None:
        outcome.failures += notice.text_lost
        report(notice)

    inputs.report = noted
    with output.opened() as stream, Progress(inputs, quiet=quiet) as progress:
        for document in inputs:
            extraction = _attempt(extractor, document, output, stream, complain)
            if extraction is None:
                outcome.failures += 1
                continue
            outcome.documents += 1
            outcome.entities += len(extraction.entities)
            outcome.problems += len(extraction.problems)
            progress.advance()
            if shown:
                shown(extraction)
        if not outcome.documents and not outcome.failures:
            raise InputError("no documents in the input; nothing was written")
        if not outcome.documents:
            raise InputError("no document could be read; nothing was written")
    return outcome


def _attempt(
    extractor: Extractor, document: Document, output: Output, stream: TextIO, complain: Callable[[str], None]
) -> Extraction | None:
    """The extraction of one document, written; None, after a complaint, where it failed."""
    try:
        extraction = extractor(document)
        output.write(extraction, stream)
    except BionerError as error:
        complain(str(error))
        return None
    return extraction
