"""Where extractions go, one class a kind of place: standard output, a file, a folder of pairs.

A sink is told of each document in turn: `done` says whether a run that was broken off has dealt with it already, else
`write` or `fail` says what became of it. What a sink was told stays, whatever ends the process.
"""

from __future__ import annotations

import os
import shutil
import sys
import zlib
from collections.abc import Callable, Mapping
from io import FileIO
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol

from bioner_edge.document import Document
from bioner_edge.errors import UsageError
from bioner_edge.extraction import Extraction
from bioner_edge.io import journal
from bioner_edge.io.ledger import LEDGER, Entry, Ledger, Place, document_hash
from bioner_edge.io.registry import FolderWriter

__all__ = ["FileSink", "FolderSink", "Render", "Sink", "StandardOutput"]

Render = Callable[[Extraction], bytes]
"""The bytes of an extraction in a file format. Raises InputError for what the format cannot hold."""


class Sink(Protocol):
    @property
    def ledger(self) -> Ledger | None:
        """What is remembered of the run; None where nothing is."""

    def done(self, place: Place, document: Document) -> Entry | None:
        """What became of this document in the run that is taken up again; None where it is to be read.

        To be called for every document, in the order of the inputs.
        """

    def write(self, place: Place, extraction: Extraction) -> None:
        """Raises InputError where the file format cannot hold it, OSError where there is no room."""

    def fail(self, place: Place, document: Document, reason: str) -> None:
        """There is nothing to write of this document."""

    def finish(self, lost: bool) -> None:
        """All inputs were read. `lost` says that some of their text could not be: the ledger then stays for it."""

    def close(self, keep: bool = False) -> None:
        """Let go: what was written stays, and nothing does where there was no document, but the ledger for `keep`."""


class StandardOutput:
    """Each document is out before the next one is read; nothing is remembered. Without `render` nothing is written."""

    ledger = None

    def __init__(self, render: Render | None) -> None:
        self._render = render

    def done(self, place: Place, document: Document) -> Entry | None:
        return None

    def write(self, place: Place, extraction: Extraction) -> None:
        if self._render is None:
            return
        data = self._render(extraction)
        try:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        except OSError:
            # What is still buffered would fail again when the interpreter ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise

    def fail(self, place: Place, document: Document, reason: str) -> None:
        pass

    def finish(self, lost: bool) -> None:
        pass

    def close(self, keep: bool = False) -> None:
        pass


