"""Reading answers: a cursor that takes exactly what a format writes, and says where an answer departs from it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from bioner_edge.document import Span
from bioner_edge.formats.contract import Problem

__all__ = ["Cursor", "Fault", "Item", "collect", "lenient_string"]

_CHARACTER = r'[^"\\\x00-\x1f]|\\(?:["\\bfnrt]|u00(?:0[0-7bef]|1[0-9a-f]))'
_OPEN_STRING = re.compile(f'"(?:{_CHARACTER})*')
_NUMBER = re.compile("0|[1-9][0-9]*")
_DIGITS = 18
"""No text has offsets of more digits; Python itself refuses to read numbers of thousands."""


class Item(NamedTuple):
    """One item of an answer, the separator before it included in its place: there it was chosen to go on."""

    label: str
    value: Any
    place: Span


class Fault(Exception):
    """The answer departs from the format; holds the problem."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


class Cursor:
    """A place in an answer. Each method takes what it names and moves on, or raises Fault."""

    def __init__(self, answer: str) -> None:
        self.answer = answer
        self.at = 0
        self.mark = 0
        """Where the item begins that is being read."""

    def fault(self, expected: str, at: int | None = None) -> Fault:
        at = self.at if at is None else at
        found = repr(self.answer[at : at + 12]) if at < len(self.answer) else "the end"
        return Fault(Problem.at("syntax", self.answer, at, f"expected {expected}, found {found}"))

    def take(self, literal: str) -> bool:
        """Whether `literal` stands here; if so it is taken."""
        if not self.answer.startswith(literal, self.at):
            return False
        self.at += len(literal)
        return True

    def expect(self, literal: str) -> None:
        if not self.take(literal):
            found = self.answer[self.at : self.at + len(literal)]
            same = next((n for n, (a, b) in enumerate(zip(literal, found, strict=False)) if a != b), len(found))
            raise self.fault(repr(literal[same:]), self.at + same)

    def one_of(self, values: Mapping[str, str]) -> str:
        """The value of the longest key that stands here."""
        for key in sorted(values, key=len, reverse=True):
            if self.take(key):
                return values[key]
        raise self.fault(" or ".join(map(repr, values)))

    def string(self) -> str:
        """A string that is not empty, spelled as json.dumps(…, ensure_ascii=False) spells it."""
        match = _OPEN_STRING.match(self.answer, self.at)
        if match is None:
            raise self.fault("a string in double quotes")
        if len(match.group()) == 1 or not self.answer.startswith('"', match.end()):
            raise self.fault("a character or escape of a JSON string, then a closing quote", match.end())
        self.at = match.end() + 1
        return str(json.loads(match.group() + '"'))

    def number(self) -> int:
        match = _NUMBER.match(self.answer, self.at)
        if match is None:
            raise self.fault("a number")
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
                raise self.fault("', ' or ']'")

    def end(self) -> None:
        if self.at < len(self.answer):
            raise self.fault("the end of the answer")


def collect(
    answer: str,
    read: Callable[[Cursor], Iterator[Item]],
    missing: Callable[[Item], str | None],
    lenient: Callable[[str], Iterable[Item]] | None,
) -> tuple[list[Item], list[Problem]]:
    """The items of an answer that are in the text, and the problems.

    `read` takes the whole answer strictly; `missing` says why an item is not in the text. Without `lenient` the first
    problem ends the reading; with it, it is only left out, and behind the first fault items are found by `lenient`.
    """
    cursor = Cursor(answer)
    items: list[Item] = []
    problems: list[Problem] = []

    def grounded(found: Iterable[Item]) -> bool:
        for item in found:
            if (told := missing(item)) is None:
                items.append(item)
                continue
            problems.append(Problem.at("ungrounded", answer, item.place.start, told))
            if lenient is None:
                return False
        return True

    try:
        if grounded(read(cursor)):
            cursor.end()
    except Fault as fault:
        problems.append(fault.problem)
        if lenient is not None:
            grounded(item for item in lenient(answer) if item.place.end > cursor.mark)
    return items, problems


def lenient_string(literal: str) -> str | None:
    """What a string in single or double quotes says; None where it is not to be understood."""
    body = literal[1:-1]
    if literal[0] == "'":
        body = body.replace("\\'", "'").replace('"', '\\"')
    try:
        return str(json.loads(f'"{body}"', strict=False).encode("utf-8", "replace").decode())
    except ValueError:
        return None
