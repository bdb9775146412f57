"""What a format is: one module with these functions, and what reading an answer gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from bioner_edge.decoding.automaton import ByteAutomaton
from bioner_edge.document import Document, Entity, Span

__all__ = ["TEXT", "Format", "Message", "Parsed", "Problem"]

TEXT = "\ue000text\ue001"
"""Stands in a message for the document's text, which is put in after the chat template was applied (see prompts.py)."""

Message = dict[str, str]
"""A chat message: `role` and `content`."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in an answer that could not be read; line and column count from 1, in code points of the answer.

    `syntax`: it departs from the format. `ungrounded`: it departs from the text. `cut`: it ended at a limit.
    """

    kind: Literal["syntax", "ungrounded", "cut"]
    message: str
    line: int
    column: int

    @classmethod
    def at(cls, kind: Literal["syntax", "ungrounded", "cut"], answer: str, offset: int, message: str) -> Problem:
        """A problem at a code-point offset of the answer."""
        before = answer[:offset]
        return cls(kind, message, before.count("\n") + 1, offset - before.rfind("\n"))

    def __str__(self) -> str:
        return f"{self.kind} at line {self.line}, column {self.column}: {self.message}"


@dataclass(frozen=True, slots=True)
class Parsed:
    """The entities of an answer, for each the stretch of the answer (code points) that wrote it, and the problems.

    Two entities may have been written by one stretch: a term stands for every place where it occurs.
    """

    entities: tuple[Entity, ...]
    places: tuple[Span, ...]
    problems: tuple[Problem, ...] = ()


class Format(Protocol):
    """The module of one output format. `labels` are in the order asked; each function refuses those it cannot write."""

    CANNOT: str
    """What the format cannot express, for the list of formats: "discontinuous mentions", …"""

    def questions(self, labels: Sequence[str]) -> list[list[str]]:
        """The labels of each answer that one document takes."""

    def instruction(self, labels: Sequence[str], guidelines: Mapping[str, str]) -> list[Message]:
        """The chat messages that ask for one answer, with TEXT where the document's text goes."""

    def render(self, document: Document, labels: Sequence[str]) -> str:
        """The one canonical answer for the document's entities, less those that the format cannot express."""

    def inexpressible(self, document: Document, labels: Sequence[str]) -> list[tuple[Entity, str]]:
        """The entities (of the labels asked) that reading `render`'s answer does not give back, each with the reason.

        Term formats read more than was written too: every occurrence of a surface, annotated or not.
        """

    def parse(self, answer: str, document: Document, labels: Sequence[str]) -> Parsed:
        """Read strictly: stop at the first problem."""

    def salvage(self, answer: str, document: Document, labels: Sequence[str]) -> Parsed:
        """Read what can be read of an unconstrained answer; every part left out is a problem."""

    def gbnf(self, labels: Sequence[str]) -> str:
        """A llama.cpp grammar from the labels alone; it accepts every render and admits no `syntax` problem."""

    def constraint(self, document: Document, labels: Sequence[str]) -> ByteAutomaton:
        """The grounded constraint: it accepts every render and admits no problem at all."""
