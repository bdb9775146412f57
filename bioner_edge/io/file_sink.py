"""Write a run into a file that gets its name when it is whole."""

from __future__ import annotations

import os
import shutil
import zlib
from collections.abc import Mapping
from io import FileIO
from itertools import accumulate
from pathlib import Path
from typing import Any

from bioner_edge.document import Document
from bioner_edge.errors import UsageError
from bioner_edge.extraction import Extraction
from bioner_edge.io import journal
from bioner_edge.io.entries import Entry, JournalFiles
from bioner_edge.io.inputs import Inputs
from bioner_edge.io.ledger import Ledger
from bioner_edge.io.sinks import Render, counts, gone

__all__ = ["FileSink"]


class FileSink:
    """A file that grows as `NAME.partial`, with its ledger beside it, and gets its name when it is whole.

    `retry` reads the documents again that failed. They are written behind the others; when all inputs were read the
    file is put into their order.
    """

    def __init__(self, path: Path, render: Render, settings: Mapping[str, Any], *, resume: bool, retry: bool) -> None:
        self._path, self._render, self._retry = path, render, retry
        self._partial, self._whole, self._again = (_beside(path, end) for end in (".partial", ".whole", ".again"))
        files = JournalFiles.beside(path)
        self.ledger = Ledger(files, settings, resume=resume and (files.unfinished or path.exists()))
        self._lost = False
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
            if self.ledger.complete and body.read(1):
                self.ledger.keep(len(self.ledger.written))

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

    def begin(self, inputs: Inputs) -> None:
        for entry in gone(self.ledger, inputs):
            self._grow()
            self.ledger.drop(entry)

    def done(self, name: str, document: Document) -> Entry | None:
        entry = self.ledger.seen(name, document)
        return None if entry and entry.failed and self._retry else entry

    def write(self, extraction: Extraction) -> None:
        data = self._render(extraction)
        journal.write(self._grow(), data)
        self.ledger.add(extraction.document, **counts(extraction), bytes=len(data), crc=zlib.crc32(data))

    def fail(self, document: Document, reason: str) -> None:
        self._grow()
        self.ledger.add(document, failed=reason)

    def lose(self, name: str, message: str) -> None:
        self._lost = True
        self.ledger.lose(name, message)

    def finish(self) -> None:
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
        self._partial.unlink(missing_ok=True)
        if not (self.ledger.failed or self._lost):
            self.ledger.put_away()

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


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
