"""A folder into which documents are written, some files for each."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from bioner_edge.document import Document

__all__ = ["Folder"]

_UNSAFE = frozenset('/\\:*?"<>|')
_LONGEST_BYTES = 200  # of a name; file systems hold 255, suffixes included


class Folder:
    """Writes the files of documents, each a name with one of `suffixes`.

    The folder is made where it is not there, and is gone again if nothing was written. A file appears under its name
    only when it is whole, that of the first suffix after the others; two documents of one run never share a name.
    """

    def __init__(self, path: Path, suffixes: Sequence[str]) -> None:
        self.path, self._suffixes = path, suffixes
        self._made = not path.is_dir()
        path.mkdir(exist_ok=True)
        self._taken: Counter[str] = Counter()

    def name(self, document: Document) -> str:
        """A name for the files of a document, which no other has: like its id, and fit for any file system."""
        identifier = document.id.removesuffix(self._suffixes[0])
        safe = "".join(c if c.isprintable() and c not in _UNSAFE else "_" for c in identifier)
        if safe.startswith("."):  # hidden, or the folder itself
            safe = "_" + safe[1:]
        safe = safe.encode()[:_LONGEST_BYTES].decode("utf-8", "ignore") or "document"
        name = safe
        while _folded(name) in self._taken:
            self._taken[_folded(safe)] += 1
            name = f"{safe}-{self._taken[_folded(safe)]}"
        self._taken[_folded(name)] = 1
        return name

    def take(self, name: str) -> None:
        """Give a name to no other document."""
        self._taken[_folded(name)] += 1

    def write(self, name: str, contents: Sequence[bytes]) -> None:
        """Put the files of a document in place, one for each suffix. Raises OSError where there is no room."""
        paths = self._files(name)
        partial = [path.with_name(path.name + ".partial") for path in paths]
        last_to_first = range(len(paths) - 1, -1, -1)
        try:
            for n in last_to_first:
                partial[n].write_bytes(contents[n])
            # An old document goes first and the new one comes last: none ever stands beside another's files.
            paths[0].unlink(missing_ok=True)
            for n in last_to_first:
                os.replace(partial[n], paths[n])
        except BaseException:
            for path in partial:
                path.unlink(missing_ok=True)
            raise

    def has(self, name: str) -> bool:
        """Whether files of a name are there."""
        return all(path.is_file() for path in self._files(name))

    def remove(self, name: str) -> None:
        """Remove the files of a name."""
        for path in self._files(name):
            path.unlink(missing_ok=True)

    def _files(self, name: str) -> list[Path]:
        return [self.path / f"{name}{suffix}" for suffix in self._suffixes]

    def close(self) -> None:
        if self._made:
            with suppress(OSError):  # something was written
                self.path.rmdir()


def _folded(name: str) -> str:
    """What two names share that a file system without case, or with one form for accents, takes for one."""
    return unicodedata.normalize("NFC", name).casefold()
