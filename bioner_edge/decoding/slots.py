"""Automata as templates: a sequence of places, each filled by a slot: one of several literals, a number, or a mention.

A format defines its places, the slot at each and the place after it; stepping by bytes, forced bytes and closing are
implemented here. A state is (place, part), where part is what has been written of the slot.
"""

from __future__ import annotations

from abc import abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence, Set
from typing import Any, Protocol

from bioner_edge.decoding.automaton import ByteAutomaton
from bioner_edge.decoding.method_cache import method_cache
from bioner_edge.decoding.suffix_array import Search, Searching, SuffixArray

__all__ = ["Literals", "Mention", "Number", "Slot", "SlotAutomaton"]

Place = Hashable
Part = Any
Ending = Callable[[Place], bytes]
"""Maps a place to a shortest string that leads to acceptance."""


class Slot(Protocol):
    """What is written at a place."""

    start: Part

    def moves(self, part: Part) -> Iterable[tuple[int, Part]]:
        """The bytes that may follow within the slot, each with the part after it."""

    def then(self, part: Part) -> Place | None:
        """The next place if the slot may end here, else None; what follows never starts with a byte of `moves`."""

    def closing(self, part: Part, ending: Ending) -> bytes:
        """A shortest string from the middle of the slot to acceptance, given those of the places that follow."""


class Literals:
    """One of several byte strings, each with the place that follows it."""

    start = b""

    def __init__(self, choices: Sequence[tuple[bytes, Place]], *, first_is_shortest: bool = False) -> None:
        self.choices = choices
        self.first_is_shortest = first_is_shortest
        self._places = dict(choices)

    def moves(self, part: bytes) -> Iterator[tuple[int, bytes]]:
        size = len(part)
        for byte in {literal[size] for literal, _ in self.choices if len(literal) > size and literal.startswith(part)}:
            yield byte, part + bytes((byte,))

    def common(self, part: bytes) -> bytes:
        """What all literals that start with `part` continue with."""
        fitting = [literal for literal, _ in self.choices if literal.startswith(part)]
        if not fitting:
            return b""
        first, last = min(fitting), max(fitting)  # their common prefix is that of all
        size = len(part)
        while size < len(first) and first[size] == last[size]:
            size += 1
        return first[len(part) : size]

    def then(self, part: bytes) -> Place | None:
        return self._places.get(part)

    def closing(self, part: bytes, ending: Ending) -> bytes:
        fitting = [(literal[len(part) :], place) for literal, place in self.choices if literal.startswith(part)]
        if self.first_is_shortest and self.choices[0][0].startswith(part):
            fitting = fitting[:1]  # there can be very many others
        return min((rest + ending(place) for rest, place in fitting), key=len)


class Number:
    """One of `values` (sorted) that is at least `low`, as digits without leading zeros."""

    start = -1

    def __init__(
        self, values: Sequence[int], low: int, then: Callable[[int], Place], *, lowest_is_shortest: bool = True
    ) -> None:
        self.values = values
        self.low = low
        self.follows = then
        self.lowest_is_shortest = lowest_is_shortest  # among numbers of one length

    def _from(self, low: int, high: int) -> int | None:
        """The smallest value in [low, high)."""
        at = bisect_left(self.values, max(low, self.low))
        return int(self.values[at]) if at < len(self.values) and self.values[at] < high else None

    def candidates(self, part: int) -> Iterator[int]:
        """The smallest value of each length whose digits start with `part`."""
        low, high = (part, part + 1) if part > 0 else (0, 1) if part == 0 else (1, 10)
        if part < 0 and self._from(0, 1) is not None:
            yield 0
        while low <= self.values[-1]:
            found = self._from(low, high)
            if found is not None:
                yield found
            if part == 0:
                return
            low, high = low * 10, high * 10

    def moves(self, part: int) -> Iterator[tuple[int, int]]:
        if part == 0:
            return
        for digit in range(10):
            value = digit if part < 0 else part * 10 + digit
            if next(self.candidates(value), None) is not None:
                yield 0x30 + digit, value

    def then(self, part: int) -> Place | None:
        return self.follows(part) if part >= 0 and self._from(part, part + 1) is not None else None

    def closing(self, part: int, ending: Ending) -> bytes:
        written = str(part) if part >= 0 else ""
        values: Iterable[int] = self.candidates(part)
        if not self.lowest_is_shortest:
            values = (v for v in self.values if v >= self.low and str(v).startswith(written))
        ways = (str(v)[len(written) :].encode() + ending(self.follows(v)) for v in values)
        return min(ways, key=len)


