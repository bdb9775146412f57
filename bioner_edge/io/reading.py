"""Read the documents of a file or a stream: of which file format it is, and what is no document."""

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

__all__ = ["detect", "document_file", "documents", "no_document", "read_file", "refusal"]

_ANY_TEXT = ("", ".txt", ".text")
"""Suffixes that promise no more than text, whose content tells the format. Markdown may begin with HTML."""

_ABOUT = re.compile(
    "authors|change(log|s)|citation|contributing|copying|copyright|install|licen[cs]e|makefile|news|notice|readme|version",
    re.IGNORECASE,
)
"""Files without a suffix that lie in folders of documents, corpora above all, and are none."""


def detect(path: Path) -> FileFormat | None:
    """The format of a file, or None: its name tells it, but a `.txt` with brat's annotations beside it is brat.

    A text that holds another format, PubTator or JSON Lines, is of that; see `documents`.
    """
    by_name = _by_name(path)
    if not _promises_text(path) or not os.path.isfile(path):
        return by_name
    with suppress(OSError, sniff.Unreadable), path.open("rb") as stream:
        return sniff.recognize(Head(stream))
    return by_name


def _by_name(path: Path) -> FileFormat | None:
    """What names tell, the file's own and those of the files beside it."""
    return _claimed(path) or by_suffix(path.name)


def _claimed(path: Path) -> FileFormat | None:
    """The format that the files beside a text tell."""
    return next((known for known in FILE_FORMATS.values() if known.beside and known.beside.claims(path)), None)


def _promises_text(path: Path) -> bool:
    """Whether a name says no more than that there is text: the content tells which."""
    return suffix(path.name) in _ANY_TEXT and not _claimed(path)


def document_file(path: Path, file_format: FileFormat | None = None) -> Path | None:
    """The file to read for the documents of `path`: of an annotation file the text, of most files the file itself.

    None for a file that is no document's: of no known format, or, where `file_format` says that the files are of
    another one, a file of annotations.
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
    """The documents of a stream, which lies at `path`, or is standard input: the one way by which anything is read.

    `file_format` goes before the name, the name before the content, which is asked where the name promises text or
    tells nothing: PubTator and JSON Lines are then read as such, with a remark where the name says otherwise. Other
    markup is refused there, and binary data everywhere. Raises InputError where the stream should be `annotated` and
    holds no annotations that are read.
    """
    head = Head(stream)
    told = file_format or (_by_name(path) if path else None)
    try:
        if file_format is None and (path is None or _promises_text(path)):
            found = sniff.recognize(head)
        else:
            found = told or PLAIN_TEXT
            if not found.binary:
                sniff.refuse_binary(head)
    except sniff.Unreadable as error:
        report(Notice(name, None, str(error), text_lost=True))
        return
    if told and found != told:
        message = f"read as {found.title}, which it holds; --from {told.name} reads it as it stands"
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
    """The documents of one file, with the annotations that lie beside it where it is of such a format.

    What cannot be used goes to `report`; without one it is warned of. `file_format`, as `--from` names it, overrides
    what the file tells, see `documents`; `name` is what ids and notices call the file. Raises InputError for a file
    that cannot be opened or whose format its name does not tell, UsageError for a file format that is not known.
    """
    path, known = Path(path), find_reader(file_format) if file_format else None
    path = document_file(path, known) or path
    if reason := refusal(path, known):
        raise InputError(reason)
    try:
        with path.open("rb") as stream:
            yield from documents(stream, name or str(path), report or _warn, path=path, file_format=known)
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
            head = Head(stream)
            sniff.recognize(head)
            return None if head.filled() else "is empty"
    except sniff.Unreadable as error:
        return str(error)
    except OSError:  # told when it is read
        return None


def refusal(path: Path, file_format: FileFormat | None = None) -> str | None:
    """Why a file is not read for its name alone, with what its content tells; None where its name is no hindrance."""
    told = suffix(path.name)
    if file_format or not told or told in suffixes():
        return None
    if told in COMPRESSED:
        return f"{path}: {told} files are not read; unpack it first"
    known = f"{path}: the suffix {told} is not known ({', '.join(suffixes())})"
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
