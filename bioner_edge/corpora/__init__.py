"""File formats for documents, one module each, reading and writing side by side.

A reader is `read(stream, name, report)`: it yields documents one at a time from a binary stream, so that a file of a
million documents is never in memory, and hands what it cannot use to `report`. A writer is `write(document, stream)`.
Where annotations lie in a file beside the text, a reader is also given where the text lies (`PAIRED`), and a writer
writes into a folder (`FOLDERS`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO, Protocol, TextIO

from ..errors import InputError, UsageError, known
from ..span import Document
from . import bc2gm, brat, jsonl, pubtator, text
from .notice import Notice, Report

__all__ = [
    "FOLDERS",
    "PAIRED",
    "READERS",
    "WRITERS",
    "FolderWriter",
    "Notice",
    "Paired",
    "Report",
    "document_file",
    "file_format",
    "format_of",
    "read_file",
    "reader",
    "writer",
]

Reader = Callable[[BinaryIO, str, Report], Iterator[Document]]
Writer = Callable[[Document, TextIO], None]


class FolderWriter(Protocol):
    """Writes documents into a folder, several files each; see `brat.Folder`."""

    path: Path

    def write(self, document: Document) -> None: ...

    def skip(self, document: Document) -> bool: ...

    def close(self) -> None: ...


class Paired(Protocol):
    """A format of several files; its module is one."""

    def read(self, stream: BinaryIO, name: str, report: Report, path: Path) -> Iterator[Document]:
        """The documents of the text in `stream`, which lies at `path`, with the annotations beside it."""

    def document_file(self, path: Path) -> Path | None:
        """The file with the text that `path` belongs to, None where it belongs to none."""


READERS: dict[str, Reader] = {"text": text.read, "jsonl": jsonl.read, "pubtator": pubtator.read}
PAIRED: dict[str, Paired] = {"brat": brat, "bc2gm": bc2gm}
WRITERS: dict[str, Writer] = {"jsonl": jsonl.write, "pubtator": pubtator.write}
FOLDERS: dict[str, Callable[[Path], FolderWriter]] = {"brat": brat.Folder}

_EXTENSIONS = {
    ".txt": "text",
    ".text": "text",
    ".md": "text",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".pubtator": "pubtator",
    ".ann": "brat",
    ".a1": "brat",
    ".a2": "brat",
}


def file_format(name: str) -> str | None:
    """The format that a file's name tells, or None. `X.pubtator.txt`, as BC5CDR is published, is PubTator."""
    lower = name.lower().removesuffix(".txt") if name.lower().endswith(".pubtator.txt") else name.lower()
    return _EXTENSIONS.get(Path(lower).suffix)


def format_of(path: Path) -> str | None:
    """The format of a file, or None: its name tells it, but a `.txt` with brat's annotations beside it is brat."""
    return "brat" if brat.annotated(path) else file_format(path.name)


def document_file(path: Path, file_type: str | None = None) -> Path | None:
    """The file to read for the documents of `path`: of an annotation file the text, of most files the file itself.

    None for a file that is no document's: of no known format, or, where `file_type` says that the files are of
    another one, an annotation file of brat.
    """
    kind = file_type or file_format(path.name)
    if kind in PAIRED:
        return PAIRED[kind].document_file(path)
    return path if kind and brat.document_file(path) in (path, None) else None


def reader(name: str, path: Path | None = None) -> Reader:
    """The reader of a format, for the file at `path`; None is a stream with nothing beside it."""
    if name in READERS:
        return READERS[name]
    if name not in PAIRED:
        raise UsageError(known("input format", name, [*READERS, *PAIRED]))
    if path is None:
        raise UsageError(f"{name} has its annotations in files beside the text: name a file or a folder to read")
    return partial(PAIRED[name].read, path=path)


def writer(name: str) -> Writer:
    """The writer of a format that is one file. Raises UsageError for an unknown one and for a folder's."""
    if name in WRITERS:
        return WRITERS[name]
    if name in FOLDERS:
        raise UsageError(f"{name} is a folder of pairs, no single file")
    raise UsageError(known("output format", name, [*WRITERS, *FOLDERS]))


def read_file(
    path: Path, report: Report, *, name: str | None = None, file_type: str | None = None
) -> Iterator[Document]:
    """The documents of one file, with the annotations that lie beside it where it is of such a format.

    `file_type` overrides what the file tells, see `format_of`; `name` is what ids and notices call the file.
    Raises InputError for a file that cannot be opened or whose format its name does not tell.
    """
    path = document_file(path, file_type) or path
    kind = file_type or format_of(path)
    if kind is None:
        raise InputError(f"{path}: no known extension ({', '.join(_EXTENSIONS)}); name its format with --from")
    read = reader(kind, path)
    try:
        with path.open("rb") as stream:
            yield from read(stream, name or str(path), report)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
