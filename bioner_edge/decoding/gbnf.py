"""GBNF, llama.cpp's grammar notation, read as a byte automaton, so that gbnf decoding is the same on every back end.

The notation (llama.cpp, grammars/README.md): rules `name ::= …` of literals, character classes, `.`, references,
groups, `|`, and `*`, `+`, `?`, `{m}`, `{m,}`, `{m,n}`; `#` starts a comment. The automaton keeps, as llama.cpp does,
the set of stacks of what may follow, and beside it the code point that is half written, since it steps by bytes.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from ..errors import UsageError
from .automaton import ByteAutomaton

__all__ = ["GrammarAutomaton", "GrammarError"]

Ranges = tuple[tuple[int, int], ...]
"""Inclusive ranges of code points."""
Symbol = Ranges | str
"""A terminal or the name of a rule."""
Stack = tuple["Frame", ...]
Frame = tuple[str, int, int]
"""(rule, alternative, index of the symbol that comes next)"""

_MAX_CODE_POINT = 0x10FFFF
_MOST_COPIES = 2000  # of a repeated symbol, llama.cpp's own bound


class GrammarError(UsageError):
    """A grammar that cannot be read; says the line, the column and what was expected."""


class GrammarAutomaton(ByteAutomaton):
    """The byte automaton of a GBNF text. Raises GrammarError for what cannot be read, left recursion among it."""

    def __init__(self, text: str) -> None:
        self._rules = _Reader(text).rules
        self._shortest = _shortest(self._rules)
        self._options: dict[_State, tuple[int, ...]] = {}
        tops: list[Stack] = [(("root", alternative, 0),) for alternative in range(len(self._rules["root"]))]
        self.start: _State = (self._expanded(tops), ())

    # A state is (stacks, bytes of the code point that is half written).

    def options(self, state: _State) -> Collection[int]:
        found = self._options.get(state)
        if found is None:
            found = self._options[state] = tuple(b for b in range(256) if self._fits(state, b))
        return found

    def step(self, state: _State, byte: int) -> _State | None:
        stacks, part = state
        longer = (*part, byte)
        interval = _code_points(longer)
        if interval is None:
            return None
        alive = [s for s in stacks if s and _meets(self._terminal(s), interval)]
        if not alive:
            return None
        if len(longer) < _length(longer[0]):
            return frozenset(alive), longer
        after = [(*below, (rule, alternative, index + 1)) for *below, (rule, alternative, index) in alive]
        return self._expanded(after), ()

    def accepts(self, state: _State) -> bool:
        stacks, part = state
        return not part and () in stacks

    def closing(self, state: _State) -> bytes:
        stacks, part = state
        ways = []
        for stack in stacks:
            written = b""
            for depth, (rule, alternative, index) in enumerate(reversed(stack)):
                symbols = self._rules[rule][alternative][index:]
                if depth == 0 and part and not isinstance(symbols[0], str):
                    written += _completed(symbols[0], part)
                    symbols = symbols[1:]
                written += b"".join(_spelled(s, self._shortest) for s in symbols)
            ways.append(written)
        return min(ways, key=lambda w: (len(w), w))

    def _fits(self, state: _State, byte: int) -> bool:
        interval = _code_points((*state[1], byte))
        return interval is not None and any(s and _meets(self._terminal(s), interval) for s in state[0])

    def _terminal(self, stack: Stack) -> Ranges:
        rule, alternative, index = stack[-1]
        symbol = self._rules[rule][alternative][index]
        assert not isinstance(symbol, str)  # _expanded leaves terminals on top
        return symbol

    def _expanded(self, stacks: list[Stack]) -> frozenset[Stack]:
        """The stacks, terminals on top, that `stacks` stand for; () where nothing need follow."""
        found: set[Stack] = set()
        seen: set[Stack] = set()
        waiting = list(stacks)
        while waiting:
            stack = waiting.pop()
            if stack in seen:
                continue
            seen.add(stack)
            if not stack:
                found.add(stack)
                continue
            rule, alternative, index = stack[-1]
            symbols = self._rules[rule][alternative]
            if index == len(symbols):
                waiting.append(stack[:-1])
                continue
            symbol = symbols[index]
            if not isinstance(symbol, str):
                found.add(stack)
                continue
            # The frame to return to is left out where nothing follows in it: right recursion stays flat.
            below = stack[:-1] if index + 1 == len(symbols) else (*stack[:-1], (rule, alternative, index + 1))
            waiting += [(*below, (symbol, choice, 0)) for choice in range(len(self._rules[symbol]))]
        return frozenset(found)


_State = tuple[frozenset[Stack], tuple[int, ...]]


# UTF-8


def _length(lead: int) -> int:
    return 1 if lead < 0x80 else 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4


def _code_points(data: tuple[int, ...]) -> tuple[int, int] | None:
    """The inclusive interval of code points whose UTF-8 starts with `data`; None where there are none."""
    lead, length = data[0], _length(data[0])
    if 0x80 <= lead < 0xC2 or lead > 0xF4 or any(not 0x80 <= b < 0xC0 for b in data[1:]):
        return None
    value = lead if length == 1 else lead & (0x7F >> length)
    for byte in data[1:]:
        value = value << 6 | byte & 0x3F
    bits = 6 * (length - len(data))
    low = max(value << bits, (0, 0x80, 0x800, 0x10000)[length - 1])
    high = min((value + 1 << bits) - 1, _MAX_CODE_POINT)
    if low >= 0xD800 and high <= 0xDFFF:  # surrogates are no characters
        return None
    return (low, high) if low <= high else None


def _meets(ranges: Ranges, interval: tuple[int, int]) -> bool:
    low, high = interval
    return any(_first_character(max(a, low), min(b, high)) is not None for a, b in ranges)


def _first_character(low: int, high: int) -> int | None:
    """The first code point of [low, high] that is no surrogate."""
    if 0xD800 <= low <= 0xDFFF:
        low = 0xE000
    return low if low <= high else None


def _completed(ranges: Ranges, part: tuple[int, ...]) -> bytes:
    """The bytes that are missing of the first character of `ranges` that starts with `part`."""
    interval = _code_points(part)
    assert interval is not None
    found = (_first_character(max(a, interval[0]), min(b, interval[1])) for a, b in ranges)
    return chr(min(c for c in found if c is not None)).encode()[len(part) :]


# Shortest strings


def _spelled(symbol: Symbol, known: dict[str, bytes]) -> bytes:
    if isinstance(symbol, str):
        return known[symbol]
    return chr(min(c for c in (_first_character(a, b) for a, b in symbol) if c is not None)).encode()


def _shortest(rules: dict[str, list[list[Symbol]]]) -> dict[str, bytes]:
    """For each rule a shortest string. Raises GrammarError where a rule has none, that is, never ends."""
    known: dict[str, bytes] = {}
    changed = True
    while changed:
        changed = False
        for name, alternatives in rules.items():
            for symbols in alternatives:
                if all(not isinstance(s, str) or s in known for s in symbols):
                    written = b"".join(_spelled(s, known) for s in symbols)
                    if name not in known or len(written) < len(known[name]):
                        known[name] = written
                        changed = True
    if endless := sorted(rules.keys() - known.keys()):
        raise GrammarError(f"grammar: rule {endless[0]!r} never ends")
    return known


# Reading

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
    rules: dict[str, list[list[Symbol]]] = field(default_factory=dict)

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
                    symbols.append(self._writable([(code, code)]))
            elif self._take("["):
                symbols.append(self._class())
            elif self._take("."):
                symbols.append(((0, _MAX_CODE_POINT),))
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
                symbols[start:] = self._repeated(name, symbols[start:], repeat)
                self.at = repeat.end()
                self._skip(lines=nested)

    def _repeated(self, name: str, symbols: list[Symbol], repeat: re.Match[str]) -> list[Symbol]:
        """`symbols` repeated: one symbol, or the characters of a literal, which repeats as a whole."""
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
        return self._writable(_complement(ranges) if negated else ranges)

    def _writable(self, ranges: Sequence[tuple[int, int]]) -> Ranges:
        """The ranges as a symbol; fails where no character is in them that UTF-8 can write."""
        if all(_first_character(low, high) is None for low, high in ranges):
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
        if (code := int(digits, 16)) > _MAX_CODE_POINT:
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
        new = f"{name}_{len(self.rules)}"  # an underscore cannot be in a name that was read
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
    if after <= _MAX_CODE_POINT:
        found.append((after, _MAX_CODE_POINT))
    return found