class Mention:
    """A surface with a key of at least `floor`, and the closing quote. A part is a search, after the quote a key.

    `rest` is the minimum number of bytes after the quote.
    """

    def __init__(self, surfaces: SuffixArray, floor: int, then: Callable[[int], Place], *, rest: int) -> None:
        self.surfaces = surfaces
        self.floor = floor
        self.follows = then
        self.rest = rest
        self.start = surfaces.root

    def moves(self, part: Search | int) -> Iterator[tuple[int, Search | int]]:
        if isinstance(part, int):
            return
        least = self.surfaces.least(self.floor)
        for byte, search in self.surfaces.branches(part):
            if search[3] >= least:
                yield byte, search
        key = self.surfaces.found(part)
        if key is not None and key >= self.floor:
            yield 0x22, key

    def then(self, part: Search | int) -> Place | None:
        return self.follows(part) if isinstance(part, int) else None

    def closing(self, part: Search, ending: Ending) -> bytes:
        """Breadth first, until longer surfaces cannot be made up for by a shorter rest."""
        best: bytes | None = None
        level: list[tuple[bytes, Search]] = [(b"", part)]
        while level and (best is None or len(level[0][0]) + 1 + self.rest < len(best)):
            longer = []
            for written, search in level:
                for byte, after in self.moves(search):
                    if isinstance(after, int):
                        way = written + b'"' + ending(self.follows(after))
                        best = way if best is None else min(best, way, key=len)
                    else:
                        longer.append((written + bytes((byte,)), after))
            level = longer
        assert best is not None
        return best


class SlotAutomaton(ByteAutomaton):
    """An automaton made of places and slots."""

    def __init__(self, first: Place) -> None:
        self._slot = method_cache(self.slot, 256)
        self._moves = method_cache(self._compute_moves, 256)
        self.start = self._enter(first)

    @abstractmethod
    def slot(self, place: Place) -> Slot | None:
        """The slot at a place; None at the end of the answer."""

    @abstractmethod
    def ending(self, place: Place) -> bytes:
        """A shortest string from the start of a place to acceptance."""

    def final(self, place: Place) -> bool:
        """Whether the answer may end at the start of a place."""
        return self._slot(place) is None

    def _enter(self, place: Place) -> tuple[Place, Part]:
        slot = self._slot(place)
        return place, None if slot is None else slot.start

    def _compute_moves(self, state: tuple[Place, Part]) -> dict[int, Any]:
        place, part = state
        slot = self._slot(place)
        if slot is None:
            return {}
        found = {byte: self._normalize(place, slot, after) for byte, after in slot.moves(part)}
        follows = slot.then(part)
        return found if follows is None else found | self._moves(self._enter(follows))

    def _normalize(self, place: Place, slot: Slot, part: Part) -> tuple[Place, Part]:
        """The state after a move of the slot, or the start of the next place if the slot is complete."""
        follows = slot.then(part)
        if follows is None or next(iter(slot.moves(part)), None) is not None:
            return place, part
        return self._enter(follows)

    def searching(self, state: tuple[Place, Part]) -> Searching | None:
        place, part = state
        slot = self._slot(place)
        if not isinstance(slot, Mention):
            return None
        return Searching(part, slot.floor, lambda key: self._enter(slot.follows(key)))

    def stretch(self, state: tuple[Place, Part]) -> tuple[bytes, Any]:
        place, part = state
        slot = self._slot(place)
        if not isinstance(slot, Literals) or not (rest := slot.common(part)):
            return b"", state
        return rest, self._normalize(place, slot, part + rest)

    def options(self, state: tuple[Place, Part]) -> Set[int]:
        return self._moves(state).keys()

    def step(self, state: tuple[Place, Part], byte: int) -> Any | None:
        return self._moves(state).get(byte)

    def accepts(self, state: tuple[Place, Part]) -> bool:
        place, part = state
        slot = self._slot(place)
        if slot is None:
            return True
        if part == slot.start and self.final(place):
            return True
        follows = slot.then(part)
        return follows is not None and self.accepts(self._enter(follows))

    def closing(self, state: tuple[Place, Part]) -> bytes:
        if self.accepts(state):
            return b""
        place, part = state
        slot = self._slot(place)
        assert slot is not None  # the end accepts
        return slot.closing(part, self.ending)