class FileSink:
    """A file that grows as `NAME.partial`, with its ledger in `NAME.progress`, and gets its name when it is whole.

    `retry` reads the documents again that failed. They are written behind the others; when all inputs were read the
    file is put into their order.
    """

    def __init__(self, path: Path, render: Render, settings: Mapping[str, Any], *, resume: bool, retry: bool) -> None:
        self._path, self._render, self._retry = path, render, retry
        self._partial, self._whole, self._again = (_beside(path, end) for end in (".partial", ".whole", ".again"))
        self.ledger = Ledger(_beside(path, LEDGER), settings, resume=resume)
        self._body: FileIO | None = None
        try:
            self._settle()
            self._cut_damaged()
        except BaseException:
            self.ledger.close()
            raise

    def _settle(self) -> None:
        """Finish what `finish` began, or take it back; see there."""
        self._again.unlink(missing_ok=True)
        if self.ledger.complete:
            if self._whole.exists():
                os.replace(self._whole, self._path)
            self._partial.unlink(missing_ok=True)
        elif not self.ledger.written:
            self._partial.unlink(missing_ok=True)
            self._whole.unlink(missing_ok=True)
        elif not self._partial.exists() and self._whole.exists():
            os.replace(self._whole, self._partial)

    def _cut_damaged(self) -> None:
        """Forget what the ledger says of bytes that are not in the file: they are written again."""
        if not self.ledger.written:
            return
        path = self._path if self.ledger.complete else self._partial
        if not path.exists():
            raise UsageError(f"{path}: is gone, of which {self.ledger.path.name} tells; start anew with --overwrite")
        with path.open("rb") as body:
            for count, entry in enumerate(self.ledger.written):
                if zlib.crc32(body.read(entry.bytes)) != entry.crc:
                    self.ledger.keep(count)
                    return

    def _grow(self) -> FileIO:
        """The file, open behind what the ledger says of it; one that was complete is taken up again as a copy."""
        if self._body is None:
            if self.ledger.complete:
                shutil.copyfile(self._path, self._again)
                os.replace(self._again, self._partial)
            self._body = FileIO(self._partial, "r+" if self._partial.exists() else "w+")
            self._body.seek(sum(entry.bytes for entry in self.ledger.written))
            self._body.truncate()
        return self._body

    def done(self, place: Place, document: Document) -> Entry | None:
        entry = self.ledger.seen(place, document)
        return None if entry and entry.failed and self._retry else entry

    def write(self, place: Place, extraction: Extraction) -> None:
        data = self._render(extraction)
        journal.write(self._grow(), data)
        self.ledger.add(_entry(place, extraction, len(data), zlib.crc32(data)))

    def fail(self, place: Place, document: Document, reason: str) -> None:
        self._grow()
        self.ledger.add(Entry(*place, document.id, document_hash(document), failed=reason))

    def finish(self, lost: bool) -> None:
        """Give the file its name. Killed between any two lines, the next run finds either state whole."""
        self.ledger.refuse_missing()
        if self._body is not None or not self.ledger.complete:
            body = self._grow()
            os.fsync(body.fileno())
            order = self.ledger.sorted()
            if order is None:
                os.replace(self._partial, self._whole)
            else:
                self._sort(body, order)
            self.ledger.finish(order)
            os.replace(self._whole, self._path)
        if not (self.ledger.failed or lost):
            self.ledger.discard()
        self._partial.unlink(missing_ok=True)

    def _sort(self, body: FileIO, order: list[int]) -> None:
        """Copy the file, in the order of the inputs."""
        sizes = [entry.bytes for entry in self.ledger.written]
        starts = [0, *accumulate(sizes)]
        with self._again.open("wb") as whole:
            for part in order:
                body.seek(starts[part])
                whole.write(body.read(sizes[part]))
            whole.flush()
            os.fsync(whole.fileno())
        os.replace(self._again, self._whole)

    def close(self, keep: bool = False) -> None:
        if self._body:
            self._body.close()
        if not (self.ledger.done or keep):
            self._partial.unlink(missing_ok=True)
            self.ledger.discard()
        self.ledger.close()


class FolderSink:
    """A folder of pairs, a text and its annotations, each in place when it is done; its ledger is `.progress` in it.

    Names are given in the order of the inputs, failures among them, so that a document's is the same whenever it is
    written.
    """

    def __init__(self, folder: FolderWriter, settings: Mapping[str, Any], *, resume: bool, retry: bool) -> None:
        self._folder, self._retry = folder, retry
        try:
            folder.check(settings.get("labels", ()))
            self.ledger = Ledger(folder.path / LEDGER, settings, resume=resume)
        except BaseException:
            folder.close()
            raise

    def done(self, place: Place, document: Document) -> Entry | None:
        entry = self.ledger.seen(place, document)
        if entry is None or (entry.failed and self._retry):
            return None
        there = self._folder.skip(document)
        if not there and not entry.failed:
            message = f"the files of document {document.id} are gone, of which {LEDGER} tells"
            raise UsageError(f"{self._folder.path}: {message}; start anew with --overwrite")
        return entry

    def write(self, place: Place, extraction: Extraction) -> None:
        self._folder.write(extraction.answered())
        self.ledger.add(_entry(place, extraction))

    def fail(self, place: Place, document: Document, reason: str) -> None:
        self._folder.skip(document)
        self.ledger.add(Entry(*place, document.id, document_hash(document), failed=reason))

    def finish(self, lost: bool) -> None:
        self.ledger.refuse_missing()
        if not self.ledger.complete:
            self.ledger.finish()
        if not (self.ledger.failed or lost):
            self.ledger.discard()

    def close(self, keep: bool = False) -> None:
        if not (self.ledger.done or keep):
            self.ledger.discard()
        self.ledger.close()
        self._folder.close()


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _entry(place: Place, extraction: Extraction, size: int = 0, crc: int = 0) -> Entry:
    document, found, problems = extraction.document, len(extraction.entities), len(extraction.problems)
    return Entry(*place, document.id, document_hash(document), size, crc, found, problems)
