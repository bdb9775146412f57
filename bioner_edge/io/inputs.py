"""The inputs of a command line: files, folders, globs, standard input; read one document at a time."""

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
from bioner_edge.io.reading import detect, document_error, document_file, documents, suffix_error
from bioner_edge.io.registry import find_reader, readable, suffix, suffixes
from bioner_edge.io.walk import FROM_A_MAC, is_special, match, walk

__all__ = ["Inputs"]

STDIN = "-"
_MAX_NAMED = 6  # suffixes, or files, in a remark


@dataclass
class Inputs:
    """The documents of some names. The files are found at once, and read as the documents are consumed.

    `file_format`, a name for `--from`, overrides the suffixes and contents of files. A text and the annotations beside
    it count as one file, the text, whichever is named. Folders and patterns skip hidden files, and leave out, with a
    remark, files with an unknown suffix and files without a suffix that hold no document. Raises InputError for a name
    without files, for a named file with an unknown suffix, and, if `annotated`, for one without annotations. Files that
    cannot be opened later, and folders that cannot be listed, are reported like any other lost text.
    """

    names: Sequence[str]
    report: NoticeHandler
    file_format: str | None = None
    done_bytes: int = 0
    """Bytes read so far, for an estimate of the time left."""
    files: list[tuple[str, Path | None]] = field(init=False)
    """(name in ids and messages, path; None for standard input)"""
    notices: list[Notice] = field(init=False)
    """Notices that precede the first document: about files left out and folders that cannot be listed."""
    current: str = field(default="", init=False)
    """The name of the input being read."""
    annotated: bool = field(default=False, kw_only=True)
    passes: Callable[[Path], bool] = field(default=lambda path: False, kw_only=True)
    """Which files and folders are skipped: those that the run being resumed has written itself."""
    passed_over: bool = field(default=False, init=False)
    """Whether any were skipped."""

    def __post_init__(self) -> None:
        names = self.names or [STDIN]
        self.notices: list[Notice] = []
        self._kept: dict[str, BinaryIO] = {}
        given = self.file_format  # an unknown one, or one that a stream cannot hold, is refused at once
        self._file_format = find_reader(given, has_path=STDIN not in names) if given else None
        found = list(dict.fromkeys(found for name in names for found in self._find(name)))
        often = Counter(name for name, _ in found)
        # Two folders may each hold a `1.txt`: their documents must not share an id.
        self.files = [(_decode_name(str(path) if path and often[name] > 1 else name), path) for name, path in found]
        if self.annotated:
            self._refuse_unannotated()

    @cached_property
    def total_bytes(self) -> int | None:
        """The size of all files; None if one has no size, such as a pipe or standard input."""
        if not all(path and os.path.isfile(path) for _, path in self.files):
            return None
        return sum(path.stat().st_size for _, path in self.files if path)

    def __iter__(self) -> Iterator[Document]:
        return self.read(self.report)

    def read(self, report: NoticeHandler) -> Iterator[Document]:
        """Read the documents; notices go to `report`, not to the handler of these inputs."""
        for notice in self.notices:
            report(notice)
        for name, path in self.files:
            self.current = name
            yield from self._read(name, path, report)
            if kept := self._kept.pop(name, None):
                kept.close()

    def again(self, name: str, lost: set[str]) -> Iterator[Document]:
        """Read the documents of one input in advance; messages about its lost text are added to `lost`.

        An input that can be read only once, standard input or a pipe, is kept in a temporary file.
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
            report(_lost_file(name, error))
        except InputError as error:  # that a stream has no annotations is known only at its end
            report(Notice(name, None, str(error).removeprefix(f"{name}: ")))

    def _refuse_unannotated(self) -> None:
        """Refuse files without annotations now, not only after a model was loaded and all was read."""
        for name, path in self.files:
            found = (self._file_format or detect(path)) if path and os.path.isfile(path) else None
            if path and found and found.refuse_unannotated:
                with suppress(OSError), path.open("rb") as stream:  # reported when it is read
                    found.refuse_unannotated(stream, name)

    def _find(self, name: str) -> list[tuple[str, Path | None]]:
        if name == STDIN:
            return [("stdin", None)]
        path = Path(name)
        if name and path.exists() and not self._drop_passed([path]):
            return []
        if name and path.is_dir():  # an empty name, perhaps an unset variable, is not the current folder
            return self._find_in_folder(name, path)
        if name and path.exists():
            if reason := suffix_error(path, self._file_format):
                raise InputError(reason)
            return [self._name_file(path)]
        return self._find_matches(name)

    def _find_in_folder(self, name: str, folder: Path) -> list[tuple[str, Path | None]]:
        """The files of a folder and its subfolders."""
        if folder.name == FROM_A_MAC and len(self.names) > 1:  # the shell expands `notes/*` to it
            return []
        seen, closed = walk(folder)
        seen = self._drop_passed(seen)
        self.notices += [_lost_file(str(error.filename), error) for error in closed]
        files = self._select_readable(name, seen)
        inside = sorted({file for p in files if (file := self._document_file(p))})
        if not (inside or closed):
            known = ", ".join(f"*{known}" for file_format in readable() for known in file_format.suffixes)
            expected = f"--from {self.file_format}" if self.file_format else known
            raise InputError(f"{name}: no documents in this folder ({expected}); is it the right one?")
        return [(p.relative_to(folder).as_posix(), p) for p in inside]

    def _find_matches(self, pattern: str) -> list[tuple[str, Path | None]]:
        """The files that match a pattern. Raises InputError if all of them have unknown suffixes."""
        found, closed = match(pattern) if pattern else ([], [])
        if found and not (found := self._drop_passed(found)):
            return []
        self.notices += [_lost_file(str(error.filename), error) for error in closed]
        if not (found or closed):
            raise InputError(f"{pattern or repr(pattern)}: no such file or folder, and no file matches it as a pattern")
        if found and all(suffix_error(p, self._file_format) for p in found):
            raise InputError(str(suffix_error(found[0])))
        return [self._name_file(p) for p in self._select_readable(pattern, found)]

    def _drop_passed(self, paths: list[Path]) -> list[Path]:
        """The paths without those that are skipped."""
        found = [path for path in paths if not self.passes(path)]
        self.passed_over = self.passed_over or len(found) < len(paths)
        return found

    def _select_readable(self, name: str, paths: list[Path]) -> list[Path]:
        """The files of a name that are read; a remark counts those left out."""
        if special := [p.name for p in paths if is_special(p)]:
            self._remark(name, f"{_files(len(special))} left out, not regular", special)
            paths = [p for p in paths if not is_special(p)]
        if self._file_format:
            return paths
        known = {"", *suffixes()}
        unknown = {p: other for p in paths if (other := suffix(p.name)) not in known}
        empty = {p: reason for p in paths if not suffix(p.name) and (reason := document_error(p))}
        if unknown:
            often = [f"{suffix} {number}" for suffix, number in Counter(unknown.values()).most_common()]
            self._remark(name, f"{_files(len(unknown))} left out, of unknown suffix", often)
        if empty:
            why = [f"{p.name} {reason.partition(';')[0]}" for p, reason in empty.items()]
            self._remark(name, f"{_files(len(empty))} left out, without a suffix and not a document", why)
        return [p for p in paths if p not in unknown and p not in empty]

    def _remark(self, name: str, message: str, rest: list[str]) -> None:
        rest = rest[:_MAX_NAMED] + ["…"] * (len(rest) > _MAX_NAMED)
        self.notices.append(Notice(name, None, f"{message}: {', '.join(rest)}", remark=True))

    def _document_file(self, path: Path) -> Path | None:
        return document_file(path, self._file_format) if self._file_format or suffix(path.name) else path

    def _name_file(self, path: Path) -> tuple[str, Path | None]:
        path = document_file(path, self._file_format) or path
        return path.name, path


def _lost_file(name: str, error: OSError) -> Notice:
    return Notice(_decode_name(name), None, f"cannot be read: {error.strerror}", text_lost=True)


def _files(count: int) -> str:
    return "1 file is" if count == 1 else f"{count} files are"


def _decode_name(name: str) -> str:
    """A file's name as text; its bytes that are not UTF-8, which no output could hold, become U+FFFD."""
    return os.fsencode(name).decode("utf-8", "replace")
