"""What a stream holds, told by how it begins, where its name does not tell or promises no more than text.

JSON Lines: the first line is a JSON object. PubTator: `ID|t|…`, then a text or an annotation of that ID.
Whatever clearly is something else is refused and named: binary data by its first bytes under any name and any `--from`;
markup (XML, HTML, other JSON, tables, standoff annotations) where nobody said that it is text. All else is text, and so
is what merely resembles one of these: `{Name} was seen`, `< 5 mg`, `<NAME> was seen`, `[1] Smith`, `see a|t|b`.
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

__all__ = ["Head", "Unreadable", "binary", "content", "refuse_binary"]

_HEAD_BYTES = 8192
_LINE_BYTES = 1 << 20  # of a longer first line no more is looked at
_MOST_CONTROLS = 0.1  # of a text in UTF-8 with NUL in it; binary data have more


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


# --- Binary data

_TEXT = "save its text first"
_UNPACK = "unpack it first"
_EXPORT = "export its texts first"
_NOTHING = "there are no characters in it to read"
_ICONV = "convert it: iconv -f {0} -t UTF-8"
_ZIP = rb"PK\x03\x04.*?"

_MAGIC = [
    (re.compile(pattern, re.DOTALL), what, advice)
    for pattern, what, advice in (
        (rb"\s*%PDF-\d", "a PDF", "save its text first, as pdftotext does"),
        (_ZIP + rb"word/", "a Word document (DOCX)", _TEXT),
        (_ZIP + rb"xl/", "an Excel workbook (XLSX)", _EXPORT),
        (_ZIP + rb"ppt/", "a PowerPoint presentation (PPTX)", _TEXT),
        (_ZIP + rb"\[Content_Types\]\.xml", "an Office document (DOCX, XLSX or PPTX)", _TEXT),
        (_ZIP + rb"application/vnd\.oasis\.opendocument", "an OpenDocument file", _TEXT),
        (_ZIP + rb"application/epub", "an EPUB", _TEXT),
        (rb"PK(\x03\x04|\x05\x06|\x07\x08)", "a ZIP archive", _UNPACK),
        (rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office document (DOC, XLS, PPT or MSG)", _TEXT),
        (rb"\{\\rtf", "RTF", _TEXT),
        (rb"\x1f\x8b", "compressed with gzip", _UNPACK),
        (rb"BZh[1-9]1AY&SY", "compressed with bzip2", _UNPACK),
        (rb"\xfd7zXZ\x00", "compressed with xz", _UNPACK),
        (rb"\x28\xb5\x2f\xfd", "compressed with zstd", _UNPACK),
        (rb"\x04\x22\x4d\x18", "compressed with lz4", _UNPACK),
        (rb"\x1f\x9d", "compressed with compress", _UNPACK),
        (rb"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
        (rb"Rar!\x1a\x07", "a RAR archive", _UNPACK),
        (rb".{257}ustar[\x00 ]", "a tar archive", _UNPACK),
        (rb"SQLite format 3\x00", "an SQLite database", _EXPORT),
        (rb"PAR1", "a Parquet table", _EXPORT),
        (rb"ARROW1\x00", "an Arrow table", _EXPORT),
        (rb"Obj\x01", "an Avro table", _EXPORT),
        (rb"\x89HDF\r\n", "an HDF5 file", _EXPORT),
        (rb"\x80[\x02-\x05][\x00-\xff]", "a Python pickle", _EXPORT),
        (rb"\x93NUMPY", "a NumPy array", _NOTHING),
        (rb"\x89PNG\r\n", "an image (PNG)", _NOTHING),
        (rb"\xff\xd8\xff", "an image (JPEG)", _NOTHING),
        (rb"GIF8[79]a", "an image (GIF)", _NOTHING),
        (rb"II\*\x00|MM\x00\*", "an image (TIFF)", _NOTHING),
        (rb"BM.{4}\x00\x00\x00\x00", "an image (BMP)", _NOTHING),
        (rb"RIFF.{4}WEBP", "an image (WebP)", _NOTHING),
        (rb".{4}ftyp(heic|heix|mif1|avif)", "an image (HEIC or AVIF)", _NOTHING),
        (rb".{128}DICM", "an image (DICOM)", _NOTHING),
        (rb"RIFF.{4}(WAVE|AVI )|.{4}ftyp|ID3[\x02-\x04]|OggS|fLaC", "sound or video", _NOTHING),
        (rb"GGUF[\x01-\x09]\x00", "a model (GGUF); give it with --model", _NOTHING),
        (rb"\x7fELF|MZ.{62}|\xcf\xfa\xed\xfe|\xca\xfe\xba\xbe", "a program", _NOTHING),
        (rb"\x00\x05\x16[\x00\x07]", "what macOS keeps beside a file (AppleDouble)", "delete it"),
        (rb"\x00\x00\x00\x01Bud1", "what macOS keeps of a folder (.DS_Store)", "delete it"),
        (rb"\xff\xfe\x00\x00|\x00\x00\xfe\xff", "UTF-32", _ICONV.format("UTF-32")),
        (rb"\xff\xfe|\xfe\xff", "UTF-16", _ICONV.format("UTF-16")),
        (rb"([^\x00]\x00){8}", "UTF-16", _ICONV.format("UTF-16LE")),
        (rb"(\x00[^\x00]){8}", "UTF-16", _ICONV.format("UTF-16BE")),
    )
]
_NUL_WITHIN = {"a program", "sound or video", "a Parquet table", "an image (GIF)"}
"""Whose first bytes may be words, which NUL behind them sets apart."""


def binary(head: bytes, *, characters: bool = False) -> str | None:
    """What binary data are and what to do, None for text: 'is a PDF; save its text first'.

    Where somebody says that they are `characters`, those of UTF-8 are, whichever they are.
    """
    for pattern, what, advice in _MAGIC:
        if pattern.match(head) and (what not in _NUL_WITHIN or b"\x00" in head):
            return f"is {what}; {advice}"
    if b"\x00" in head and not _is_text(head, 1.0 if characters else _MOST_CONTROLS):
        return f"is binary data (NUL at byte offset {head.index(0)}); {_TEXT}"
    return None


def _is_text(head: bytes, most_controls: float) -> bool:
    """Whether bytes with NUL among them are a text all the same: NUL is a character, and no offset suffers from it."""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)  # the last character may be cut
    except UnicodeDecodeError:
        return False
    return sum(c < " " and c not in "\t\n\v\f\r\x1b" for c in text) <= most_controls * len(text)


def refuse_binary(head: Head) -> None:
    """Raise Unreadable for what is binary whoever calls it what. Of a pipe no more is read than its first line."""
    if head.waits:
        next(head.lines(), None)
    if told := binary(head.data[:_HEAD_BYTES] if head.waits else head.filled(), characters=True):
        raise Unreadable(told)


# --- Text and markup

_TEXT_LINE = re.compile(rb"([^|\t]+)\|[ta]\|")
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
        (rb"(\[\s*\]|\{\s*\})\s*\Z", "JSON without a document"),
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
    first = next(lines, b"")
    if _JSON_KEY.match(first) and (_is_record(first) or _is_record(next(lines, b""))):  # one bad line is named later
        return "jsonl"
    if (found := _TEXT_LINE.match(first)) and _is_block(found[1], next(lines, None)):
        return "pubtator"
    start = head.filled()
    if told := binary(start):
        raise Unreadable(told)
    start = start.removeprefix(codecs.BOM_UTF8).lstrip()
    what = next((what for pattern, what in _MARKUP if pattern.match(start)), None) or _table(start)
    if what:
        advice = "convert it to text, JSON Lines or PubTator, or give --from text to read it as it stands"
        raise Unreadable(f"holds {what}; {advice}")
    return "text"


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
    own = re.escape(identifier) + rb"(\|[ta]\||\t\d+\t\d+\t)"
    return bool(re.match(own, after) or re.match(rb"\d+\|[ta]\|", after))


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
