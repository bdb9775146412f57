"""Read GBNF, llama.cpp's grammar notation, into rules: name -> alternatives, each a sequence of symbols.

The notation (llama.cpp, grammars/README.md): rules `name ::= …` of literals, character classes, `.`, references,
groups, `|`, and `*`, `+`, `?`, `{m}`, `{m,}`, `{m,n}`; `#` starts a comment.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from bioner_edge.errors import UsageError

__all__ = ["MAX_CODE_POINT", "GrammarError", "Ranges", "Rules", "Symbol", "first_character", "read"]

Ranges = tuple[tuple[int, int], ...]
"""Inclusive ranges of code points."""
Symbol = Ranges | str
"""A terminal or the name of a rule."""
Rules = dict[str, list[list[Symbol]]]

MAX_CODE_POINT = 0x10FFFF
_MOST_COPIES = 2000  # of a repeated symbol, llama.cpp's own bound


class GrammarError(UsageError):
    """An invalid grammar; the message gives line, column and what was expected."""


def read(text: str) -> Rules:
    """The rules of a grammar, including `root`. Raises GrammarError if it is invalid or left-recursive."""
    return _Reader(text).rules


def first_character(low: int, high: int) -> int | None:
    """The first code point of [low, high] that is not a surrogate, or None."""
    if 0xD800 <= low <= 0xDFFF:
        low = 0xE000
    return low if low <= high else None


_SKIP = re.compile(r"(?:[ \t]|#[^\r\n]*)*")
_SKIP_LINES = re.compile(r"(?:[ \t\r\n]|#[^\r\n]*)*")
_NAME = re.compile(r"[A-Za-z0-9-]+")
_REPEAT = re.compile(r"[*+?]|\{\s*(\d+)\s*(?:(,)\s*(\d*)\s*)?\}")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", '"': '"', "[": "[", "]": "]", "-": "-"}
_HEX = {"x": 2, "u": 4, "U": 8}


@dataclass
class _Reader:
    text: str
    at: int = 0
    rules: Rules = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._skip(lines=True)
        while self.at < len(self.text):
            self._rule()
            self._skip(lines=True)
        if "root" not in self.rules:
            raise GrammarError("grammar: no rule named root")
        for name, alternatives in self.rules.items():
            for symbol in (s for symbols in alternatives for s in symbols):
                if isinstance(symbol, str) and symbol not in self.rules:
                    raise GrammarError(f"grammar: rule {name!r} refers to {symbol!r}, which is not defined")
        self._refuse_left_recursion()

    def _rule(self) -> None:
        name = self._name()
        self._skip()
        if not self._take("::="):
            self._fail("'::='")
        self._skip(lines=True)
        self.rules[name] = self._alternatives(name, nested=False)
        if self.at < len(self.text) and not self._take("\n") and not self._take("\r"):
            self._fail("a symbol, '|' or the end of the line")

    def _alternatives(self, name: str, nested: bool) -> list[list[Symbol]]:
        found = [self._sequence(name, nested)]
        while self._take("|"):
            self._skip(lines=True)
            found.append(self._sequence(name, nested))
        return found

    def _sequence(self, name: str, nested: bool) -> list[Symbol]:
        symbols: list[Symbol] = []
        while True:
            start = len(symbols)
            if self._take('"'):
                while not self._take('"'):
                    code = self._character('"')
                    symbols.append(self._check_writable([(code, code)]))
            elif self._take("["):
                symbols.append(self._class())
            elif self._take("."):
                symbols.append(((0, MAX_CODE_POINT),))
            elif self._take("("):
                self._skip(lines=True)
                symbols.append(self._new_rule(name, self._alternatives(name, nested=True)))
                if not self._take(")"):
                    self._fail("')'")
            elif _NAME.match(self.text, self.at):
                symbols.append(self._name())
            else:
                return symbols
            self._skip(lines=nested)
            if repeat := _REPEAT.match(self.text, self.at):
                symbols[start:] = self._repeat(name, symbols[start:], repeat)
                self.at = repeat.end()
                self._skip(lines=nested)

    def _repeat(self, name: str, symbols: list[Symbol], repeat: re.Match[str]) -> list[Symbol]:
        """Repeat `symbols`: a single symbol, or the characters of a literal, which repeats as a whole."""
        if not symbols:
            self._fail("something to repeat before it")
        symbol = symbols[0] if len(symbols) == 1 else self._new_rule(name, [symbols])
        if repeat[1] is None:
            low, high = {"*": (0, None), "+": (1, None), "?": (0, 1)}[repeat[0]]
        else:
            low = int(repeat[1])
            high = low if repeat[2] is None else int(repeat[3]) if repeat[3] else None
        if max(low, high or 0) > _MOST_COPIES:
            self._fail(f"at most {_MOST_COPIES} repetitions")
        if high is not None and high < low:
            self._fail(f"at least {low} repetitions at most")
        copies: list[Symbol] = [symbol] * low
        if high is None:
            loop = self._new_rule(name, [])
            self.rules[loop] = [[symbol, loop], []]
            return [*copies, loop]
        optional: list[Symbol] = []
        for _ in range(high - low):
            optional = [self._new_rule(name, [[symbol, *optional], []])]
        return [*copies, *optional]

    def _class(self) -> Ranges:
        negated = self._take("^")
        ranges = []
        while not self._take("]"):
            low = self._character("]")
            high = low
            if self.text.startswith("-", self.at) and not self.text.startswith("-]", self.at):
                self.at += 1
                high = self._character("]")
            if high < low:
                self._fail(f"a range that goes up, not from U+{low:04X} to U+{high:04X}, before this")
            ranges.append((low, high))
        if not ranges:
            self._fail("a character in the class")
        return self._check_writable(_complement(ranges) if negated else ranges)

    def _check_writable(self, ranges: Sequence[tuple[int, int]]) -> Ranges:
        """The ranges as a symbol; fails if they contain only surrogates, which UTF-8 cannot encode."""
        if all(first_character(low, high) is None for low, high in ranges):
            self._fail("a character that text can hold before this")
        return tuple(ranges)

    def _character(self, end: str) -> int:
        if self.at >= len(self.text):
            self._fail(f"a closing {end}")
        char = self.text[self.at]
        self.at += 1
        if char != "\\":
            return ord(char)
        kind = self.text[self.at : self.at + 1]
        self.at += 1
        if kind in _ESCAPES and kind:
            return ord(_ESCAPES[kind])
        digits = self.text[self.at : self.at + _HEX.get(kind, 0)]
        if not re.fullmatch(r"[0-9A-Fa-f]+", digits) or len(digits) != _HEX.get(kind):
            self._fail(r"an escape: \n \r \t \\ \" \[ \] \- \xHH \uHHHH \UHHHHHHHH")
        if (code := int(digits, 16)) > MAX_CODE_POINT:
            self._fail("a code point of Unicode")
        self.at += len(digits)
        return code

    def _name(self) -> str:
        match = _NAME.match(self.text, self.at)
        if not match:
            self._fail("the name of a rule")
        self.at = match.end()
        return match.group()

    def _new_rule(self, name: str, alternatives: list[list[Symbol]]) -> str:
        new = f"{name}_{len(self.rules)}"  # names in a grammar have no underscore
        self.rules[new] = alternatives
        return new

    def _take(self, literal: str) -> bool:
        if self.text.startswith(literal, self.at):
            self.at += len(literal)
            return True
        return False

    def _skip(self, lines: bool = False) -> None:
        match = (_SKIP_LINES if lines else _SKIP).match(self.text, self.at)
        if match:
            self.at = match.end()

    def _fail(self, expected: str) -> NoReturn:
        line = self.text.count("\n", 0, self.at) + 1
        column = self.at - self.text.rfind("\n", 0, self.at)
        raise GrammarError(f"grammar: line {line}, column {column}: expected {expected}")

    def _refuse_left_recursion(self) -> None:
        nullable: set[str] = set()
        while grown := {
            name
            for name, alternatives in self.rules.items()
            if name not in nullable and any(all(s in nullable for s in symbols) for symbols in alternatives)
        }:
            nullable |= grown
        first: dict[str, set[str]] = {name: set() for name in self.rules}
        for name, alternatives in self.rules.items():
            for symbols in alternatives:
                for symbol in symbols:
                    if isinstance(symbol, str):
                        first[name].add(symbol)
                    if symbol not in nullable:
                        break
        for name in self.rules:
            reached: set[str] = set()
            waiting = set(first[name])
            while waiting:
                reached.add(rule := waiting.pop())
                waiting |= first[rule] - reached
            if name in reached:
                raise GrammarError(f"grammar: rule {name.split('_')[0]!r} is left-recursive")


def _complement(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    found = []
    after = 0
    for low, high in sorted(ranges):
        if low > after:
            found.append((after, low - 1))
        after = max(after, high + 1)
    if after <= MAX_CODE_POINT:
        found.append((after, MAX_CODE_POINT))
    return found
