"""The interface of a format module, and the result of reading an answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from bioner_edge.decoding.automaton import ByteAutomaton
from bioner_edge.document import Document, Entity, Span

__all__ = ["TEXT", "Format", "Message", "Parsed", "Problem"]

TEXT = "\ue000text\ue001"
"""Placeholder for the document's text in a message, filled in after the chat template is applied (see prompts.py)."""

Message = dict[str, str]
"""A chat message: `role` and `content`."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong in a model's answer; line and column count from 1, in code points of the answer.

    `syntax`: the answer departs from the format. `ungrounded`: it departs from the text. `cut`: it hit the token limit.
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
    """The entities of an answer, the span of the answer that wrote each (code points), and the problems.

    Several entities may share a span: a term stands for all its occurrences in the text.
    """

    entities: tuple[Entity, ...]
    places: tuple[Span, ...]
    problems: tuple[Problem, ...] = ()


class Format(Protocol):
    """A format's module. `labels` come in the order of the question; every function raises UsageError for a label that
    the format cannot write."""

    CANNOT: str
    """What the format cannot express, as shown by `bioner-edge formats`: "discontinuous mentions", …"""

    def questions(self, labels: Sequence[str]) -> list[list[str]]:
        """The labels of each question that a document needs, one answer per question."""

    def instruction(self, labels: Sequence[str], guidelines: Mapping[str, str]) -> list[Message]:
        """The chat messages of one question, with TEXT in place of the document's text."""

    def render(self, document: Document, labels: Sequence[str]) -> str:
        """The canonical answer for the document's entities, without those that the format cannot express."""

    def inexpressible(self, document: Document, labels: Sequence[str]) -> list[tuple[Entity, str]]:
        """The entities (of these labels) that parsing `render`'s answer does not return, each with the reason.

        Conversely, term formats may return more than was annotated: every occurrence of a surface.
        """

    def parse(self, answer: str, document: Document, labels: Sequence[str]) -> Parsed:
        """Parse an answer strictly: stop at the first problem."""

    def salvage(self, answer: str, document: Document, labels: Sequence[str]) -> Parsed:
        """Parse as much as possible of an unconstrained answer; every part skipped is a problem."""

    def gbnf(self, labels: Sequence[str]) -> str:
        """A llama.cpp grammar, built from the labels alone. It accepts every rendered answer and rules out `syntax`
        problems."""

    def constraint(self, document: Document, labels: Sequence[str]) -> ByteAutomaton:
        """The grounded constraint. It accepts every rendered answer and rules out problems of any kind."""
