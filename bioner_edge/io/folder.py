"""An output folder with a set of files for each document."""

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
_MAX_BYTES = 200  # of a name; file systems allow 255, suffixes included


class Folder:
    """Writes the files of documents, a name with each of `suffixes`.

    The folder is created if missing, and removed again if nothing was written. A file gets its name only when it is
    complete, that of the first suffix last; two documents of one run never share a name.
    """

    def __init__(self, path: Path, suffixes: Sequence[str]) -> None:
        self.path, self._suffixes = path, suffixes
        self._made = not path.is_dir()
        path.mkdir(exist_ok=True)
        self._taken: Counter[str] = Counter()

    def name(self, document: Document) -> str:
        """A unique name for the files of a document: like its id, and valid on any file system."""
        identifier = document.id.removesuffix(self._suffixes[0])
        safe = "".join(c if c.isprintable() and c not in _UNSAFE else "_" for c in identifier)
        if safe.startswith("."):  # hidden, or the folder itself
            safe = "_" + safe[1:]
        safe = safe.encode()[:_MAX_BYTES].decode("utf-8", "ignore") or "document"
        name = safe
        while _fold(name) in self._taken:
            self._taken[_fold(safe)] += 1
            name = f"{safe}-{self._taken[_fold(safe)]}"
        self._taken[_fold(name)] = 1
        return name

    def take(self, name: str) -> None:
        """Reserve a name."""
        self._taken[_fold(name)] += 1

    def write(self, name: str, contents: Sequence[bytes]) -> None:
        """Put the files of a document in place, one for each suffix. Raises OSError if the disk is full."""
        paths = self._files(name)
        partial = [path.with_name(path.name + ".partial") for path in paths]
        last_to_first = range(len(paths) - 1, -1, -1)
        try:
            for n in last_to_first:
                partial[n].write_bytes(contents[n])
            # The old document is removed first, the new one put in place last: none ever lies beside another's files.
            paths[0].unlink(missing_ok=True)
            for n in last_to_first:
                os.replace(partial[n], paths[n])
        except BaseException:
            for path in partial:
                path.unlink(missing_ok=True)
            raise

    def has(self, name: str) -> bool:
        """Whether all files of a name exist."""
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


def _fold(name: str) -> str:
    """The form in which names are compared: file systems may ignore case or normalize accents."""
    return unicodedata.normalize("NFC", name).casefold()
