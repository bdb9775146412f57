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

from .corpora import PAIRED, Notice, Report, document_file, format_of, reader
from .errors import InputError
from .span import Document

__all__ = ["Inputs"]

STDIN = "-"


@dataclass
class Inputs:
    """The documents behind some names. Finding the files happens at once, reading them as the documents are taken.

    `file_type` overrides what a file tells of its format. A text and the annotations beside it are one file here, the
    text, whichever of them is named. Raises InputError for a name behind which nothing is; a file that cannot be opened
    later is reported like any other text that is lost.
    """

    names: Sequence[str]
    report: Report
    file_type: str | None = None
    done_bytes: int = 0
    """How far reading has come, for an estimate of the time left."""
    files: list[tuple[str, Path | None]] = field(init=False)
    """(name in ids and messages, path; None for standard input)"""

    def __post_init__(self) -> None:
        names = self.names or [STDIN]
        if self.file_type not in PAIRED or STDIN in names:
            reader(self.file_type or "text")  # an unknown one, or one that no stream holds, is refused at once
        found = list(dict.fromkeys(found for name in names for found in self._find(name)))
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
                yield from reader(self.file_type or "text")(sys.stdin.buffer, name, self.report)
                continue
            try:
                with path.open("rb") as stream:
                    yield from self._read(stream, name, path)
            except OSError as error:
                self.report(Notice(name, None, f"cannot be read: {error.strerror}", text_lost=True))

    def _read(self, stream: BinaryIO, name: str, path: Path) -> Iterator[Document]:
        before = self.done_bytes
        read = reader(self.file_type or format_of(path) or "text", path)
        for document in read(stream, name, self.report):
            if stream.seekable():  # a pipe cannot tell
                self.done_bytes = before + stream.tell()
            yield document

    def _find(self, name: str) -> list[tuple[str, Path | None]]:
        if name == STDIN:
            return [("stdin", None)]
        path = Path(name)
        if name and path.is_dir():  # an empty name, an unset variable perhaps, is not this folder
            files = (document_file(p, self.file_type) for p in path.rglob("*") if p.is_file())
            inside = sorted({file for file in files if file})
            if not inside:
                wanted = f"--from {self.file_type}" if self.file_type else "*.txt, *.ann, *.a1, *.jsonl, *.pubtator"
                raise InputError(f"{name}: no documents in this folder ({wanted}); is it the right one?")
            return [(p.relative_to(path).as_posix(), p) for p in inside]
        if name and path.exists():
            return [self._named(path)]
        matching = [Path(match) for match in sorted(glob.glob(name, recursive=True)) if Path(match).is_file()]
        if not matching:
            raise InputError(f"{name or repr(name)}: no such file or folder, and no file matches it as a pattern")
        return [self._named(p) for p in matching]

    def _named(self, path: Path) -> tuple[str, Path | None]:
        path = document_file(path, self.file_type) or path
        return path.name, path


def _readable(name: str) -> str:
    """A file's name as text: the bytes in it that are not UTF-8 could not be written into an output."""
    return os.fsencode(name).decode("utf-8", "replace")
