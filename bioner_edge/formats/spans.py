"""Code shared by span formats: mentions as half-open offsets, ordered by start and end, without duplicates."""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence

from bioner_edge.decoding.lists import Offsets
from bioner_edge.document import Document, Entity, Span
from bioner_edge.formats.contract import Parsed
from bioner_edge.formats.reading import Cursor, Item, collect
from bioner_edge.text.tokens import boundaries

__all__ = ["CANNOT", "LIST", "constraint", "inexpressible", "item", "lenient_pairs", "offsets", "read_answer"]

CANNOT = "discontinuous mentions; mentions inside a token"

LIST = ['list ::= "[" (span (", " span)*)? "]"', 'span ::= "[" number ", " number "]"']
"""The grammar of one list; needs grammar.NUMBER."""

_PAIR = re.compile(r"[\[(]\s*([0-9]{1,18})\s*,\s*([0-9]{1,18})\s*[\])]")


def offsets(document: Document, label: str) -> list[list[int]]:
    """The mentions of one type that a span format can express."""
    starts, ends = boundaries(document.text)
    mine = {e.fragments[0] for e in document.entities if e.label == label and len(e.fragments) == 1}
    return [[s.start, s.end] for s in sorted(mine) if s.start in starts and s.end in ends]


def inexpressible(document: Document, labels: Sequence[str]) -> list[tuple[Entity, str]]:
    starts, ends = boundaries(document.text)
    lost = []
    for entity in {e.key: e for e in document.entities if e.label in labels}.values():
        if len(entity.fragments) > 1:
            lost.append((entity, "discontinuous"))
        elif entity.start not in starts or entity.end not in ends:
            lost.append((entity, "inside a token"))
    return lost


def item(cursor: Cursor) -> tuple[int, int]:
    """One pair of offsets."""
    cursor.expect("[")
    start = cursor.number()
    cursor.expect(", ")
    end = cursor.number()
    cursor.expect("]")
    return start, end


def read_answer(
    answer: str,
    document: Document,
    read: Callable[[Cursor], Iterator[Item]],
    lenient: Callable[[str], Iterable[Item]] | None,
) -> Parsed:
    """Read the mentions of an answer; the values of its items are pairs of offsets."""

    def grounding_problem(found: Item) -> str | None:
        start, end = found.value
        if start < end <= len(document.text):
            return None
        return f"[{start}, {end}] is not a span of the text of {len(document.text)} characters"

    items, problems = collect(answer, read, grounding_problem, lenient)
    written: dict[Entity, Span] = {}
    for label, (start, end), place in items:
        written.setdefault(Entity.at(label, start, end), place)
    return Parsed(tuple(written), tuple(written.values()), tuple(problems))


def lenient_pairs(answer: str, label: str) -> Iterator[Item]:
    """Every pair of numbers in brackets as a mention of one type."""
    for match in _PAIR.finditer(answer):
        yield Item(label, (int(match[1]), int(match[2])), Span(match.start(), match.end()))


def constraint(document: Document, begins: Sequence[str], end: str) -> Offsets:
    """The grounded constraint: offsets at token boundaries, pairs in ascending order."""
    starts, ends = (array("i", sorted(edges)) for edges in boundaries(document.text))
    return Offsets(starts, ends, [b.encode() for b in begins], end.encode())
