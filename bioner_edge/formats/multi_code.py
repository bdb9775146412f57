"""multi_code: a Python list of objects; the prompt declares a dataclass for each type.

    [Chemical("Naloxone"), Chemical("clonidine"), Disease("Hypertension")]

After GoLLIE (arXiv:2310.03668) and CodeIE (arXiv:2305.05711); the template is ours.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from bioner_edge.decoding.automaton import ByteAutomaton
from bioner_edge.decoding.lists import Head
from bioner_edge.document import Document, Entity, Span
from bioner_edge.formats import grammar, terms
from bioner_edge.formats.contract import TEXT, Message, Parsed
from bioner_edge.formats.label_names import classes
from bioner_edge.formats.messages import dataclass
from bioner_edge.formats.reading import Cursor, Item, lenient_string
from bioner_edge.formats.terms import CANNOT, quote

__all__ = ["CANNOT", "constraint", "gbnf", "inexpressible", "instruction", "parse", "questions", "render", "salvage"]

_OBJECT = re.compile(r"""(\w+)\s*\(\s*(?:\w+\s*=\s*)?("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')\s*\)""", re.DOTALL)


def questions(labels: Sequence[str]) -> list[list[str]]:
    """One answer holds all labels."""
    classes(labels)
    return [list(labels)]


def instruction(labels: Sequence[str], guidelines: Mapping[str, str]) -> list[Message]:
    """The dataclasses, with guidelines as docstrings, then the text."""
    declared = [dataclass(name, label, guidelines) for name, label in classes(labels).items()]
    order = "List the mentions in the text as Python objects."
    return [{"role": "system", "content": "\n\n".join([order, *declared])}, {"role": "user", "content": TEXT}]


def render(document: Document, labels: Sequence[str]) -> str:
    name = {label: name for name, label in classes(labels).items()}
    return f"[{', '.join(f'{name[t.label]}({quote(t.surface)})' for t in terms.unique(document, labels))}]"


def inexpressible(document: Document, labels: Sequence[str]) -> list[tuple[Entity, str]]:
    classes(labels)
    return terms.inexpressible(document, labels)


def parse(answer: str, document: Document, labels: Sequence[str]) -> Parsed:
    return terms.read_answer(answer, document, _reader(classes(labels)), None)


def salvage(answer: str, document: Document, labels: Sequence[str]) -> Parsed:
    """After the first problem, accept every call of a declared class with one string."""
    names = classes(labels)
    return terms.read_answer(answer, document, _reader(names), lambda rest: _lenient(rest, names))


def _reader(names: Mapping[str, str]) -> Callable[[Cursor], Iterator[Item]]:
    openings = {f"{name}(": label for name, label in names.items()}

    def item(cursor: Cursor) -> tuple[str, str]:
        label = cursor.one_of(openings)
        surface = cursor.string()
        cursor.expect(")")
        return label, surface

    return lambda cursor: cursor.listing(lambda: item(cursor))


def _lenient(answer: str, names: Mapping[str, str]) -> Iterable[Item]:
    for match in _OBJECT.finditer(answer):
        if match[1] in names and (surface := lenient_string(match[2])):
            yield Item(names[match[1]], surface, Span(match.start(), match.end()))


def gbnf(labels: Sequence[str]) -> str:
    return grammar.grammar(
        'root ::= "[" (object (", " object)*)? "]"',
        'object ::= name "(" string ")"',
        f"name ::= {grammar.alternatives(classes(labels))}",
        *grammar.STRING,
    )


def constraint(document: Document, labels: Sequence[str]) -> ByteAutomaton:
    heads = [Head(f'{name}("'.encode(), ((rank, b")"),)) for rank, name in enumerate(classes(labels))]
    return terms.constraint(document, ["["], heads, "]")
