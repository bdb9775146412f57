"""PubTator: `PMID|t|title`, `PMID|a|abstract`, then one tab-separated annotation per line; a title starts a block.

Offsets count code points of title + one space + abstract (Wei et al. 2013, doi:10.1093/nar/gkt441). Relations
(no offsets) are not entities and are skipped. Annotations are written with six columns, the last one `-` for a missing
identifier: other readers take five columns for a relation.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TextIO

from bioner_edge.document import Document, Entity
from bioner_edge.errors import InputError
from bioner_edge.io.contract import FileFormat, Source, Writer, WriteSettings
from bioner_edge.io.head import Head
from bioner_edge.io.notice import Notice, NoticeHandler, lines

if TYPE_CHECKING:
    from bioner_edge.extraction import Extraction

__all__ = ["FILE_FORMAT", "read", "write"]

_TEXT_LINE = re.compile(r"([^|\t]+)\|([ta])\|(.*)", re.DOTALL)
_ROW = re.compile(r"\r*([^|\t\r]+\|[ta]\||\S+\t([0-9]+\t[0-9]+|[^\W\d_]\S*)\t)")  # how a line begins
_FIRST_LINE = re.compile(rb"([^|\t]+)\|[ta]\|")
_ROW_LABEL = re.compile(r"[^\t|]+\t-?[0-9]+\t-?[0-9]+\t[^\t]*\t([^\t]+)")
_NUMBER = re.compile(r"-?[0-9]+")
_OFFSET = re.compile(r"[0-9]{1,18}")
_RELATION = re.compile(r"[^\W\d_][^\t]*")
_NEITHER = "neither 'ID|t|title', 'ID|a|abstract' nor a tab-separated annotation"
_BREAKS = str.maketrans("\n\r\t", "   ")  # one character for one, so that offsets stay


def _recognize(head: Head) -> bool:
    """Whether a stream begins with a title or abstract, and its second line fits."""
    lines = head.lines()
    found = _FIRST_LINE.match(next(lines, b""))
    return bool(found and _is_block(found[1], next(lines, None)))


def _is_block(identifier: bytes, after: bytes | None) -> bool:
    """Whether `after`, the line after a document's first one, belongs to it, starts another document, or is missing."""
    if after is None:
        return identifier.isdigit()
    own = re.escape(identifier) + rb"(\|[ta]\||\t(\d+\t\d+|[a-zA-Z]\S*)\t)"
    if re.match(own, after):
        return True
    return not re.search(rb"\s", identifier) and bool(re.match(rb"[^\s|]+\|[ta]\|", after))


@dataclass(slots=True)
class _Block:
    """One document while its lines are read."""

    id: str
    title: str = ""
    abstract: str | None = None
    rows: list[tuple[int, list[str]]] = field(default_factory=list)

    def document(self, name: str, report: NoticeHandler) -> Document:
        text = f"{self.title} {self.abstract}" if self.abstract else self.title
        entities = []
        for number, fields in self.rows:
            try:
                entity = _entity(self.id, text, fields)
            except ValueError as error:
                report(Notice(name, number, str(error), row="\t".join(fields)))
            else:
                entities += [entity] if entity else []
        return Document(self.id, text, tuple(entities), title_end=len(self.title))


def read(source: Source, report: NoticeHandler) -> Iterator[Document]:
    """Read the documents of a PubTator stream, one at a time. Unusable rows go to `report` with their line number."""
    block: _Block | None = None
    name = source.name
    for number, line in lines(source.stream, name, report, _ROW):
        if not line.strip():
            continue
        if match := _TEXT_LINE.fullmatch(line):
            identifier, kind, text = match.groups()
            if kind == "t" or block is None or block.id != identifier:
                if block:
                    yield block.document(name, report)
                block = _Block(identifier)
            if kind == "t":
                block.title = text
            elif block.abstract is None:
                block.abstract = text
            else:
                message = f"a second abstract for {identifier}; give it a block of its own"
                report(Notice(name, number, message, text_lost=True))
        elif block is None or not _is_row(fields := line.rstrip("\r").split("\t"), block.id):
            report(Notice(name, number, _NEITHER, text_lost=True, row=line))
        else:
            block.rows.append((number, fields))
    if block:
        yield block.document(name, report)


def _is_row(fields: list[str], identifier: str) -> bool:
    """Whether a line is an annotation or a relation of any document; otherwise it is text, perhaps a broken line."""
    return len(fields) > 1 and (fields[0] == identifier or all(map(_NUMBER.fullmatch, fields[1:3])))


def _entity(identifier: str, text: str, fields: list[str]) -> Entity | None:
    """The entity of one annotation row, None for a relation. Raises ValueError if the row does not fit its text."""
    if fields[0] != identifier:
        raise ValueError(f"inside the block of {identifier}, but not one of its annotations")
    if len(fields) >= 4 and _RELATION.fullmatch(fields[1]):  # ID, type, two concepts, and optional columns
        return None
    if len(fields) < 5 or not (fields[4] and _OFFSET.fullmatch(fields[1]) and _OFFSET.fullmatch(fields[2])):
        raise ValueError("an annotation needs: ID, start, end, mention, type")
    start, end, mention, label = int(fields[1]), int(fields[2]), fields[3], fields[4]
    if not start < end <= len(text):
        raise ValueError(f"offsets [{start}, {end}) are not inside the text of {len(text)} characters")
    if text[start:end] != mention:
        raise ValueError(f"the mention does not match the text at [{start}, {end})")
    return Entity.at(label, start, end)


def write(document: Document, stream: TextIO) -> None:
    """Write one block. Each line break or tab becomes one space, so that offsets stay right.

    The title ends at `title_end`, else at the first line break. Raises InputError for what PubTator cannot represent.
    """
    if not document.id or re.search(r"[|\t\n\r]", document.id):
        raise InputError(
            f"document {document.id!r}: a PubTator id must not be empty or contain '|', tabs or line breaks"
        )
    if any(len(e.fragments) > 1 for e in document.entities):
        raise InputError(f"document {document.id}: PubTator has no discontinuous mentions; write JSON Lines")
    bad = next((e.label for e in document.entities if not e.label or re.search(r"[\t\n\r]", e.label)), None)
    if bad is not None:
        raise InputError(f"document {document.id}: PubTator cannot represent the label {bad!r}")
    text = document.text.translate(_BREAKS)
    title_end = _title_end(document, text)
    stream.write(f"{document.id}|t|{text[:title_end]}\n{document.id}|a|{text[title_end + 1 :]}\n")
    for entity in document.entities:
        row = [document.id, str(entity.start), str(entity.end), entity.mention(text), entity.label, "-"]
        stream.write("\t".join(row) + "\n")
    stream.write("\n")


def _title_end(document: Document, text: str) -> int:
    """The end of the title: a space followed by an abstract, or else the end of the text, so that nothing is lost."""
    line_break = document.text.find("\n")
    end = document.title_end if document.title_end is not None else line_break
    return end if 0 <= end < len(text) - 1 and text[end] == " " else len(text)


def _render(extraction: Extraction) -> bytes:
    write(extraction.to_document(), stream := io.StringIO())
    return stream.getvalue().encode()


def _make_writer(settings: WriteSettings) -> Writer:
    return Writer(_render)


FILE_FORMAT = FileFormat(
    name="pubtator",
    title="PubTator",
    suffixes=(".pubtator",),
    long_suffixes=(".pubtator.txt",),
    read=read,
    recognize=_recognize,
    row_label=_ROW_LABEL,
    writer=_make_writer,
)
