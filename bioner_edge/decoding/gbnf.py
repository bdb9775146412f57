"""GBNF, llama.cpp's grammar notation, as a byte automaton, so that the gbnf constraint is the same on every back end.

As in llama.cpp, a state is a set of stacks of symbols that may follow. Since the automaton steps by bytes, it also
holds the bytes of an incomplete code point.
"""

from __future__ import annotations

from collections.abc import Set

from bioner_edge.decoding.automaton import ByteAutomaton
from bioner_edge.decoding.gbnf_reader import MAX_CODE_POINT, GrammarError, Ranges, Rules, Symbol, first_character, read

__all__ = ["GrammarAutomaton", "GrammarError"]

_KEPT = 1 << 16  # cached steps, and cached states with their options

Stack = tuple["Frame", ...]
Frame = tuple[str, int, int]
"""(rule, alternative, index of the next symbol)"""


class GrammarAutomaton(ByteAutomaton):
    """The byte automaton of a GBNF text. Raises GrammarError if it is invalid or left-recursive."""

    def __init__(self, text: str) -> None:
        self._rules = read(text)
        self._shortest = _shortest(self._rules)
        self._options: dict[_State, frozenset[int]] = {}
        self._steps: dict[tuple[_State, int], _State | None] = {}
        tops: list[Stack] = [(("root", alternative, 0),) for alternative in range(len(self._rules["root"]))]
        self.start: _State = (self._expand(tops), ())

    # A state is (stacks, bytes of the incomplete code point).

    def options(self, state: _State) -> Set[int]:
        found = self._options.get(state)
        if found is None:
            if len(self._options) >= _KEPT:
                self._options.clear()
            found = self._options[state] = frozenset(b for b in range(256) if self._fits(state, b))
        return found

    def step(self, state: _State, byte: int) -> _State | None:
        if (state, byte) not in self._steps:
            if len(self._steps) >= _KEPT:
                self._steps.clear()
            self._steps[state, byte] = self._compute_step(state, byte)
        return self._steps[state, byte]

    def _compute_step(self, state: _State, byte: int) -> _State | None:
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
        return self._expand(after), ()

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
                    written += _complete(symbols[0], part)
                    symbols = symbols[1:]
                written += b"".join(_spell_shortest(s, self._shortest) for s in symbols)
            ways.append(written)
        return min(ways, key=lambda w: (len(w), w))

    def _fits(self, state: _State, byte: int) -> bool:
        interval = _code_points((*state[1], byte))
        return interval is not None and any(s and _meets(self._terminal(s), interval) for s in state[0])

    def _terminal(self, stack: Stack) -> Ranges:
        rule, alternative, index = stack[-1]
        symbol = self._rules[rule][alternative][index]
        assert not isinstance(symbol, str)  # _expand leaves terminals on top
        return symbol

    def _expand(self, stacks: list[Stack]) -> frozenset[Stack]:
        """Expand rules until a terminal is on top of each stack; the empty stack () means that nothing need follow."""
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
    """The inclusive interval of code points whose UTF-8 starts with `data`, or None if there are none."""
    lead, length = data[0], _length(data[0])
    if 0x80 <= lead < 0xC2 or lead > 0xF4 or any(not 0x80 <= b < 0xC0 for b in data[1:]):
        return None
    value = lead if length == 1 else lead & (0x7F >> length)
    for byte in data[1:]:
        value = value << 6 | byte & 0x3F
    bits = 6 * (length - len(data))
    low = max(value << bits, (0, 0x80, 0x800, 0x10000)[length - 1])
    high = min((value + 1 << bits) - 1, MAX_CODE_POINT)
    if low >= 0xD800 and high <= 0xDFFF:  # surrogates have no UTF-8
        return None
    return (low, high) if low <= high else None


def _meets(ranges: Ranges, interval: tuple[int, int]) -> bool:
    low, high = interval
    return any(first_character(max(a, low), min(b, high)) is not None for a, b in ranges)


def _complete(ranges: Ranges, part: tuple[int, ...]) -> bytes:
    """The remaining bytes of the first character in `ranges` that starts with `part`."""
    interval = _code_points(part)
    assert interval is not None
    found = (first_character(max(a, interval[0]), min(b, interval[1])) for a, b in ranges)
    return chr(min(c for c in found if c is not None)).encode()[len(part) :]


# Shortest strings


def _spell_shortest(symbol: Symbol, known: dict[str, bytes]) -> bytes:
    if isinstance(symbol, str):
        return known[symbol]
    return chr(min(c for c in (first_character(a, b) for a, b in symbol) if c is not None)).encode()


def _shortest(rules: Rules) -> dict[str, bytes]:
    """A shortest string for each rule. Raises GrammarError for a rule that never ends."""
    known: dict[str, bytes] = {}
    changed = True
    while changed:
        changed = False
        for name, alternatives in rules.items():
            for symbols in alternatives:
                if all(not isinstance(s, str) or s in known for s in symbols):
                    written = b"".join(_spell_shortest(s, known) for s in symbols)
                    if name not in known or len(written) < len(known[name]):
                        known[name] = written
                        changed = True
    if endless := sorted(rules.keys() - known.keys()):
        raise GrammarError(f"grammar: rule {endless[0]!r} never ends")
    return known
