"""File formats for documents, one module each, reading and writing side by side.

A reader is `read(stream, name, report)`: it yields documents one at a time from a binary stream, so that a file of a
million documents is never in memory, and hands what it cannot use to `report`. A writer is `write(document, stream)`.
Where annotations lie in a file beside the text, a reader is also given where the text lies (`PAIRED`), and a writer
writes into a folder (`FOLDERS`).
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO, Protocol, TextIO

from bioner_edge.document import Document
from bioner_edge.errors import InputError, UsageError, unknown_name
from bioner_edge.io import bc2gm, brat, jsonl, plain, pubtator, sniff
from bioner_edge.io.notice import Notice, NoticeHandler
from bioner_edge.io.suffixes import COMPRESSED, SUFFIXES, file_format, output_format, suffix

__all__ = [
    "FOLDERS",
    "PAIRED",
    "READERS",
    "SUFFIXES",
    "WRITERS",
    "FolderWriter",
    "Notice",
    "NoticeHandler",
    "Paired",
    "document_file",
    "documents",
    "file_format",
    "format_of",
    "no_document",
    "output_format",
    "read_file",
    "reader",
    "refusal",
    "suffix",
    "writer",
]

Reader = Callable[[BinaryIO, str, NoticeHandler], Iterator[Document]]
Writer = Callable[[Document, TextIO], None]


class FolderWriter(Protocol):
    """Writes documents into a folder, several files each; see `brat.Folder`."""

    path: Path

    def check(self, labels: Iterable[str]) -> None: ...

    def name(self, document: Document) -> str: ...

    def take(self, name: str) -> None: ...

    def write(self, document: Document, name: str) -> None: ...

    def has(self, name: str) -> bool: ...

    def remove(self, name: str) -> None: ...

    def close(self) -> None: ...


class Paired(Protocol):
    """A format of several files; its module is one."""

    def read(self, stream: BinaryIO, name: str, report: NoticeHandler, path: Path) -> Iterator[Document]:
        """The documents of the text in `stream`, which lies at `path`, with the annotations beside it."""

    def document_file(self, path: Path) -> Path | None:
        """The file with the text that `path` belongs to, None where it belongs to none."""


READERS: dict[str, Reader] = {"text": plain.read, "jsonl": jsonl.read, "pubtator": pubtator.read}
PAIRED: dict[str, Paired] = {"brat": brat, "bc2gm": bc2gm}
WRITERS: dict[str, Writer] = {"jsonl": jsonl.write, "pubtator": pubtator.write}
FOLDERS: dict[str, Callable[[Path], FolderWriter]] = {"brat": brat.Folder}

_TITLES = {"text": "text", "jsonl": "JSON Lines", "pubtator": "PubTator"}

_ABOUT = re.compile(
    "authors|change(log|s)|citation|contributing|copying|copyright|install|licen[cs]e|makefile|news|notice|readme|version",
    re.IGNORECASE,
)
"""Files without a suffix that lie in folders of documents, corpora above all, and are none."""


def format_of(path: Path) -> str | None:
    """The format of a file, or None: its name tells it, but a `.txt` with brat's annotations beside it is brat.

    A text that holds PubTator or JSON Lines is that, see `documents`.
    """
    kind = _named(path)
    if not _promises_text(path) or not os.path.isfile(path):
        return kind
    with suppress(OSError, sniff.Unreadable), path.open("rb") as stream:
        return sniff.content(sniff.Head(stream))
    return kind


def _named(path: Path) -> str | None:
    """What names tell, the file's own and those of the files beside it."""
    return "brat" if brat.has_annotations(path) else file_format(path.name)


def _promises_text(path: Path) -> bool:
    """Whether a name says no more than that there is text: the content tells which. Markdown may begin with HTML."""
    return suffix(path.name) in ("", ".txt", ".text") and not brat.has_annotations(path)


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
        raise UsageError(unknown_name("input format", name, [*READERS, *PAIRED]))
    if path is None:
        raise UsageError(f"{name} has its annotations in files beside the text: name a file or a folder to read")
    return partial(PAIRED[name].read, path=path)


