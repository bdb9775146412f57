"""What a command line names as input: files, folders, globs, standard input; read one document at a time."""

from __future__ import annotations

import glob
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from bioner_edge.document import Document
from bioner_edge.errors import InputError
from bioner_edge.io import jsonl
from bioner_edge.io.registry import (
    PAIRED,
    SUFFIXES,
    Notice,
    NoticeHandler,
    document_file,
    documents,
    format_of,
    reader,
    refusal,
    suffix,
)

__all__ = ["Inputs"]

STDIN = "-"
_FROM_A_MAC = "__MACOSX"  # what an archive made there holds beside the files
_MOST_SUFFIXES = 6  # that a remark names


@dataclass
class Inputs:
    """The documents behind some names. Finding the files happens at once, reading them as the documents are taken.

    `file_type` overrides what a file tells of its format. A text and the annotations beside it are one file here, the
    text, whichever of them is named. In folders, and behind patterns, hidden files are passed over, and those whose
    suffix is not known are left out, with a remark. Raises InputError for a name behind which nothing is, for a file
    with another suffix, and, where the documents should be `annotated`, for JSON Lines without annotations that are
    read. A file that cannot be opened later is reported like any other text that is lost.
    """

    names: Sequence[str]
    report: NoticeHandler
    file_type: str | None = None
    done_bytes: int = 0
    """How far reading has come, for an estimate of the time left."""
    files: list[tuple[str, Path | None]] = field(init=False)
    """(name in ids and messages, path; None for standard input)"""
    current: str = field(default="", init=False)
    """The name of the input that is being read."""
    annotated: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        names = self.names or [STDIN]
        if self.file_type not in PAIRED or STDIN in names:
            reader(self.file_type or "text")  # an unknown one, or one that no stream holds, is refused at once
        found = list(dict.fromkeys(found for name in names for found in self._find(name)))
        often = Counter(name for name, _ in found)
        # Two folders may each hold a `1.txt`: their documents must not share an id.
        self.files = [(_readable(str(path) if path and often[name] > 1 else name), path) for name, path in found]
        if self.annotated:
            self._refuse_unannotated()

    @cached_property
    def total_bytes(self) -> int | None:
        """None where something without a size, a pipe or standard input, is among them."""
        if not all(path and path.is_file() for _, path in self.files):
            return None
        return sum(path.stat().st_size for _, path in self.files if path)

    def __iter__(self) -> Iterator[Document]:
        for name, path in self.files:
            self.current = name
            if path is None:
                yield from self._stream(sys.stdin.buffer, name)
                continue
            try:
                with path.open("rb") as stream:
                    yield from self._read(stream, name, path)
            except OSError as error:
                self.report(Notice(name, None, f"cannot be read: {error.strerror}", text_lost=True))

    def _read(self, stream: BinaryIO, name: str, path: Path) -> Iterator[Document]:
        before = self.done_bytes
        for document in self._documents(stream, name, path):
            if stream.seekable():  # a pipe cannot tell
                self.done_bytes = before + stream.tell()
            yield document

    def _stream(self, stream: BinaryIO, name: str) -> Iterator[Document]:
        """The documents of standard input; that none had annotations is known only when all are read."""
        try:
            yield from self._documents(stream, name, None)
        except InputError as error:
            self.report(Notice(name, None, str(error).removeprefix(f"{name}: ")))

    def _documents(self, stream: BinaryIO, name: str, path: Path | None) -> Iterator[Document]:
        return documents(stream, name, self.report, path=path, file_type=self.file_type, annotated=self.annotated)

    def _refuse_unannotated(self) -> None:
        """Refuse at once what could be told only when all is read, and a model was loaded."""
        for name, path in self.files:
            if path and path.is_file() and (self.file_type or format_of(path)) == "jsonl":
                with suppress(OSError), path.open("rb") as stream:  # told when it is read
                    jsonl.refuse_unannotated(stream, name)

    def _find(self, name: str) -> list[tuple[str, Path | None]]:
        if name == STDIN:
            return [("stdin", None)]
        path = Path(name)
        if name and path.is_dir():  # an empty name, an unset variable perhaps, is not this folder
            return self._inside(name, path)
        if name and path.exists():
            if reason := refusal(path, self.file_type):
                raise InputError(reason)
            return [self._named(path)]
        return self._matching(name)

    def _inside(self, name: str, folder: Path) -> list[tuple[str, Path | None]]:
        """The files of a folder, and of all folders in it."""
        if folder.name == _FROM_A_MAC and len(self.names) > 1:  # the shell names it where one writes `notes/*`
            return []
        seen = [p for p in folder.rglob("*") if not _hidden(p.relative_to(folder)) and p.is_file()]
        inside = sorted({file for p in seen if (file := document_file(p, self.file_type))})
        if not inside:
            known = ", ".join(f"*{known}" for known, kind in SUFFIXES.items() if known != ".a2")
            wanted = f"--from {self.file_type}" if self.file_type else known
            raise InputError(f"{name}: no documents in this folder ({wanted}); is it the right one?")
        if not self.file_type:
            self._tell_left_out(name, [p for p in seen if suffix(p.name) not in SUFFIXES])
        return [(p.relative_to(folder).as_posix(), p) for p in inside]

    def _matching(self, pattern: str) -> list[tuple[str, Path | None]]:
        """The files that match a pattern; a suffix that is not known is refused where it is that of all of them."""
        paths = [Path(match) for match in sorted(glob.glob(pattern, recursive=True))]
        found = [p for p in paths if p.is_file() and (_FROM_A_MAC not in p.parts or _FROM_A_MAC in pattern)]
        if not found:
            raise InputError(f"{pattern or repr(pattern)}: no such file or folder, and no file matches it as a pattern")
        unknown = [p for p in found if not self.file_type and suffix(p.name) not in ("", *SUFFIXES)]
        if len(unknown) == len(found):
            raise InputError(str(refusal(unknown[0])))
        self._tell_left_out(pattern, unknown)
        return [self._named(p) for p in found if p not in unknown]

    def _tell_left_out(self, name: str, paths: list[Path]) -> None:
        if paths:
            often = Counter(suffix(path.name) or "no suffix" for path in paths).most_common()
            kinds = [f"{told} {number}" for told, number in often[:_MOST_SUFFIXES]] + ["…"] * (
                len(often) > _MOST_SUFFIXES
            )
            told = f"{len(paths)} {'file is' if len(paths) == 1 else 'files are'} left out, of no known suffix"
            self.report(Notice(name, None, f"{told}: {', '.join(kinds)}", remark=True))

    def _named(self, path: Path) -> tuple[str, Path | None]:
        path = document_file(path, self.file_type) or path
        return path.name, path


def _hidden(path: Path) -> bool:
    """Whether a file in a folder is none of the user's: what begins with a dot, and what macOS puts into archives."""
    return any(part.startswith(".") or part == _FROM_A_MAC for part in path.parts)


def _readable(name: str) -> str:
    """A file's name as text: the bytes in it that are not UTF-8 could not be written into an output."""
    return os.fsencode(name).decode("utf-8", "replace")
