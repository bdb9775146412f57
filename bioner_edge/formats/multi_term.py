"""multi_term: the terms of all types as one JSON object, with every type present in the question's order.

    {"Chemical": ["Naloxone", "clonidine"], "Disease": ["Hypertension"]}

The grouped JSON of LLMs4NER (arXiv:2601.17898); the template is ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from bioner_edge.decoding.automaton import ByteAutomaton
from bioner_edge.decoding.lists import Head
from bioner_edge.document import Document, Entity
from bioner_edge.formats import grammar, terms
from bioner_edge.formats.contract import Message, Parsed
from bioner_edge.formats.json_objects import begins, object_grammar, objects, under_keys
from bioner_edge.formats.label_names import plain
from bioner_edge.formats.messages import ask
from bioner_edge.formats.reading import Cursor, Item
from bioner_edge.formats.terms import CANNOT, quote

__all__ = ["CANNOT", "constraint", "gbnf", "inexpressible", "instruction", "parse", "questions", "render", "salvage"]


def questions(labels: Sequence[str]) -> list[list[str]]:
    """One answer holds all labels."""
    plain(labels)
    return [list(labels)]


def instruction(labels: Sequence[str], guidelines: Mapping[str, str]) -> list[Message]:
    order = (
        f"List the mentions in the text as a JSON object of arrays, a key for each type: {', '.join(plain(labels))}."
    )
    return ask(order, labels, guidelines)


def render(document: Document, labels: Sequence[str]) -> str:
    plain(labels)
    lists: dict[str, list[str]] = {label: [] for label in labels}
    join = ", ".join
    for term in terms.unique(document, labels):
        lists[term.label].append(quote(term.surface))
    return f"{{{', '.join(f'{quote(label)}: [{join(items)}]' for label, items in lists.items())}}}"


def inexpressible(document: Document, labels: Sequence[str]) -> list[tuple[Entity, str]]:
    plain(labels)
    return terms.inexpressible(document, labels)


def parse(answer: str, document: Document, labels: Sequence[str]) -> Parsed:
    plain(labels)
    return terms.read_answer(answer, document, lambda cursor: _read(cursor, labels), None)


def salvage(answer: str, document: Document, labels: Sequence[str]) -> Parsed:
    """After the first problem, accept every string as a term of the type of the key before it."""
    plain(labels)
    return terms.read_answer(
        answer, document, lambda cursor: _read(cursor, labels), lambda rest: _lenient(rest, labels)
    )


def _read(cursor: Cursor, labels: Sequence[str]) -> Iterator[Item]:
    return objects(cursor, labels, lambda label: (label, cursor.string()))


def _lenient(answer: str, labels: Sequence[str]) -> Iterator[Item]:
    for label, start, end in under_keys(answer, labels):
        for item in terms.lenient_strings(answer[start:end], label):
            yield item._replace(place=item.place.shifted(start))


def gbnf(labels: Sequence[str]) -> str:
    return object_grammar(plain(labels), 'list ::= "[" (string (", " string)*)? "]"', *grammar.STRING)


def constraint(document: Document, labels: Sequence[str]) -> ByteAutomaton:
    return terms.constraint(document, begins(plain(labels)), [Head(b'"')], "]}")
