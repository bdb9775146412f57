"""The contract of a file format: its module holds one `FILE_FORMAT` and has one line in `registry`.

A file format is how documents are stored in files (`--from`, `--to`); "format" alone is a model's answer format. All
modules are imported at once, so a heavy import goes where it is used.

Reading is `read(source, report)`: it yields documents one at a time, so that a file of a million documents is never in
memory, and passes every row that it cannot use to `report`, with its line, and goes on.

Writing is rendering: a writer returns the bytes of a document, and the header, separator and footer. It touches no
file; the sinks write the bytes, and lose nothing when a run is interrupted, in the same way for all file formats.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from bioner_edge.document import Document
from bioner_edge.io.head import Head
from bioner_edge.io.notice import NoticeHandler

if TYPE_CHECKING:
    from bioner_edge.extraction import Extraction

__all__ = ["Beside", "FileFormat", "FolderWriter", "Source", "WriteSettings", "Writer"]


@dataclass(frozen=True, slots=True)
class Source:
    """A stream to read. `name` is its name in ids and notices, `path` its file, None for standard input.

    `annotated` says that the caller needs the annotations: a reader that finds none, though there could be some, raises
    InputError at the end.
    """

    stream: BinaryIO
    name: str
    path: Path | None = None
    annotated: bool = False


@dataclass(frozen=True, slots=True)
class WriteSettings:
    """What an output's bytes may depend on besides the extractions; a resumed run has the same.

    `labels` are those of the run, `with_gold` asks for the gold that came with the documents.
    """

    labels: tuple[str, ...] = ()
    with_gold: bool = False


@dataclass(frozen=True, slots=True)
class Writer:
    """How a file is written: header, the documents with the separator between them, footer.

    `render` returns the bytes of one document, and raises InputError for what the file format cannot represent. No
    bytes may depend on the other documents, their order or the time: when a run is resumed, the footer is cut off and
    written again after the additions, and retried documents are moved to their places. A file without its footer is
    that of an interrupted run.
    """

    render: Callable[[Extraction], bytes]
    header: bytes = b""
    separator: bytes = b""
    footer: bytes = b""


@dataclass(frozen=True, slots=True)
class FolderWriter:
    """The files of a document, a common name with each of `suffixes`; `render` returns their bytes in that order.

    The first is the document, the others belong to it: it is put in place last and removed first, so that it never lies
    beside another document's files. `render` raises InputError for what the file format cannot represent.
    """

    suffixes: tuple[str, ...]
    render: Callable[[Extraction], Sequence[bytes]]


@dataclass(frozen=True, slots=True)
class Beside:
    """How a file format with annotations in files beside the text finds its files."""

    document_file: Callable[[Path], Path | None]
    """The text file that a path belongs to, the path itself for a text, or None."""
    annotation_files: Callable[[Path], Sequence[Path]]
    """The existing annotation files beside a text."""
    claims: Callable[[Path], bool] = lambda path: False
    """Whether the files beside a text show that it is of this file format, whatever its own suffix says."""
    unread_suffixes: tuple[str, ...] = ()
    """Suffixes of files that belong to a document but are not read."""
    row: re.Pattern[bytes] | None = None
    """The beginning of an annotation file, which is refused without its text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFormat:
    """One file format. A function that is None is not supported: reading, or writing into a file or a folder."""

    name: str
    """The name for `--from` and `--to`."""
    title: str
    """The name in messages: JSON Lines."""
    suffixes: tuple[str, ...] = ()
    """Suffixes of file names, in lower case; no other file format has them."""
    long_suffixes: tuple[str, ...] = ()
    """Double suffixes that stand for the first of `suffixes`, whatever the last one alone would mean."""
    binary: bool = False
    """Whether its files are binary; files of other file formats are refused if they look binary."""
    read: Callable[[Source, NoticeHandler], Iterator[Document]] | None = None
    recognize: Callable[[Head], bool] | None = None
    """Whether a stream that has no name, or whose name only says that it is text, is of this file format."""
    refuse_unannotated: Callable[[BinaryIO, str], None] | None = None
    """Raises InputError, with the given name, if no document of a stream has annotations; reads until one has."""
    beside: Beside | None = None
    row_label: re.Pattern[str] | None = None
    """Matches an annotation line, with its label as the first group, even if the line is otherwise malformed."""
    writer: Callable[[WriteSettings], Writer] | None = None
    folder_writer: Callable[[WriteSettings], FolderWriter] | None = None
    """Raises InputError for labels that it cannot write."""
    folder_of: str = ""
    """What such a folder holds: pairs, a text and its annotations."""
    holds_gold: bool = False
    """Whether it has a place for a document's gold beside the entities found."""

    @property
    def all_suffixes(self) -> tuple[str, ...]:
        """The suffixes, including those of files that are not read."""
        return (*self.suffixes, *(self.beside.unread_suffixes if self.beside else ()))

    @property
    def is_written(self) -> bool:
        return bool(self.writer or self.folder_writer)
