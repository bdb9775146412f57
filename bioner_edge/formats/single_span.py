"""single_span: the mentions of one type as a JSON list of half-open offsets, in code points of the text.

    [[0, 8], [49, 58], [84, 93]]

Offset JSON as in LLMs4NER (arXiv:2601.17898); the template is ours. Models cannot count characters: the constraint
makes offsets valid, not correct.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence

from bioner_edge.decoding.automaton import ByteAutomaton
from bioner_edge.document import Document, Entity
from bioner_edge.formats import grammar, spans
from bioner_edge.formats.contract import Message, Parsed
from bioner_edge.formats.label_names import only, plain
from bioner_edge.formats.messages import ask_one
from bioner_edge.formats.reading import Cursor, Item
from bioner_edge.formats.spans import CANNOT

__all__ = ["CANNOT", "constraint", "gbnf", "inexpressible", "instruction", "parse", "questions", "render", "salvage"]


def questions(labels: Sequence[str]) -> list[list[str]]:
    """An answer for each label."""
    return [[label] for label in plain(labels)]


def instruction(labels: Sequence[str], guidelines: Mapping[str, str]) -> list[Message]:
    label = only(labels)
    order = "List the character offsets [start, end) of the mentions of the type in the text as a JSON array."
    return ask_one(order, f"Type: {label}", label, guidelines)


def render(document: Document, labels: Sequence[str]) -> str:
    return json.dumps(spans.offsets(document, only(labels)))


def inexpressible(document: Document, labels: Sequence[str]) -> list[tuple[Entity, str]]:
    return spans.inexpressible(document, [only(labels)])


def parse(answer: str, document: Document, labels: Sequence[str]) -> Parsed:
    return spans.read_answer(answer, document, _reader(only(labels)), None)


def salvage(answer: str, document: Document, labels: Sequence[str]) -> Parsed:
    """After the first problem, accept every pair of numbers in brackets."""
    label = only(labels)
    return spans.read_answer(answer, document, _reader(label), lambda rest: spans.lenient_pairs(rest, label))


def _reader(label: str) -> Callable[[Cursor], Iterator[Item]]:
    return lambda cursor: cursor.listing(lambda: (label, spans.item(cursor)))


def gbnf(labels: Sequence[str]) -> str:
    only(labels)
    return grammar.grammar("root ::= list", *spans.LIST, *grammar.NUMBER)


def constraint(document: Document, labels: Sequence[str]) -> ByteAutomaton:
    only(labels)
    return spans.constraint(document, ["["], "]")
