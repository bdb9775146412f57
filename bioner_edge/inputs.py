"""What a command line names as input: files, folders, globs, standard input; read one document at a time."""

from __future__ import annotations

import glob
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from .corpora import READERS, Report, file_format, reader
from .errors import InputError
from .span import Document

__all__ = ["Inputs"]

STDIN = "-"


@dataclass
class Inputs:
    """The documents behind some names. Finding the files happens at once, reading them as the documents are taken.

    `file_type` overrides what a file's extension tells. Raises InputError for a name behind which nothing is.
    """

    names: Sequence[str]
    report: Report
    file_type: str | None = None
    done_bytes: int = 0
    """How far reading has come, for an estimate of the time left."""
    files: list[tuple[str, Path | None]] = field(init=False)
    """(name in ids and messages, path; None for standard input)"""

    def __post_init__(self) -> None:
        if self.file_type:
            reader(self.file_type)  # an unknown one is refused before anything is read
        self.files = [found for name in self.names or [STDIN] for found in self._find(name)]

    @property
    def total_bytes(self) -> int | None:
        """None where standard input is among them."""
        if any(path is None for _, path in self.files):
            return None
        return sum(path.stat().st_size for _, path in self.files if path)

    def __iter__(self) -> Iterator[Document]:
        for name, path in self.files:
            before = self.done_bytes
            if path is None:
                yield from self._read(sys.stdin.buffer, name, self.file_type or "text", None)
                continue
            kind = self.file_type or file_format(path.name) or "text"
            try:
                with path.open("rb") as stream:
                    yield from self._read(stream, name, kind, before)
            except OSError as error:
                raise InputError(f"{path}: cannot be read: {error.strerror}") from None

    def _read(self, stream: BinaryIO, name: str, kind: str, before: int | None) -> Iterator[Document]:
        for document in READERS[kind](stream, name, self.report):
            if before is not None:
                self.done_bytes = before + stream.tell()
            yield document

    def _find(self, name: str) -> list[tuple[str, Path | None]]:
        if name == STDIN:
            return [("stdin", None)]
        path = Path(name)
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.is_file() and (self.file_type or file_format(p.name)))
            if not inside:
                raise InputError(f"{name}: no documents in this folder (*.txt, *.jsonl, *.pubtator); is it the right one?")
            return [(p.relative_to(path).as_posix(), p) for p in inside]
        if path.exists():
            return [(path.name, path)]
        matches = sorted(glob.glob(name, recursive=True))
        files = [Path(m) for m in matches if Path(m).is_file()]
        if not files:
            raise InputError(f"{name}: no such file or folder, and no file matches it as a pattern")
        return [(p.name, p) for p in files]
