"""What a stream holds, told by how it begins, where its name does not tell or promises no more than text.

Formats that can be known so say themselves what is theirs (`FileFormat.recognize`). What clearly is something else is
refused and named: binary data by its first bytes under any name and any `--from`; markup (XML, HTML, other JSON,
tables, standoff annotations) where nobody said that it is text. All else is text, and so is what merely resembles one
of these: `{Name} was seen`, `< 5 mg`, `<NAME> was seen`, `[1] Smith`, `see a|t|b`. What begins with a tag is XML where
an XML parser takes all of it: tagged prose has words outside its first element.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from itertools import islice
from xml.parsers import expat

from bioner_edge.errors import alternatives
from bioner_edge.io.binary import binary
from bioner_edge.io.contract import FileFormat
from bioner_edge.io.head import HEAD_BYTES, LINE_BYTES, Head
from bioner_edge.io.registry import PLAIN_TEXT, readable

__all__ = ["Unreadable", "recognize", "refuse_binary"]


class Unreadable(Exception):
    """What a stream holds and what to do; without the stream's name."""


def refuse_binary(head: Head) -> None:
    """Raise Unreadable for what is binary whoever calls it what. Of a pipe no more is read than its first line."""
    if head.waits:
        head.begin()
    if told := binary(head.data[:HEAD_BYTES] if head.waits else head.filled(), characters=True):
        raise Unreadable(told)


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
        (rb"PMID- *\d+\s", "a MEDLINE export"),
        (rb"TY  - \w+\s", "an RIS export"),
        (rb"%!PS", "PostScript"),
        (rb"(?-i:(?=.*[ \t]O\s)(-DOCSTART-|" + _TAGGED + rb"\r?\n" + _TAGGED + rb"\s))", "CoNLL columns"),
    )
]


def recognize(head: Head) -> FileFormat:
    """The format of a stream, plain text where it is of no other. Raises Unreadable for what clearly is none."""
    if found := next((known for known in readable() if known.recognize and known.recognize(head)), None):
        return found
    start = head.filled()
    if told := binary(start):
        raise Unreadable(told)
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
    """What annotations without the text that they are about are."""
    for known in readable():
        if known.beside and known.beside.row and known.beside.row.match(start):
            return f"annotations of {known.title} without their text"
    return None


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
        if len(head.data) < LINE_BYTES:
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
