"""Code shared by term formats: each distinct (type, surface) is written once, and reading marks all its occurrences.

An occurrence starts and ends at token boundaries. Terms are ordered by their first occurrence in the text (start, end),
then by the position of the type among the labels, so the last term written determines which may still follow. Reading
marks the longest surface first; mentions of one type do not overlap.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from bioner_edge.decoding.lists import Head, Terms
from bioner_edge.document import Document, Entity, Span
from bioner_edge.formats.contract import Parsed
from bioner_edge.formats.reading import Cursor, Item, collect, lenient_string
from bioner_edge.text.tokens import boundaries

__all__ = ["CANNOT", "Term", "constraint", "inexpressible", "lenient_strings", "quote", "read_answer", "unique"]

CANNOT = "discontinuous mentions; mentions inside a token; one occurrence of a surface without the others"

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\'', re.DOTALL)
_ESCAPED = re.compile(r'["\\\x00-\x1f]')


class Term(NamedTuple):
    """A type and a surface."""

    label: str
    surface: str


def quote(text: str) -> str:
    """A string as formats write it, in JSON."""
    return json.dumps(text, ensure_ascii=False)


class _Occurrences:
    """Finds where surfaces occur in a text between token boundaries."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.starts, self.ends = boundaries(text)

    def of(self, surface: str) -> Iterator[int]:
        """The starts of all occurrences, in order; they may overlap. An empty surface has none."""
        start = self.text.find(surface) if surface else -1
        while start >= 0:
            if start in self.starts and start + len(surface) in self.ends:
                yield start
            start = self.text.find(surface, start + 1)

    def mark(self, terms: Iterable[Term]) -> dict[Term, list[Entity]]:
        """The mentions that each term marks: longest term first, no two of one type overlapping."""
        taken: dict[str, bytearray] = {}
        found: dict[Term, list[Entity]] = {}
        for term in sorted(terms, key=lambda t: (-len(t.surface), t.surface)):
            mask = taken.setdefault(term.label, bytearray(len(self.text)))
            found[term] = []
            for start in self.of(term.surface):
                end = start + len(term.surface)
                if mask.find(1, start, end) < 0:
                    mask[start:end] = b"\1" * (end - start)
                    found[term].append(Entity.at(term.label, start, end))
        return found


# Writing


def unique(document: Document, labels: Sequence[str]) -> list[Term]:
    """The terms of the document's entities, in order, without those that would mark nothing."""
    return _unique(document, labels, _Occurrences(document.text))


def _unique(document: Document, labels: Sequence[str], places: _Occurrences) -> list[Term]:
    rank = {label: n for n, label in enumerate(labels)}
    terms = {
        Term(e.label, e.mention(document.text))
        for e in document.entities
        if e.label in rank and len(e.fragments) == 1 and e.start in places.starts and e.end in places.ends
    }
    marking = [term for term, entities in places.mark(terms).items() if entities]
    first = {term: next(places.of(term.surface)) for term in marking}
    return sorted(marking, key=lambda t: (first[t], len(t.surface), rank[t.label]))


def inexpressible(document: Document, labels: Sequence[str]) -> list[tuple[Entity, str]]:
    """The entities that no list of terms returns: discontinuous, inside a token, or overlapping one of their type."""
    places = _Occurrences(document.text)
    marked = places.mark(_unique(document, labels, places))
    back = {entity.key for entities in marked.values() for entity in entities}
    lost = []
    for entity in {e.key: e for e in document.entities if e.label in labels}.values():
        if entity.key not in back:
            reason = "overlaps another of its type"
            if len(entity.fragments) > 1:
                reason = "discontinuous"
            elif entity.start not in places.starts or entity.end not in places.ends:
                reason = "inside a token"
            lost.append((entity, reason))
    return lost


# Reading


def read_answer(
    answer: str,
    document: Document,
    read: Callable[[Cursor], Iterator[Item]],
    lenient: Callable[[str], Iterable[Item]] | None,
) -> Parsed:
    """Read the mentions that the terms of an answer mark; the values of its items are surfaces."""
    places = _Occurrences(document.text)

    def grounding_problem(item: Item) -> str | None:
        if next(places.of(item.value), None) is not None:
            return None
        return f"{quote(item.value)} does not occur in the text between token boundaries"

    items, problems = collect(answer, read, grounding_problem, lenient)
    written: dict[Term, Span] = {}
    for item in items:
        written.setdefault(Term(item.label, item.value), item.place)
    found = [(entity, written[term]) for term, entities in places.mark(written).items() for entity in entities]
    found.sort(key=lambda pair: (pair[1].start, pair[0].start))
    return Parsed(tuple(e for e, _ in found), tuple(place for _, place in found), tuple(problems))


def lenient_strings(answer: str, label: str) -> Iterator[Item]:
    """Every string of an answer as a term of one type."""
    for match in _STRING.finditer(answer):
        if surface := lenient_string(match.group()):
            yield Item(label, surface, Span(match.start(), match.end()))


# The constraint


def constraint(document: Document, begins: Sequence[str], heads: Sequence[Head], end: str) -> Terms:
    """The grounded constraint of a term format; see decoding/lists.py."""
    characters = list(document.text)
    for match in _ESCAPED.finditer(document.text):
        characters[match.start()] = quote(match.group())[1:-1]
    return Terms(characters, *boundaries(document.text), [b.encode() for b in begins], heads, end.encode())
