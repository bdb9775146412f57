"""single_code: a Python list of objects of one class, which the prompt declares as a dataclass.

    [Chemical("Naloxone"), Chemical("clonidine")]

After GoLLIE (arXiv:2310.03668) and CodeIE (arXiv:2305.05711); the template is ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..decoding.automaton import ByteAutomaton
from ..span import Document, Entity
from . import multi_code, names
from .asking import ask_one, dataclass
from .contract import Message, Parsed
from .terms import CANNOT

__all__ = ["CANNOT", "calls", "constraint", "gbnf", "inexpressible", "instruction", "parse", "render", "salvage"]


def calls(labels: Sequence[str]) -> list[list[str]]:
    """An answer for each label."""
    names.classes(labels)
    return [[label] for label in labels]


def instruction(labels: Sequence[str], guidelines: Mapping[str, str]) -> list[Message]:
    """The order, the text, then the declaration: so all types share the text as a prefix."""
    (name,) = names.classes([label := names.only(labels)])
    order = "List the mentions of the class in the text as Python objects."
    return ask_one(order, dataclass(name, label, guidelines), label, {})


def render(document: Document, labels: Sequence[str]) -> str:
    return multi_code.render(document, [names.only(labels)])


def inexpressible(document: Document, labels: Sequence[str]) -> list[tuple[Entity, str]]:
    return multi_code.inexpressible(document, [names.only(labels)])


def parse(answer: str, document: Document, labels: Sequence[str]) -> Parsed:
    return multi_code.parse(answer, document, [names.only(labels)])


def salvage(answer: str, document: Document, labels: Sequence[str]) -> Parsed:
    return multi_code.salvage(answer, document, [names.only(labels)])


def gbnf(labels: Sequence[str]) -> str:
    return multi_code.gbnf([names.only(labels)])


def constraint(document: Document, labels: Sequence[str]) -> ByteAutomaton:
    return multi_code.constraint(document, [names.only(labels)])
