"""Recognize the content of a stream by its beginning, if its name is missing or only says that it is text.

File formats recognize themselves (`FileFormat.recognize`). What clearly is something else is refused and named: binary
data by its first bytes, whatever its name and `--from`; markup (XML, HTML, other JSON, tables, standoff annotations)
unless the user said that it is text. Everything else is text, including what merely resembles one of these: `{Name} was
seen`, `< 5 mg`, `<NAME> was seen`, `[1] Smith`, `see a|t|b`. A stream that begins with a tag is XML if an XML parser
accepts all of it: tagged prose has words outside its first element.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from itertools import islice
from xml.parsers import expat

from bioner_edge.errors import alternatives
from bioner_edge.io.binary import binary_error
from bioner_edge.io.contract import FileFormat
from bioner_edge.io.head import HEAD_BYTES, LINE_BYTES, Head
from bioner_edge.io.registry import PLAIN_TEXT, readable

__all__ = ["Unreadable", "recognize", "refuse_binary"]


class Unreadable(Exception):
    """Says what a stream holds and what to do, without the stream's name."""


def refuse_binary(head: Head) -> None:
    """Raise Unreadable for binary data, whatever its name. No more than the first line of a pipe is read."""
    if head.waits:
        head.begin()
    if reason := binary_error(head.data[:HEAD_BYTES] if head.waits else head.first_bytes(), characters=True):
        raise Unreadable(reason)


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
        (rb'\{\s*"[^"\n]*"\s*:', "JSON that is not JSON Lines (an object per line)"),
        (rb"PMID- *\d+\s", "a MEDLINE export"),
        (rb"TY  - \w+\s", "an RIS export"),
        (rb"%!PS", "PostScript"),
        (rb"(?-i:(?=.*[ \t]O\s)(-DOCSTART-|" + _TAGGED + rb"\r?\n" + _TAGGED + rb"\s))", "CoNLL columns"),
    )
]


def recognize(head: Head) -> FileFormat:
    """The file format of a stream, plain text by default. Raises Unreadable for what clearly is not a document."""
    if found := next((known for known in readable() if known.recognize and known.recognize(head)), None):
        return found
    start = head.first_bytes()
    if reason := binary_error(start):
        raise Unreadable(reason)
    start = start.removeprefix(codecs.BOM_UTF8).lstrip()
    what = _annotations(start) or next((what for pattern, what in _MARKUP if pattern.match(start)), None)
    what = what or _table(start)
    if not what and start.startswith(b"<") and _is_xml(head):
        what = "XML"
    if what:
        titles = [known.title for known in readable() if known.recognize or known is PLAIN_TEXT]
        advice = f"convert it to {alternatives(titles)}, or give --from {PLAIN_TEXT.name} to read it as it stands"
        raise Unreadable(f"holds {what}; {advice}")
    return PLAIN_TEXT


def _annotations(start: bytes) -> str | None:
    """What annotations without their text are, or None."""
    for known in readable():
        if known.beside and known.beside.row and known.beside.row.match(start):
            return f"annotations of {known.title} without their text"
    return None


class _DeclaredError(Exception):
    """A document type was declared: the stream is markup, and its entities need not be expanded."""


def _is_xml(head: Head) -> bool:
    """Whether an XML parser accepts a whole stream, or its first MiB with at least one complete element."""
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
    parser.UseForeignDTD()  # an empty one: then HTML entities such as &nbsp; are not errors
    parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_UNLESS_STANDALONE)
    parser.ExternalEntityRefHandler = skip
    try:
        for block in head.blocks():
            parser.Parse(block, False)
        if len(head.data) < LINE_BYTES:
            parser.Parse(b"", True)
    except _DeclaredError:
        return True
    except expat.ExpatError:
        return False
    return ended


def _table(start: bytes) -> str | None:
    """What a table with named columns is, or None, by its first two rows. Commas in prose are followed by a space."""
    text = re.sub("\r\n?", "\n", start.decode("utf-8", "replace"))
    for separator, what in ((",", "a CSV table"), ("\t", "a TSV table"), (";", "a CSV table")):
        rows = list(islice(csv.reader(io.StringIO(text), delimiter=separator), 2))
        if len(rows) < 2 or not 1 < len(rows[0]) == len(rows[1]):
            continue
        if all(name == name.strip() for name in rows[0]) and _COLUMNS & {name.lower() for name in rows[0]}:
            return what
    return None