def writer(name: str) -> Writer:
    """The writer of a format that is one file. Raises UsageError for an unknown one and for a folder's."""
    if name in WRITERS:
        return WRITERS[name]
    if name in FOLDERS:
        raise UsageError(f"{name} is a folder of pairs, no single file")
    raise UsageError(unknown_name("output format", name, [*WRITERS, *FOLDERS]))


def documents(
    stream: BinaryIO,
    name: str,
    report: NoticeHandler,
    *,
    path: Path | None = None,
    file_type: str | None = None,
    annotated: bool = False,
) -> Iterator[Document]:
    """The documents of a stream, which lies at `path`, or is standard input: the one way by which anything is read.

    `file_type` goes before the name, the name before the content, which is asked where the name promises text or
    tells nothing: PubTator and JSON Lines are then read as such, with a remark where the name says otherwise. Other
    markup is refused there, and binary data everywhere. Raises InputError where the stream should be `annotated` and
    is JSON Lines without annotations that are read.
    """
    head = sniff.Head(stream)
    kind = file_type or (_named(path) if path else None)
    try:
        if file_type is None and (path is None or _promises_text(path)):
            found = sniff.content(head)
        else:
            sniff.refuse_binary(head)
            found = kind or "text"
    except sniff.Unreadable as error:
        report(Notice(name, None, str(error), text_lost=True))
        return
    if kind and found != kind:
        message = f"read as {_TITLES[found]}, which it holds; --from {kind} reads it as it stands"
        report(Notice(name, None, message, remark=True))
    read = partial(jsonl.read, annotated=annotated) if found == "jsonl" else reader(found, path)
    yield from read(head.stream(), name, report)


def read_file(
    path: str | os.PathLike[str],
    report: NoticeHandler | None = None,
    *,
    name: str | None = None,
    file_type: str | None = None,
) -> Iterator[Document]:
    """The documents of one file, with the annotations that lie beside it where it is of such a format.

    What cannot be used goes to `report`; without one it is warned of. `file_type` overrides what the file tells, see
    `documents`; `name` is what ids and notices call the file. Raises InputError for a file that cannot be opened or
    whose format its name does not tell.
    """
    path = Path(path)
    path = document_file(path, file_type) or path
    if reason := refusal(path, file_type):
        raise InputError(reason)
    try:
        with path.open("rb") as stream:
            yield from documents(stream, name or str(path), report or _warn, path=path, file_type=file_type)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None


def _warn(notice: Notice) -> None:
    warnings.warn(str(notice), stacklevel=2)


def no_document(path: Path) -> str | None:
    """Why a file that nobody named, and whose name tells nothing, is no document; None where it is one."""
    if _ABOUT.fullmatch(path.name):
        return "is about the others"
    try:
        with path.open("rb") as stream:
            head = sniff.Head(stream)
            sniff.content(head)
            return None if head.filled() else "is empty"
    except sniff.Unreadable as error:
        return str(error)
    except OSError:  # told when it is read
        return None


def refusal(path: Path, file_type: str | None = None) -> str | None:
    """Why a file is not read for its name alone, with what its content tells; None where its name is no hindrance."""
    told = suffix(path.name)
    if file_type or not told or told in SUFFIXES:
        return None
    if told in COMPRESSED:
        return f"{path}: {told} files are not read; unpack it first"
    known = f"{path}: the suffix {told} is not known ({', '.join(SUFFIXES)})"
    found = "text"
    try:
        if os.path.isfile(path):  # a pipe would be emptied
            with path.open("rb") as stream:
                found = sniff.content(sniff.Head(stream))
    except sniff.Unreadable as error:
        return f"{known}; the file {error}"
    except OSError as error:
        return f"{path}: cannot be read: {error.strerror}"
    if found == "text":
        return f"{known}; give --from text to read it as plain text"
    return f"{known}; it holds {_TITLES[found]}: give --from {found}"
