"""The baseline `text-filter`: unconstrained decoding, then each extracted mention is searched in the text.

A mention is marked wherever it occurs between two boundaries. One that does not occur is dropped, and only that counts
as a problem. Written offsets are used as they are, if they are inside the text; of a brat line only the mention is
used.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from bioner_edge.constraints import Constraint, free_mask
from bioner_edge.document import Document, Span
from bioner_edge.formats import multi_bio, multi_brat, multi_tag, single_tag, terms
from bioner_edge.formats.contract import Format, Parsed
from bioner_edge.formats.escapes import unescape
from bioner_edge.formats.label_names import types
from bioner_edge.formats.reading import Cursor, Item

__all__ = ["MARKS", "TEXT_FILTER"]


def _filter(form: Format, answer: str, document: Document, labels: Sequence[str]) -> Parsed:
    if form in _WRITTEN:
        items = [*_WRITTEN[form](answer, document, labels)]
        read = terms.read_answer(answer, document, lambda cursor: _all(cursor, items), lambda rest: ())
    else:  # its own parser finds terms everywhere, and uses offsets as they are
        read = form.salvage(answer, document, labels)
    return replace(read, problems=tuple(p for p in read.problems if p.kind == "ungrounded"))


def _all(cursor: Cursor, items: Iterable[Item]) -> Iterator[Item]:
    yield from items
    cursor.at = len(cursor.answer)


def _tagged(form: Format) -> Callable[[str, Document, Sequence[str]], Iterator[Item]]:
    """The mentions of a tagged copy, which serves as its own text: no mention is checked against the document."""

    def written(answer: str, document: Document, labels: Sequence[str]) -> Iterator[Item]:
        copy = Document("", MARKS[form].sub(lambda found: found["kept"] or "", answer))
        read = form.salvage(answer, copy, labels)
        for entity, place in zip(read.entities, read.places, strict=True):
            yield Item(entity.label, entity.mention(copy.text).strip(), place)

    return written


MARKS: dict[Format, re.Pattern[str]] = {
    single_tag: re.compile(r"\\(?P<kept>[@#\\])|@@|##"),
    multi_tag: re.compile(r"\\(?P<kept>[\\<])|<(?=[A-Za-z/\x80-\U0010ffff])/?[^<>\\\x00-\x1f\x7f]*>"),
}
"""Markup of a tagged copy; `kept` is the character of an escape."""


def _rows(answer: str, document: Document, labels: Sequence[str]) -> Iterator[Item]:
    """The mentions of tokens with BIO tags; in the text, whitespace may or may not separate their tokens."""
    names = types(labels)
    open_item: Item | None = None
    for line in re.finditer(r"[^\n]+", answer):
        token, _, tag = re.sub(r"\s+", "\t", line[0].strip()).rpartition("\t")
        label = names.get(tag[2:]) if token and tag[:2] in ("B-", "I-") else None
        if open_item and not (tag[:2] == "I-" and label == open_item.label):
            yield _locate(open_item, document.text)
            open_item = None
        if label:
            before = open_item.value if open_item else []
            start = open_item.place.start if open_item else line.start()
            open_item = Item(label, [*before, *unescape(token).split()], Span(start, line.end()))
    if open_item:
        yield _locate(open_item, document.text)


def _locate(item: Item, text: str) -> Item:
    """A mention as the text spells it where it contains these tokens, else joined by spaces."""
    spelled = re.search(r"\s*".join(map(re.escape, item.value)), text)
    return item._replace(value=spelled[0] if spelled else " ".join(item.value))


def _lines(answer: str, document: Document, labels: Sequence[str]) -> Iterator[Item]:
    """The mentions of brat lines, numbered or not."""
    names = types(labels)
    for line in re.finditer(r"^(?:T\d+\s+)?(?P<type>\S+)[0-9; ]*\t(?P<mention>.+)$", answer, re.MULTILINE):
        if line["type"] in names:
            yield Item(names[line["type"]], unescape(line["mention"]).strip(), Span(*line.span()))


# Readers of (label, surface) for formats whose own parser requires more than that.
_WRITTEN: dict[Format, Callable[[str, Document, Sequence[str]], Iterator[Item]]] = {
    single_tag: _tagged(single_tag),
    multi_tag: _tagged(multi_tag),
    multi_bio: _rows,
    multi_brat: _lines,
}

TEXT_FILTER = Constraint("text-filter", free_mask, _filter)
