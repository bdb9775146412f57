"""File formats for documents, one module each, reading and writing side by side.

A reader is `read(stream, name, report)`: it yields documents one at a time from a binary stream, so that a file of a
million documents is never in memory, and hands what it cannot use to `report`. A writer is `write(document, stream)`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, TextIO

from ..errors import InputError, UsageError, known
from ..span import Document
from . import jsonl, pubtator, text
from .notice import Notice, Report

__all__ = ["READERS", "WRITERS", "Notice", "Report", "file_format", "read_file", "reader", "writer"]

Reader = Callable[[BinaryIO, str, Report], Iterator[Document]]
Writer = Callable[[Document, TextIO], None]

READERS: dict[str, Reader] = {"text": text.read, "jsonl": jsonl.read, "pubtator": pubtator.read}
WRITERS: dict[str, Writer] = {"jsonl": jsonl.write, "pubtator": pubtator.write}

_EXTENSIONS = {
    ".txt": "text",
    ".text": "text",
    ".md": "text",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".pubtator": "pubtator",
}


def file_format(name: str) -> str | None:
    """The format that a file's name tells, or None. `X.pubtator.txt`, as BC5CDR is published, is PubTator."""
    lower = name.lower().removesuffix(".txt") if name.lower().endswith(".pubtator.txt") else name.lower()
    return _EXTENSIONS.get(Path(lower).suffix)


def reader(name: str) -> Reader:
    if name not in READERS:
        raise UsageError(known("input format", name, READERS))
    return READERS[name]


def writer(name: str) -> Writer:
    if name not in WRITERS:
        raise UsageError(known("output format", name, WRITERS))
    return WRITERS[name]


def read_file(
    path: Path, report: Report, *, name: str | None = None, file_type: str | None = None
) -> Iterator[Document]:
    """The documents of one file.

    `file_type` overrides what the extension tells; `name` is what ids and notices call the file.
    Raises InputError for a file that cannot be opened or whose format its name does not tell.
    """
    kind = file_type or file_format(path.name)
    if kind is None:
        raise InputError(f"{path}: no known extension ({', '.join(_EXTENSIONS)}); name its format with --from")
    read = reader(kind)
    try:
        with path.open("rb") as stream:
            yield from read(stream, name or str(path), report)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
