"""multi_triple: a JSON list of triples of subject, predicate and object.

    [["Naloxone", "is a", "Chemical"], ["clonidine", "is a", "Chemical"], ["Hypertension", "is a", "Disease"]]

The template is ours.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from bioner_edge.decoding.automaton import ByteAutomaton
from bioner_edge.decoding.lists import Head
from bioner_edge.document import Document, Entity, Span
from bioner_edge.formats import grammar, terms
from bioner_edge.formats.contract import Message, Parsed
from bioner_edge.formats.label_names import plain
from bioner_edge.formats.messages import ask
from bioner_edge.formats.reading import Cursor, Item, lenient_string
from bioner_edge.formats.terms import CANNOT, quote

__all__ = ["CANNOT", "constraint", "gbnf", "inexpressible", "instruction", "parse", "questions", "render", "salvage"]

_STRING = r'"(?:[^"\\]|\\.)*"'
_TRIPLE = re.compile(rf"({_STRING})\s*,\s*{_STRING}\s*,\s*({_STRING})", re.DOTALL)


def questions(labels: Sequence[str]) -> list[list[str]]:
    """One answer holds all labels."""
    plain(labels)
    return [list(labels)]


def instruction(labels: Sequence[str], guidelines: Mapping[str, str]) -> list[Message]:
    order = f'List the mentions in the text as JSON triples [mention, "is a", type]. Types: {", ".join(plain(labels))}.'
    return ask(order, labels, guidelines)


def render(document: Document, labels: Sequence[str]) -> str:
    plain(labels)
    found = terms.unique(document, labels)
    return f"[{', '.join(f'[{quote(term.surface)}{_tail(term.label)}' for term in found)}]"


def _tail(label: str) -> str:
    return f', "is a", {quote(label)}]'


def inexpressible(document: Document, labels: Sequence[str]) -> list[tuple[Entity, str]]:
    plain(labels)
    return terms.inexpressible(document, labels)


def parse(answer: str, document: Document, labels: Sequence[str]) -> Parsed:
    return terms.read_answer(answer, document, _reader(plain(labels)), None)


def salvage(answer: str, document: Document, labels: Sequence[str]) -> Parsed:
    """After the first problem, accept any three strings in a row if the last is a declared type."""
    names = plain(labels)
    return terms.read_answer(answer, document, _reader(names), lambda rest: _lenient(rest, names))


def _reader(names: Mapping[str, str]) -> Callable[[Cursor], Iterator[Item]]:
    tails = {f"{quote(label)}]": label for label in names}

    def item(cursor: Cursor) -> tuple[str, str]:
        cursor.expect("[")
        surface = cursor.string()
        cursor.expect(', "is a", ')
        return cursor.one_of(tails), surface

    return lambda cursor: cursor.listing(lambda: item(cursor))


def _lenient(answer: str, names: Mapping[str, str]) -> Iterable[Item]:
    for match in _TRIPLE.finditer(answer):
        surface, label = lenient_string(match[1]), lenient_string(match[2])
        if surface and label and label in names:
            yield Item(label, surface, Span(match.start(), match.end()))


def gbnf(labels: Sequence[str]) -> str:
    return grammar.grammar(
        'root ::= "[" (triple (", " triple)*)? "]"',
        'triple ::= "[" string ", \\"is a\\", " type "]"',
        f"type ::= {grammar.alternatives(map(quote, plain(labels)))}",
        *grammar.STRING,
    )


def constraint(document: Document, labels: Sequence[str]) -> ByteAutomaton:
    head = Head(b'["', tuple((rank, _tail(label).encode()) for rank, label in enumerate(plain(labels))))
    return terms.constraint(document, ["["], [head], "]")
