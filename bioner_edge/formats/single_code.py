"""single_code: a Python list of objects of one class, which the prompt declares as a dataclass.

    [Chemical("Naloxone"), Chemical("clonidine")]

After GoLLIE (arXiv:2310.03668) and CodeIE (arXiv:2305.05711); the template is ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bioner_edge.decoding.automaton import ByteAutomaton
from bioner_edge.document import Document, Entity
from bioner_edge.formats import label_names, multi_code
from bioner_edge.formats.contract import Message, Parsed
from bioner_edge.formats.messages import ask_one, dataclass
from bioner_edge.formats.terms import CANNOT

__all__ = ["CANNOT", "constraint", "gbnf", "inexpressible", "instruction", "parse", "questions", "render", "salvage"]


def questions(labels: Sequence[str]) -> list[list[str]]:
    """An answer for each label."""
    label_names.classes(labels)
    return [[label] for label in labels]


def instruction(labels: Sequence[str], guidelines: Mapping[str, str]) -> list[Message]:
    """The instruction, the text, then the class: so all types share the text as a prefix."""
    (name,) = label_names.classes([label := label_names.only(labels)])
    order = "List the mentions of the class in the text as Python objects."
    return ask_one(order, dataclass(name, label, guidelines), label, {})


def render(document: Document, labels: Sequence[str]) -> str:
    return multi_code.render(document, [label_names.only(labels)])


def inexpressible(document: Document, labels: Sequence[str]) -> list[tuple[Entity, str]]:
    return multi_code.inexpressible(document, [label_names.only(labels)])


def parse(answer: str, document: Document, labels: Sequence[str]) -> Parsed:
    return multi_code.parse(answer, document, [label_names.only(labels)])


def salvage(answer: str, document: Document, labels: Sequence[str]) -> Parsed:
    return multi_code.salvage(answer, document, [label_names.only(labels)])


def gbnf(labels: Sequence[str]) -> str:
    return multi_code.gbnf([label_names.only(labels)])


def constraint(document: Document, labels: Sequence[str]) -> ByteAutomaton:
    return multi_code.constraint(document, [label_names.only(labels)])
