"""Read answers: a cursor that consumes exactly what a format writes, and reports where an answer departs from it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from bioner_edge.document import Span
from bioner_edge.formats.contract import Problem

__all__ = ["AnswerError", "Cursor", "Item", "collect", "lenient_string"]

_CHARACTER = r'[^"\\\x00-\x1f]|\\(?:["\\bfnrt]|u00(?:0[0-7bef]|1[0-9a-f]))'
_OPEN_STRING = re.compile(f'"(?:{_CHARACTER})*')
_NUMBER = re.compile("0|[1-9][0-9]*")
_DIGITS = 18
"""More digits than any offset has; Python itself refuses to convert thousands of digits."""


class Item(NamedTuple):
    """One item of an answer. Its place includes the separator before it, where the model chose to continue."""

    label: str
    value: Any
    place: Span


class AnswerError(Exception):
    """The answer departs from the format; carries the problem."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


class Cursor:
    """A position in an answer. Each method consumes what it names and advances, or raises AnswerError."""

    def __init__(self, answer: str) -> None:
        self.answer = answer
        self.at = 0
        self.mark = 0
        """Where the current item begins."""

    def error(self, expected: str, at: int | None = None) -> AnswerError:
        at = self.at if at is None else at
        found = repr(self.answer[at : at + 12]) if at < len(self.answer) else "the end"
        return AnswerError(Problem.at("syntax", self.answer, at, f"expected {expected}, found {found}"))

    def take(self, literal: str) -> bool:
        """Consume `literal` if it is next; returns whether it was."""
        if not self.answer.startswith(literal, self.at):
            return False
        self.at += len(literal)
        return True

    def expect(self, literal: str) -> None:
        if not self.take(literal):
            found = self.answer[self.at : self.at + len(literal)]
            same = next((n for n, (a, b) in enumerate(zip(literal, found, strict=False)) if a != b), len(found))
            raise self.error(repr(literal[same:]), self.at + same)

    def one_of(self, values: Mapping[str, str]) -> str:
        """Consume the longest key that is next; returns its value."""
        for key in sorted(values, key=len, reverse=True):
            if self.take(key):
                return values[key]
        raise self.error(" or ".join(map(repr, values)))

    def string(self) -> str:
        """A non-empty string, written as json.dumps(…, ensure_ascii=False) writes it."""
        match = _OPEN_STRING.match(self.answer, self.at)
        if match is None:
            raise self.error("a string in double quotes")
        if len(match.group()) == 1 or not self.answer.startswith('"', match.end()):
            raise self.error("a character or escape of a JSON string, then a closing quote", match.end())
        self.at = match.end() + 1
        return str(json.loads(match.group() + '"'))

    def number(self) -> int:
        match = _NUMBER.match(self.answer, self.at)
        if match is None:
            raise self.error("a number")
        self.at = match.end()
        return int(match.group()[:_DIGITS])

    def listing(self, item: Callable[[], tuple[str, Any]]) -> Iterator[Item]:
        """The items of a list in square brackets."""
        self.mark = self.at
        self.expect("[")
        if self.take("]"):
            return
        while True:
            label, value = item()
            yield Item(label, value, Span(self.mark, self.at))
            self.mark = self.at
            if self.take("]"):
                return
            if not self.take(", "):
                raise self.error("', ' or ']'")

    def end(self) -> None:
        if self.at < len(self.answer):
            raise self.error("the end of the answer")


def collect(
    answer: str,
    read: Callable[[Cursor], Iterator[Item]],
    grounding_problem: Callable[[Item], str | None],
    lenient: Callable[[str], Iterable[Item]] | None,
) -> tuple[list[Item], list[Problem]]:
    """Collect the items of an answer that are grounded in the text, and the problems.

    `read` reads the whole answer strictly; `grounding_problem` says why an item is not in the text, or returns None.
    Without `lenient`, reading ends at the first problem. With it, ungrounded items are skipped, and `lenient` finds the
    items after the first syntax problem.
    """
    cursor = Cursor(answer)
    items: list[Item] = []
    problems: list[Problem] = []

    def keep_grounded(found: Iterable[Item]) -> bool:
        for item in found:
            if (message := grounding_problem(item)) is None:
                items.append(item)
                continue
            problems.append(Problem.at("ungrounded", answer, item.place.start, message))
            if lenient is None:
                return False
        return True

    try:
        if keep_grounded(read(cursor)):
            cursor.end()
    except AnswerError as error:
        problems.append(error.problem)
        if lenient is not None:
            keep_grounded(item for item in lenient(answer) if item.place.end > cursor.mark)
    return items, problems


def lenient_string(literal: str) -> str | None:
    """The value of a string in single or double quotes, or None if it cannot be decoded."""
    body = literal[1:-1]
    if literal[0] == "'":
        body = body.replace("\\'", "'").replace('"', '\\"')
    try:
        return str(json.loads(f'"{body}"', strict=False).encode("utf-8", "replace").decode())
    except ValueError:
        return None
