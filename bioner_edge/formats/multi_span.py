"""multi_span: half-open offsets, in code points of the text, as a JSON object with every type in the question's order.

    {"Chemical": [[0, 8], [49, 58], [84, 93]], "Disease": [[60, 72]]}

Offset JSON as in LLMs4NER (arXiv:2601.17898); the template is ours. Models cannot count characters: the constraint
makes offsets valid, not correct.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from bioner_edge.decoding.automaton import ByteAutomaton
from bioner_edge.document import Document, Entity
from bioner_edge.formats import grammar, spans
from bioner_edge.formats.contract import Message, Parsed
from bioner_edge.formats.json_objects import begins, object_grammar, objects, under_keys
from bioner_edge.formats.label_names import plain
from bioner_edge.formats.messages import ask
from bioner_edge.formats.reading import Cursor, Item
from bioner_edge.formats.spans import CANNOT

__all__ = ["CANNOT", "constraint", "gbnf", "inexpressible", "instruction", "parse", "questions", "render", "salvage"]


def questions(labels: Sequence[str]) -> list[list[str]]:
    """One answer holds all labels."""
    plain(labels)
    return [list(labels)]


def instruction(labels: Sequence[str], guidelines: Mapping[str, str]) -> list[Message]:
    order = "List the character offsets [start, end) of the mentions in the text as a JSON object of arrays"
    return ask(f"{order}, a key for each type: {', '.join(plain(labels))}.", labels, guidelines)


def render(document: Document, labels: Sequence[str]) -> str:
    found = {label: spans.offsets(document, label) for label in plain(labels)}
    return json.dumps(found, ensure_ascii=False)


def inexpressible(document: Document, labels: Sequence[str]) -> list[tuple[Entity, str]]:
    plain(labels)
    return spans.inexpressible(document, labels)


def parse(answer: str, document: Document, labels: Sequence[str]) -> Parsed:
    plain(labels)
    return spans.read_answer(answer, document, lambda cursor: _read(cursor, labels), None)


def salvage(answer: str, document: Document, labels: Sequence[str]) -> Parsed:
    """After the first problem, accept every pair of numbers in brackets, as the type of the key before it."""
    plain(labels)
    return spans.read_answer(
        answer, document, lambda cursor: _read(cursor, labels), lambda rest: _lenient(rest, labels)
    )


def _read(cursor: Cursor, labels: Sequence[str]) -> Iterator[Item]:
    return objects(cursor, labels, lambda label: (label, spans.item(cursor)))


def _lenient(answer: str, labels: Sequence[str]) -> Iterator[Item]:
    for label, start, end in under_keys(answer, labels):
        for item in spans.lenient_pairs(answer[start:end], label):
            yield item._replace(place=item.place.shifted(start))


def gbnf(labels: Sequence[str]) -> str:
    return object_grammar(plain(labels), *spans.LIST, *grammar.NUMBER)


def constraint(document: Document, labels: Sequence[str]) -> ByteAutomaton:
    return spans.constraint(document, begins(plain(labels)), "]}")
