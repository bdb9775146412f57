"""What a command line names as input: files, folders, globs, standard input; read one document at a time."""

from __future__ import annotations

import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO

from bioner_edge.document import Document
from bioner_edge.errors import InputError
from bioner_edge.io.notice import Notice, NoticeHandler
from bioner_edge.io.reading import detect, document_file, documents, no_document, refusal
from bioner_edge.io.registry import find_reader, readable, suffix, suffixes
from bioner_edge.io.walk import FROM_A_MAC, is_special, match, walk

__all__ = ["Inputs"]

STDIN = "-"
_MOST_NAMED = 6  # suffixes, or files, in a remark


@dataclass
class Inputs:
    """The documents behind some names. Finding the files happens at once, reading them as the documents are taken.

    `file_format`, as `--from` names it, overrides what a file tells. A text and the annotations beside it are one file
    here, the text, whichever of them is named. In folders, and behind patterns, hidden files are passed over; those
    whose suffix is not known are left out, and those without one that hold no document, with a remark. Raises
    InputError for a name behind which nothing is, for a file with another suffix, and, where the documents should be
    `annotated`, for one without annotations that are read. A file that cannot be opened later, and a folder that could
    not be looked into, is reported like any other text that is lost.
    """

    names: Sequence[str]
    report: NoticeHandler
    file_format: str | None = None
    done_bytes: int = 0
    """How far reading has come, for an estimate of the time left."""
    files: list[tuple[str, Path | None]] = field(init=False)
    """(name in ids and messages, path; None for standard input)"""
    notices: list[Notice] = field(init=False)
    """What is said before the first document: of files that were left out, and folders that are closed."""
    current: str = field(default="", init=False)
    """The name of the input that is being read."""
    annotated: bool = field(default=False, kw_only=True)
    passes: Callable[[Path], bool] = field(default=lambda path: False, kw_only=True)
    """Which files and folders are passed over: those that a run that is taken up again has written itself."""
    passed_over: bool = field(default=False, init=False)
    """Whether there were such."""

    def __post_init__(self) -> None:
        names = self.names or [STDIN]
        self.notices: list[Notice] = []
        self._kept: dict[str, BinaryIO] = {}
        given = self.file_format  # an unknown one, or one that no stream holds, is refused at once
        self._file_format = find_reader(given, has_path=STDIN not in names) if given else None
        found = list(dict.fromkeys(found for name in names for found in self._find(name)))
        often = Counter(name for name, _ in found)
        # Two folders may each hold a `1.txt`: their documents must not share an id.
        self.files = [(_readable(str(path) if path and often[name] > 1 else name), path) for name, path in found]
        if self.annotated:
            self._refuse_unannotated()

    @cached_property
    def total_bytes(self) -> int | None:
        """None where something without a size, a pipe or standard input, is among them."""
        if not all(path and os.path.isfile(path) for _, path in self.files):
            return None
        return sum(path.stat().st_size for _, path in self.files if path)

    def __iter__(self) -> Iterator[Document]:
        return self.read(self.report)

    def read(self, report: NoticeHandler) -> Iterator[Document]:
        """The documents; what is said on the way goes to `report`, not to the handler of these inputs."""
        for notice in self.notices:
            report(notice)
        for name, path in self.files:
            self.current = name
            yield from self._read(name, path, report)
            if kept := self._kept.pop(name, None):
                kept.close()

    def again(self, name: str, lost: set[str]) -> Iterator[Document]:
        """The documents of one input before they are read with all others; what is lost of it comes into `lost`.

        What can be read only once, standard input or a pipe, is kept until then.
        """
        path, done_bytes = dict(self.files)[name], self.done_bytes
        if path is None or not os.path.isfile(path):
            with self._open(name, path) as stream:
                shutil.copyfileobj(stream, kept := TemporaryFile())  # noqa: SIM115 - `__iter__` closes it
            self._kept[name] = kept
        yield from self._read(name, path, lambda notice: lost.add(str(notice)) if notice.text_lost else None)
        self.done_bytes = done_bytes

    def _open(self, name: str, path: Path | None) -> AbstractContextManager[BinaryIO]:
        if name in self._kept:
            self._kept[name].seek(0)
            return nullcontext(self._kept[name])
        return path.open("rb") if path else nullcontext(sys.stdin.buffer)

    def _read(self, name: str, path: Path | None, report: NoticeHandler) -> Iterator[Document]:
        before = self.done_bytes
        how: Any = {"path": path, "file_format": self._file_format, "annotated": self.annotated}
        try:
            with self._open(name, path) as stream:
                for document in documents(stream, name, report, **how):
                    if stream.seekable():  # a pipe cannot tell
                        self.done_bytes = before + stream.tell()
                    yield document
        except OSError as error:
            report(_lost(name, error))
        except InputError as error:  # of a stream that none had annotations is known only when all are read
            report(Notice(name, None, str(error).removeprefix(f"{name}: ")))

    def _refuse_unannotated(self) -> None:
        """Refuse at once what could be told only when all is read, and a model was loaded."""
        for name, path in self.files:
            found = (self._file_format or detect(path)) if path and os.path.isfile(path) else None
            if path and found and found.refuse_unannotated:
                with suppress(OSError), path.open("rb") as stream:  # told when it is read
                    found.refuse_unannotated(stream, name)

    def _find(self, name: str) -> list[tuple[str, Path | None]]:
        if name == STDIN:
            return [("stdin", None)]
        path = Path(name)
        if name and path.exists() and not self._foreign([path]):
            return []
        if name and path.is_dir():  # an empty name, an unset variable perhaps, is not this folder
            return self._inside(name, path)
        if name and path.exists():
            if reason := refusal(path, self._file_format):
                raise InputError(reason)
            return [self._named(path)]
        return self._matching(name)

    def _inside(self, name: str, folder: Path) -> list[tuple[str, Path | None]]:
        """The files of a folder, and of all folders in it."""
        if folder.name == FROM_A_MAC and len(self.names) > 1:  # the shell names it where one writes `notes/*`
            return []
        seen, closed = walk(folder)
        seen = self._foreign(seen)
        self.notices += [_lost(str(error.filename), error) for error in closed]
        files = self._known(name, seen)
        inside = sorted({file for p in files if (file := self._document_file(p))})
        if not (inside or closed):
            known = ", ".join(f"*{known}" for file_format in readable() for known in file_format.suffixes)
            wanted = f"--from {self.file_format}" if self.file_format else known
            raise InputError(f"{name}: no documents in this folder ({wanted}); is it the right one?")
        return [(p.relative_to(folder).as_posix(), p) for p in inside]

    def _matching(self, pattern: str) -> list[tuple[str, Path | None]]:
        """The files that match a pattern; a suffix that is not known is refused where it is that of all of them."""
        found, closed = match(pattern) if pattern else ([], [])
        if found and not (found := self._foreign(found)):
            return []
        self.notices += [_lost(str(error.filename), error) for error in closed]
        if not (found or closed):
            raise InputError(f"{pattern or repr(pattern)}: no such file or folder, and no file matches it as a pattern")
        if found and all(refusal(p, self._file_format) for p in found):
            raise InputError(str(refusal(found[0])))
        return [self._named(p) for p in self._known(pattern, found)]

    def _foreign(self, paths: list[Path]) -> list[Path]:
        """Those that are not to be passed over."""
        found = [path for path in paths if not self.passes(path)]
        self.passed_over = self.passed_over or len(found) < len(paths)
        return found

    def _known(self, name: str, paths: list[Path]) -> list[Path]:
        """Those of the files found behind a name that are read; a remark counts those that are not."""
        if special := [p.name for p in paths if is_special(p)]:
            self._remark(name, f"{_files(len(special))} left out, not regular", special)
            paths = [p for p in paths if not is_special(p)]
        if self._file_format:
            return paths
        known = {"", *suffixes()}
        unknown = {p: told for p in paths if (told := suffix(p.name)) not in known}
        empty = {p: reason for p in paths if not suffix(p.name) and (reason := no_document(p))}
        if unknown:
            often = [f"{suffix} {number}" for suffix, number in Counter(unknown.values()).most_common()]
            self._remark(name, f"{_files(len(unknown))} left out, of no known suffix", often)
        if empty:
            why = [f"{p.name} {reason.partition(';')[0]}" for p, reason in empty.items()]
            self._remark(name, f"{_files(len(empty))} left out, without a suffix and no document", why)
        return [p for p in paths if p not in unknown and p not in empty]

    def _remark(self, name: str, message: str, rest: list[str]) -> None:
        rest = rest[:_MOST_NAMED] + ["…"] * (len(rest) > _MOST_NAMED)
        self.notices.append(Notice(name, None, f"{message}: {', '.join(rest)}", remark=True))

    def _document_file(self, path: Path) -> Path | None:
        return document_file(path, self._file_format) if self._file_format or suffix(path.name) else path

    def _named(self, path: Path) -> tuple[str, Path | None]:
        path = document_file(path, self._file_format) or path
        return path.name, path


def _lost(name: str, error: OSError) -> Notice:
    return Notice(_readable(name), None, f"cannot be read: {error.strerror}", text_lost=True)


def _files(count: int) -> str:
    return "1 file is" if count == 1 else f"{count} files are"


def _readable(name: str) -> str:
    """A file's name as text: the bytes in it that are not UTF-8 could not be written into an output."""
    return os.fsencode(name).decode("utf-8", "replace")
