"""What a stream holds, told by how it begins, where its name does not tell or promises no more than text.

JSON Lines: the first line is a JSON object. PubTator: `ID|t|…`, then a text, an annotation or a relation of that ID.
Whatever clearly is something else is refused and named: binary data by its first bytes under any name and any `--from`;
markup (XML, HTML, other JSON, tables, standoff annotations) where nobody said that it is text. All else is text, and so
is what merely resembles one of these: `{Name} was seen`, `< 5 mg`, `<NAME> was seen`, `[1] Smith`, `see a|t|b`. What
begins with a tag is XML where an XML parser takes all of it: tagged prose has words outside its first element.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Iterator
from itertools import islice
from typing import BinaryIO
from xml.parsers import expat

from bioner_edge.io.binary import binary

__all__ = ["Head", "Unreadable", "content", "refuse_binary"]

_HEAD_BYTES = 8192
_LINE_BYTES = 1 << 20  # of a longer first line no more is looked at


class Unreadable(Exception):
    """What a stream holds and what to do; without the stream's name."""


class Head:
    """The beginning of a stream, read as far as it is asked about and no further: who writes into a pipe may wait.

    `stream` then gives all of it again.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._start = stream.tell() if stream.seekable() else None
        self._ended = False
        self.data = b""

    @property
    def waits(self) -> bool:
        """Whether more may come only after something was answered, as from a pipe."""
        return self._start is None

    def lines(self) -> Iterator[bytes]:
        """The lines that are not blank, without their ends, of which a lone CR is one."""
        while len(self.data) < _LINE_BYTES and (raw := self._stream.readline(_LINE_BYTES)):
            line = raw.removeprefix(codecs.BOM_UTF8) if not self.data else raw
            self.data += raw
            yield from (part for part in re.split(rb"[\r\n]+", line) if part.strip())

    def filled(self) -> bytes:
        """The first 8 KiB, or all there is."""
        while len(self.data) < _HEAD_BYTES and not self._ended:
            more = self._stream.read(_HEAD_BYTES - len(self.data))
            self.data += more
            self._ended = not more
        return self.data[:_HEAD_BYTES]

    def blocks(self) -> Iterator[bytes]:
        """The stream from its beginning, block by block: its first MiB, or all there is."""
        yield self.data
        while len(self.data) < _LINE_BYTES and not self._ended:
            more = self._stream.read(_HEAD_BYTES)
            self.data += more
            self._ended = not more
            yield more

    def stream(self) -> BinaryIO:
        """The stream from its beginning."""
        if self._start is not None:
            self._stream.seek(self._start)
            return self._stream
        return io.BufferedReader(_Replayed(self.data, self._stream), _LINE_BYTES >> 4)


class _Replayed(io.RawIOBase):
    """What was read of a stream, then the rest as it comes."""

    def __init__(self, data: bytes, rest: BinaryIO) -> None:
        self._data = memoryview(data)
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        part = self._data[: len(buffer)] or self._rest.read1(len(buffer))  # type: ignore[attr-defined]
        self._data = self._data[len(part) :]
        buffer[: len(part)] = part
        return len(part)


def refuse_binary(head: Head) -> None:
    """Raise Unreadable for what is binary whoever calls it what. Of a pipe no more is read than its first line."""
    if head.waits:
        next(head.lines(), None)
    if told := binary(head.data[:_HEAD_BYTES] if head.waits else head.filled(), characters=True):
        raise Unreadable(told)


_TEXT_LINE = re.compile(rb"([^|\t]+)\|[ta]\|")
_EMPTY_OBJECT = re.compile(rb"\s*\{\s*\}\s*")
_JSON_KEY = re.compile(rb'\s*\{\s*"[^"\n]*"\s*:')
_HTML = rb"(!doctype html|html|head|body|title|meta|script|style|div|span|p|br|table|ul|ol|h[1-6]|article|section|main)"
_TAGGED = rb"(\S+[ \t])+(O|[BIESLU]-\S+)"
_COLUMNS = frozenset(("id", "pmid", "text", "note", "title", "abstract", "sentence", "document", "label", "entity"))

_MARKUP = [
    (re.compile(pattern, re.DOTALL | re.IGNORECASE), what)
    for pattern, what in (
        (rb"(<\?xml[^>]*>\s*)?(<!doctype[^>]*>\s*)?<collection\b", "BioC XML"),
        (rb"(<!--.*?-->\s*)?<" + _HTML + rb"(\s[^>]*|/)?>", "HTML"),
        (rb"<\?xml\s|<!doctype\s", "XML"),
        (rb"<([a-z_][\w:.-]*)(\s[^>]*)?>\s*<[a-z_][^>]*>.*</", "XML"),
        (rb'\[\s*(\{\s*("|\})|\[\s*["\d]|"[^"\n]*"\s*,)', "a JSON array, which is not JSON Lines"),
        (rb"((\[\s*\]|\{\s*\})\s*)+\Z", "JSON without a document"),
        (rb'\{\s*"[^"\n]*"\s*:', "JSON that is not JSON Lines (an object a line)"),
        (rb"T\d+\t\S+ \d+ \d+(;\d+ \d+)*[\t\r\n]", "annotations of brat without their text"),
        (rb"PMID- *\d+\s", "a MEDLINE export"),
        (rb"TY  - \w+\s", "an RIS export"),
        (rb"%!PS", "PostScript"),
        (rb"(?-i:(?=.*[ \t]O\s)(-DOCSTART-|" + _TAGGED + rb"\r?\n" + _TAGGED + rb"\s))", "CoNLL columns"),
    )
]


def content(head: Head) -> str:
    """The format of a stream: text, jsonl or pubtator. Raises Unreadable for what is none of them."""
    lines = head.lines()
    first = next((line for line in lines if not _EMPTY_OBJECT.fullmatch(line)), b"")
    if _is_json(first) and (_is_record(first) or _is_record(next(lines, b""))):  # one bad line is named later
        return "jsonl"
    if (found := _TEXT_LINE.match(first)) and _is_block(found[1], next(lines, None)):
        return "pubtator"
    start = head.filled()
    if told := binary(start):
        raise Unreadable(told)
    start = start.removeprefix(codecs.BOM_UTF8).lstrip()
    what = next((what for pattern, what in _MARKUP if pattern.match(start)), None) or _table(start)
    if not what and start.startswith(b"<") and _is_xml(head):
        what = "XML"
    if what:
        advice = "convert it to text, JSON Lines or PubTator, or give --from text to read it as it stands"
        raise Unreadable(f"holds {what}; {advice}")
    return "text"


def _is_json(line: bytes) -> bool:
    """Whether a line is JSON with brackets around it, or begins as an object does: a record, a broken one perhaps."""
    if _JSON_KEY.match(line):
        return True
    try:
        return line.lstrip()[:1] in (b"[", b"{") and json.loads(line) is not None
    except (ValueError, RecursionError):
        return False


def _is_record(line: bytes) -> bool:
    """Whether a line is a JSON object, or the beginning of one that is too long to be looked at whole."""
    if not _JSON_KEY.match(line):
        return False
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return len(line) >= _LINE_BYTES - len(codecs.BOM_UTF8)


def _is_block(identifier: bytes, after: bytes | None) -> bool:
    """Whether `after`, the line behind one of a document's, belongs to it, or starts another, or is not there."""
    if after is None:
        return identifier.isdigit()
    own = re.escape(identifier) + rb"(\|[ta]\||\t(\d+\t\d+|[a-zA-Z]\S*)\t)"
    if re.match(own, after):
        return True
    return not re.search(rb"\s", identifier) and bool(re.match(rb"[^\s|]+\|[ta]\|", after))


