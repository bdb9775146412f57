"""What a file format is: the contract of its module, which holds one `FILE_FORMAT` and has one line in `registry`.

A file format is how documents lie in files (`--from`, `--to`); a format alone is how a model writes its answer. All
modules are imported to know one: what is heavy is imported where it is used.

Reading is `read(source, report)`: it yields documents one at a time, so that a file of a million documents is never in
memory, and hands every row that it cannot use to `report`, with its line, and goes on.

Writing is rendering: a writer says what the bytes of a document are, and what stands before, between and behind the
documents. It touches no file; where the bytes go, and that nothing is lost when a run is broken off, is the sinks'
work, for all formats alike.
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
    """A stream to read. `name` is what ids and notices call it, `path` where it lies, None for standard input.

    `annotated` says that whoever reads wants the annotations: a reader that finds none where there could be some raises
    InputError once all is read.
    """

    stream: BinaryIO
    name: str
    path: Path | None = None
    annotated: bool = False


@dataclass(frozen=True, slots=True)
class WriteSettings:
    """What the bytes of an output may depend on beside the extractions: a run that is taken up again has the same.

    `labels` are those of the run, `with_gold` asks for the annotations that came with the documents.
    """

    labels: tuple[str, ...] = ()
    with_gold: bool = False


@dataclass(frozen=True, slots=True)
class Writer:
    """A file as it is written: header, the documents with the separator between them, footer.

    `render` gives the bytes of one document, and raises InputError for what the format cannot hold. No bytes may depend
    on the other documents, on their order or on the time: where a run is taken up again the footer is cut off and
    written anew behind what is added, and documents that were tried again are moved to their places. A file without its
    footer is one whose run was broken off.
    """

    render: Callable[[Extraction], bytes]
    header: bytes = b""
    separator: bytes = b""
    footer: bytes = b""


@dataclass(frozen=True, slots=True)
class FolderWriter:
    """The files of a document, a common name with each of `suffixes`; `render` gives their bytes in that order.

    The first is the document, the others are about it: it is put in place last and removed first, so that it never
    stands beside another one's. `render` raises InputError for what the format cannot hold.
    """

    suffixes: tuple[str, ...]
    render: Callable[[Extraction], Sequence[bytes]]


@dataclass(frozen=True, slots=True)
class Beside:
    """How a format finds its files, where annotations lie in files beside the text."""

    document_file: Callable[[Path], Path | None]
    """The file with the text that a path belongs to, the path itself where it is one; None where it belongs to none."""
    annotation_files: Callable[[Path], Sequence[Path]]
    """The files that are read beside a text, those of them that are there."""
    claims: Callable[[Path], bool] = lambda path: False
    """Whether the files beside a text tell that it is of this format, whatever its own name tells."""
    unread_suffixes: tuple[str, ...] = ()
    """Of files that belong to a document, and of which nothing is read."""
    row: re.Pattern[bytes] | None = None
    """How a file of annotations begins: it is refused where it comes without its text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFormat:
    """One file format. What is None it cannot do: read, or write into one file, or into a folder."""

    name: str
    """As `--from` and `--to` call it."""
    title: str
    """As a sentence calls it: JSON Lines."""
    suffixes: tuple[str, ...] = ()
    """Of file names, in lower case. No other format has them."""
    long_suffixes: tuple[str, ...] = ()
    """Endings of two suffixes that stand for the first of `suffixes`, whatever the last one alone would tell."""
    binary: bool = False
    """Whether its files are no text; those of other formats are refused where they look binary."""
    read: Callable[[Source, NoticeHandler], Iterator[Document]] | None = None
    recognize: Callable[[Head], bool] | None = None
    """Whether a stream whose name promises no more than text, or that has none, is of this format."""
    refuse_unannotated: Callable[[BinaryIO, str], None] | None = None
    """Raises InputError, with the name given, where no document of a stream has annotations; reads on until one has."""
    beside: Beside | None = None
    row_label: re.Pattern[str] | None = None
    """A line that is an annotation, its label the first group: it may be wrong in every other way."""
    writer: Callable[[WriteSettings], Writer] | None = None
    folder_writer: Callable[[WriteSettings], FolderWriter] | None = None
    """Raises InputError for labels that it cannot write."""
    folder_of: str = ""
    """What such a folder holds: pairs, a text and its annotations."""
    holds_gold: bool = False
    """Whether it has a place for the annotations that came with a document, beside what was found in it."""

    @property
    def all_suffixes(self) -> tuple[str, ...]:
        """The suffixes, those of files of which nothing is read included."""
        return (*self.suffixes, *(self.beside.unread_suffixes if self.beside else ()))

    @property
    def is_written(self) -> bool:
        return bool(self.writer or self.folder_writer)
