"""Read the documents of a file or stream: detect its file format, and reject what is not a document."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from bioner_edge.document import Document
from bioner_edge.errors import InputError
from bioner_edge.io import sniff
from bioner_edge.io.contract import FileFormat, Source
from bioner_edge.io.head import Head
from bioner_edge.io.notice import Notice, NoticeHandler
from bioner_edge.io.registry import COMPRESSED, FILE_FORMATS, PLAIN_TEXT, by_suffix, find_reader, suffix, suffixes

__all__ = ["detect", "document_error", "document_file", "documents", "read_file", "suffix_error"]

_ANY_TEXT = ("", ".txt", ".text")
"""Suffixes that only say "text": the content decides the file format. Not .md, since Markdown may begin with HTML."""

_ABOUT = re.compile(
    "authors|change(log|s)|citation|contributing|copying|copyright|install|licen[cs]e|makefile|news|notice|readme|version",
    re.IGNORECASE,
)
"""Files without a suffix that often lie among documents, above all in corpora, but are not documents."""


def detect(path: Path) -> FileFormat | None:
    """Detect the file format of a file by its suffix; None if unknown.

    A `.txt` with brat annotations beside it is brat; one that holds PubTator or JSON Lines is that, see `documents`.
    """
    by_name = _format_of_name(path)
    if not _promises_text(path) or not os.path.isfile(path):
        return by_name
    with suppress(OSError, sniff.Unreadable), path.open("rb") as stream:
        return sniff.recognize(Head(stream))
    return by_name


def _format_of_name(path: Path) -> FileFormat | None:
    """The file format by the name of a file and of the files beside it."""
    return _claiming_format(path) or by_suffix(path.name)


def _claiming_format(path: Path) -> FileFormat | None:
    """The file format of a text by the files beside it."""
    return next((known for known in FILE_FORMATS.values() if known.beside and known.beside.claims(path)), None)


def _promises_text(path: Path) -> bool:
    """Whether a name only says that a file is text, so that the content decides."""
    return suffix(path.name) in _ANY_TEXT and not _claiming_format(path)


def document_file(path: Path, file_format: FileFormat | None = None) -> Path | None:
    """The file to read for the documents of `path`: the text of an annotation file, otherwise the file itself.

    None for a file without documents: one of unknown file format, or an annotation file if `file_format` is another.
    """
    known = file_format or by_suffix(path.name)
    if known and known.beside:
        return known.beside.document_file(path)
    others = (other.beside.document_file(path) for other in FILE_FORMATS.values() if other.beside)
    return path if known and all(text in (path, None) for text in others) else None


def documents(
    stream: BinaryIO,
    name: str,
    report: NoticeHandler,
    *,
    path: Path | None = None,
    file_format: FileFormat | None = None,
    annotated: bool = False,
) -> Iterator[Document]:
    """Read the documents of a stream, the file at `path` or standard input. All reading goes through here.

    `file_format` takes precedence over the name, and the name over the content. The content decides if the name says
    nothing, or only that the file is text: PubTator and JSON Lines are then read as such, with a remark unless the name
    agrees, and other markup is refused. Binary data are always refused. Raises InputError if the stream should be
    `annotated` and has no annotations.
    """
    head = Head(stream)
    expected = file_format or (_format_of_name(path) if path else None)
    try:
        if file_format is None and (path is None or _promises_text(path)):
            found = sniff.recognize(head)
        else:
            found = expected or PLAIN_TEXT
            if not found.binary:
                sniff.refuse_binary(head)
    except sniff.Unreadable as error:
        report(Notice(name, None, str(error), text_lost=True))
        return
    if expected and found != expected:
        message = f"read as {found.title}, which it holds; --from {expected.name} reads it as it stands"
        report(Notice(name, None, message, remark=True))
    read = find_reader(found.name, has_path=path is not None).read
    assert read
    yield from read(Source(head.stream(), name, path, annotated), report)


def read_file(
    path: str | os.PathLike[str],
    report: NoticeHandler | None = None,
    *,
    name: str | None = None,
    file_format: str | None = None,
) -> Iterator[Document]:
    """Read the documents of one file, with the annotations beside it if its file format has them there.

    Notices about what cannot be used go to `report`; by default they are warnings. `file_format`, a name for `--from`,
    overrides the suffix and the content, see `documents`; `name` is the file's name in ids and notices. Raises
    InputError for a file that cannot be opened or has an unknown suffix, UsageError for an unknown file format.
    """
    path, known = Path(path), find_reader(file_format) if file_format else None
    path = document_file(path, known) or path
    if reason := suffix_error(path, known):
        raise InputError(reason)
    try:
        with path.open("rb") as stream:
            yield from documents(stream, name or str(path), report or _warn, path=path, file_format=known)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None


def _warn(notice: Notice) -> None:
    warnings.warn(str(notice), stacklevel=2)


def document_error(path: Path) -> str | None:
    """Why a file without a suffix, found in a folder, is not a document; None if it is one."""
    if _ABOUT.fullmatch(path.name):
        return "is about the others"
    try:
        with path.open("rb") as stream:
            head = Head(stream)
            sniff.recognize(head)
            return None if head.first_bytes() else "is empty"
    except sniff.Unreadable as error:
        return str(error)
    except OSError:  # reported when it is read
        return None


def suffix_error(path: Path, file_format: FileFormat | None = None) -> str | None:
    """Why the suffix of a file keeps it from being read, and what its content seems to be; None if it does not."""
    own = suffix(path.name)
    if file_format or not own or own in suffixes():
        return None
    if own in COMPRESSED:
        return f"{path}: {own} files are not read; unpack it first"
    known = f"{path}: the suffix {own} is not known ({', '.join(suffixes())})"
    found = PLAIN_TEXT
    try:
        if os.path.isfile(path):  # a pipe would be emptied
            with path.open("rb") as stream:
                found = sniff.recognize(Head(stream))
    except sniff.Unreadable as error:
        return f"{known}; the file {error}"
    except OSError as error:
        return f"{path}: cannot be read: {error.strerror}"
    if found is PLAIN_TEXT:
        return f"{known}; give --from {found.name} to read it as plain text"
    return f"{known}; it holds {found.title}: give --from {found.name}"
