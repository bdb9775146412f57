"""Write a run into a file that gets its name when it is complete."""

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
from bioner_edge.io.contract import Writer
from bioner_edge.io.entries import Entry, JournalFiles
from bioner_edge.io.inputs import Inputs
from bioner_edge.io.ledger import Ledger
from bioner_edge.io.sinks import counts, vanished_entries

__all__ = ["FileSink"]


class FileSink:
    """A file that grows as `NAME.partial`, with its ledger beside it, and gets its name when it is complete.

    `retry` reads failed documents again. They are written after the others; when all inputs were read, the file is put
    into their order and gets its footer. Resuming a complete file cuts the footer off again.
    """

    def __init__(self, path: Path, writer: Writer, settings: Mapping[str, Any], *, resume: bool, retry: bool) -> None:
        self._path, self._writer, self._retry = path, writer, retry
        self._partial, self._whole, self._again = (_beside(path, end) for end in (".partial", ".whole", ".again"))
        files = JournalFiles.beside(path)
        self.ledger = Ledger(files, settings, resume=resume and (files.unfinished or path.exists()))
        self._lost = False
        self._body: FileIO | None = None
        self._parts = 0  # documents written
        try:
            self._settle()
            self._cut_damaged()
        except BaseException:
            self.ledger.close()
            raise

    def _settle(self) -> None:
        """Complete or undo a `finish` that was interrupted."""
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
        """Drop ledger entries whose bytes are not in the file: they are written again."""
        if not self.ledger.written:
            return
        path = self._path if self.ledger.complete else self._partial
        if not path.exists():
            raise UsageError(f"{path}: missing, but {self.ledger.path.name} lists it; start over with --overwrite")
        header, separator, footer = self._writer.header, self._writer.separator, self._writer.footer
        with path.open("rb") as body:
            for count, entry in enumerate(self.ledger.written):
                before = separator if count else header
                if body.read(len(before)) != before or zlib.crc32(body.read(entry.bytes)) != entry.crc:
                    self.ledger.keep(count)
                    return
            if self.ledger.complete and body.read(len(footer) + 1) != footer:
                self.ledger.keep(len(self.ledger.written))

    def _grow(self) -> FileIO:
        """The file, positioned after the last entry of the ledger; a complete one is copied and its footer cut off."""
        if self._body is None:
            if self.ledger.complete:
                shutil.copyfile(self._path, self._again)
                os.replace(self._again, self._partial)
            self._body = FileIO(self._partial, "r+" if self._partial.exists() else "w+")
            self._parts = len(self.ledger.written)
            ends = [start + entry.bytes for start, entry in zip(self._starts(), self.ledger.written, strict=True)]
            self._body.seek(ends[-1] if ends else 0)
            self._body.truncate()
        return self._body

    def _starts(self) -> list[int]:
        """The byte offset of each document in the file."""
        sizes = [entry.bytes + len(self._writer.separator) for entry in self.ledger.written]
        return list(accumulate(sizes[:-1], initial=len(self._writer.header))) if sizes else []

    def begin(self, inputs: Inputs) -> None:
        for entry in vanished_entries(self.ledger, inputs):
            self._grow()
            self.ledger.drop(entry)

    def done(self, name: str, document: Document) -> Entry | None:
        entry = self.ledger.look_up(name, document)
        return None if entry and entry.failed and self._retry else entry

    def write(self, extraction: Extraction) -> None:
        data = self._writer.render(extraction)
        body = self._grow()
        journal.write(body, (self._writer.separator if self._parts else self._writer.header) + data)
        self._parts += 1
        self.ledger.add(extraction.document, **counts(extraction), bytes=len(data), crc=zlib.crc32(data))

    def fail(self, document: Document, reason: str) -> None:
        self._grow()
        self.ledger.add(document, failed=reason)

    def lose(self, name: str, message: str) -> None:
        self._lost = True
        self.ledger.lose(name, message)

    def finish(self) -> None:
        """Give the file its name. If this is killed between any two lines, the next run finds a consistent state."""
        self.ledger.refuse_missing()
        if self._body is not None or not self.ledger.complete:
            body = self._grow()
            order = self.ledger.sorted()
            if order is None:
                if self._writer.footer:
                    journal.write(body, self._writer.footer)
                os.fsync(body.fileno())
                os.replace(self._partial, self._whole)
            else:
                self._sort(body, order)
            self.ledger.finish(order)
            os.replace(self._whole, self._path)
        self._partial.unlink(missing_ok=True)
        if not (self.ledger.failed or self._lost):
            self.ledger.put_away()

    def _sort(self, body: FileIO, order: list[int]) -> None:
        """Copy the file into the order of the inputs."""
        writer, starts = self._writer, self._starts()
        with self._again.open("wb") as whole:
            for count, part in enumerate(order):
                body.seek(starts[part])
                whole.write((writer.separator if count else writer.header) + body.read(self.ledger.written[part].bytes))
            whole.write(writer.footer)
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