class _DeclaredError(Exception):
    """A document type was declared: it is markup, and what it declares need not be expanded."""


def _is_xml(head: Head) -> bool:
    """Whether an XML parser takes all of a stream, or its first MiB with an element that has ended in it."""
    ended = False

    def end(name: str) -> None:
        nonlocal ended
        ended = True

    def declare(name: str | None, *_: object) -> None:
        if name:
            raise _DeclaredError

    def skip(context: str, *_: object) -> int:
        parser.ExternalEntityParserCreate(context).Parse(b"", True)
        return 1

    parser = expat.ParserCreate()
    parser.EndElementHandler, parser.StartDoctypeDeclHandler = end, declare
    parser.UseForeignDTD()  # an empty one: then entities that only HTML knows, as &nbsp;, are no error
    parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_UNLESS_STANDALONE)
    parser.ExternalEntityRefHandler = skip
    try:
        for block in head.blocks():
            parser.Parse(block, False)
        if len(head.data) < _LINE_BYTES:
            parser.Parse(b"", True)
    except _DeclaredError:
        return True
    except expat.ExpatError:
        return False
    return ended


def _table(start: bytes) -> str | None:
    """What a table with named columns is; its first two rows tell. Commas of prose have a blank behind them."""
    text = re.sub("\r\n?", "\n", start.decode("utf-8", "replace"))
    for separator, what in ((",", "a CSV table"), ("\t", "a TSV table"), (";", "a CSV table")):
        rows = list(islice(csv.reader(io.StringIO(text), delimiter=separator), 2))
        if len(rows) < 2 or not 1 < len(rows[0]) == len(rows[1]):
            continue
        if all(name == name.strip() for name in rows[0]) and _COLUMNS & {name.lower() for name in rows[0]}:
            return what
    return None
