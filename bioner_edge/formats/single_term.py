"""single_term: the terms of one type as a JSON list, requested in a single turn.

    ["Naloxone", "clonidine"]

After UniversalNER (arXiv:2308.03279) and InstructUIE (arXiv:2304.08085); the template is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from bioner_edge.decoding.automaton import ByteAutomaton
from bioner_edge.decoding.lists import Head
from bioner_edge.document import Document, Entity
from bioner_edge.formats import grammar, terms
from bioner_edge.formats.contract import Message, Parsed
from bioner_edge.formats.label_names import only, plain
from bioner_edge.formats.messages import ask_one
from bioner_edge.formats.reading import Cursor, Item
from bioner_edge.formats.terms import CANNOT, quote

__all__ = ["CANNOT", "constraint", "gbnf", "inexpressible", "instruction", "parse", "questions", "render", "salvage"]


def questions(labels: Sequence[str]) -> list[list[str]]:
    """An answer for each label."""
    return [[label] for label in plain(labels)]


def instruction(labels: Sequence[str], guidelines: Mapping[str, str]) -> list[Message]:
    label = only(labels)
    return ask_one("List the mentions of the type in the text as a JSON array.", f"Type: {label}", label, guidelines)


def render(document: Document, labels: Sequence[str]) -> str:
    only(labels)
    return f"[{', '.join(quote(term.surface) for term in terms.unique(document, labels))}]"


def inexpressible(document: Document, labels: Sequence[str]) -> list[tuple[Entity, str]]:
    only(labels)
    return terms.inexpressible(document, labels)


def parse(answer: str, document: Document, labels: Sequence[str]) -> Parsed:
    return terms.read_answer(answer, document, _reader(only(labels)), None)


def salvage(answer: str, document: Document, labels: Sequence[str]) -> Parsed:
    """After the first problem, accept every string as a term."""
    label = only(labels)
    return terms.read_answer(answer, document, _reader(label), lambda rest: terms.lenient_strings(rest, label))


def _reader(label: str) -> Callable[[Cursor], Iterator[Item]]:
    return lambda cursor: cursor.listing(lambda: (label, cursor.string()))


def gbnf(labels: Sequence[str]) -> str:
    only(labels)
    return grammar.grammar('root ::= "[" (string (", " string)*)? "]"', *grammar.STRING)


def constraint(document: Document, labels: Sequence[str]) -> ByteAutomaton:
    only(labels)
    return terms.constraint(document, ["["], [Head(b'"')], "]")
