"""What a command line names as input: files, folders, globs, standard input; read one document at a time."""

from __future__ import annotations

import glob
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from .corpora import READERS, Notice, Report, file_format, reader
from .errors import InputError
from .span import Document

__all__ = ["Inputs"]

STDIN = "-"


@dataclass
class Inputs:
    """The documents behind some names. Finding the files happens at once, reading them as the documents are taken.

    `file_type` overrides what a file's extension tells. Raises InputError for a name behind which nothing is; a file
    that cannot be opened later is reported like any other text that is lost.
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
        found = [found for name in self.names or [STDIN] for found in self._find(name)]
        often = Counter(name for name, _ in found)
        # Two folders may each hold a `1.txt`: their documents must not share an id.
        self.files = [(_readable(str(path) if path and often[name] > 1 else name), path) for name, path in found]

    @cached_property
    def total_bytes(self) -> int | None:
        """None where something without a size, a pipe or standard input, is among them."""
        if not all(path and path.is_file() for _, path in self.files):
            return None
        return sum(path.stat().st_size for _, path in self.files if path)

    def __iter__(self) -> Iterator[Document]:
        for name, path in self.files:
            if path is None:
                yield from READERS[self.file_type or "text"](sys.stdin.buffer, name, self.report)
                continue
            try:
                with path.open("rb") as stream:
                    yield from self._read(stream, name, self.file_type or file_format(path.name) or "text")
            except OSError as error:
                self.report(Notice(name, None, f"cannot be read: {error.strerror}", text_lost=True))

    def _read(self, stream: BinaryIO, name: str, kind: str) -> Iterator[Document]:
        before = self.done_bytes
        for document in READERS[kind](stream, name, self.report):
            if stream.seekable():  # a pipe cannot tell
                self.done_bytes = before + stream.tell()
            yield document

    def _find(self, name: str) -> list[tuple[str, Path | None]]:
        if name == STDIN:
            return [("stdin", None)]
        path = Path(name)
        if name and path.is_dir():  # an empty name, an unset variable perhaps, is not this folder
            inside = sorted(p for p in path.rglob("*") if p.is_file() and (self.file_type or file_format(p.name)))
            if not inside:
                raise InputError(
                    f"{name}: no documents in this folder (*.txt, *.jsonl, *.pubtator); is it the right one?"
                )
            return [(p.relative_to(path).as_posix(), p) for p in inside]
        if name and path.exists():
            return [(path.name, path)]
        files = [Path(match) for match in sorted(glob.glob(name, recursive=True)) if Path(match).is_file()]
        if not files:
            raise InputError(f"{name or repr(name)}: no such file or folder, and no file matches it as a pattern")
        return [(p.name, p) for p in files]


def _readable(name: str) -> str:
    """A file's name as text: the bytes in it that are not UTF-8 could not be written into an output."""
    return os.fsencode(name).decode("utf-8", "replace")
