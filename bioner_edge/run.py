"""`bioner-edge extract`: read documents, extract, write; whatever fails is named and everything else is written."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from .corpora import FOLDERS, WRITERS, Notice, jsonl, output_format, writer
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
        """0 all done; 1 something failed and the rest is written."""
        return 1 if self.failures else 0


Write = Callable[[Extraction], None]


@dataclass(frozen=True)
class Output:
    """Where extractions go. `path` None is standard output, or nowhere where the user is shown them there instead.

    A file appears under its name only when it is whole; of a format that is a folder, each of its files does.
    """

    path: Path | None
    file_type: str
    with_gold: bool = False
    shown: bool = False

    @classmethod
    def named(cls, out: Path | None, file_type: str | None, *, overwrite: bool, with_gold: bool, shown: bool) -> Output:
        """Check an output before anything is read. Where `file_type` is None, the suffix of `out` tells it."""
        kind = file_type or output_format(out, WRITERS)
        if kind not in FOLDERS:
            writer(kind)
        if with_gold and kind != "jsonl":
            raise UsageError(f"--keep-annotations needs --to jsonl: {kind} has one place for entities")
        if kind in FOLDERS:
            _check_folder(out, kind, overwrite=overwrite)
        elif out:
            _check_file(out, overwrite=overwrite)
        if out and not out.parent.is_dir():
            raise UsageError(f"{out.parent}: no such folder; make it first")
        return cls(out, kind, with_gold, shown)

    def refuse_among(self, inputs: Inputs) -> None:
        """Raise UsageError where the output lies among the inputs: a second run would read the first one's answers."""
        if self.path is None:
            return
        own = self.path.resolve()
        for path in (path.resolve() for _, path in inputs.files if path):
            if path == own or (self.file_type in FOLDERS and own in path.parents):
                raise UsageError(f"{self.path}: is among the inputs; write it elsewhere")

    @contextmanager
    def opened(self) -> Iterator[Write]:
        """A function that writes an extraction."""
        if self.path and self.file_type in FOLDERS:
            try:
                with FOLDERS[self.file_type](self.path) as write:
                    yield lambda extraction: write(_answered(extraction))
            except OSError as error:
                raise _unwritable(str(self.path), error) from None
        else:
            with self._stream() as stream:
                yield lambda extraction: self._write(extraction, stream)

    @contextmanager
    def _stream(self) -> Iterator[TextIO]:
        if self.path is None and self.shown:
            with open(os.devnull, "w", encoding="utf-8") as nowhere:
                yield nowhere
            return
        if self.path is None:
            # By the line, so that whoever reads from the pipe has each document when it is done.
            sys.stdout.reconfigure(encoding="utf-8", newline="\n", line_buffering=True)  # type: ignore[union-attr]
            try:
                yield sys.stdout
            except OSError as error:
                # What is still buffered would fail again when the interpreter ends.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                raise _unwritable("standard output", error) from None
            return
        partial = self.path.with_name(self.path.name + ".partial")
        try:
            with partial.open("w", encoding="utf-8", newline="\n") as stream:
                yield stream
            os.replace(partial, self.path)
        except BaseException as error:
            partial.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise _unwritable(str(self.path), error) from None
            raise

    def _write(self, extraction: Extraction, stream: TextIO) -> None:
        if self.file_type == "jsonl":
            record = extraction.to_json()
            if self.with_gold:
                document = extraction.document
                record["gold"] = [entity_json(e, document.text) for e in document.entities]
            jsonl.write_record(record, stream)
        else:
            writer(self.file_type)(_answered(extraction), stream)


def _check_file(out: Path, *, overwrite: bool) -> None:
    if out.exists() and not out.is_file():  # putting a file in its place would remove a device
        raise UsageError(f"{out}: is no regular file; name a file, or leave out --out for standard output")
    if out.exists() and not overwrite:
        raise UsageError(f"{out}: exists; give --overwrite to replace it")


def _check_folder(out: Path | None, kind: str, *, overwrite: bool) -> None:
    if out is None:
        raise UsageError(f"--to {kind} needs --out FOLDER: {kind} is a folder of pairs, a text and its annotations")
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out}: is no folder; {kind} is a folder of pairs, a text and its annotations")
    try:
        empty = not out.exists() or not any(out.iterdir())
    except OSError as error:
        raise UsageError(f"{out}: cannot be read: {error.strerror}") from None
    if not empty and not overwrite:
        raise UsageError(f"{out}: is not empty; give --overwrite to replace the files in it that have the same names")


def _answered(extraction: Extraction) -> Document:
    """The document with what was found in it, and nothing of what came with it."""
    return extraction.document.with_entities(extraction.entities)


def _unwritable(name: str, error: OSError) -> Exception:
    """A reader that has seen enough (`| head`) is no mistake of the user's."""
    return error if isinstance(error, BrokenPipeError) else UsageError(f"{name}: cannot be written: {error.strerror}")


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
    with output.opened() as write, Progress(inputs, quiet=quiet or shown is not None) as progress:

        def told(message: str) -> None:
            progress.clear()
            complain(message)

        def noted(notice: Notice) -> None:
            outcome.failures += notice.text_lost
            progress.clear()
            report(notice)

        inputs.report = noted
        for document in inputs:
            extraction = _attempt(extractor, document, write, told)
            if extraction is None:
                outcome.failures += 1
                continue
            outcome.documents += 1
            outcome.entities += len(extraction.entities)
            outcome.problems += len(extraction.problems)
            progress.advance()
            if shown:
                shown(extraction)
        if not outcome.documents:
            lost = "no document could be read" if outcome.failures else "no documents in the input"
            raise InputError(f"{lost}; nothing was written")
    return outcome


def _attempt(
    extractor: Extractor, document: Document, write: Write, complain: Callable[[str], None]
) -> Extraction | None:
    """The extraction of one document, written; None, after a complaint, where it failed."""
    try:
        extraction = extractor(document)
        write(extraction)
    except BionerError as error:
        complain(str(error))
        return None
    return extraction
