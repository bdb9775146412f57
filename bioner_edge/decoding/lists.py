"""The grounded constraint of list formats: one or more lists of mentions of the text, or of their offsets.

Items are in ascending order of their keys, so none is written twice and every answer ends.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from bioner_edge.decoding.slots import Literals, Mention, Number, Slot, SlotAutomaton
from bioner_edge.decoding.suffix_array import SuffixArray

__all__ = ["Head", "Offsets", "Terms"]

_Last = tuple[int, int] | None
"""(key, rank) of the last item written in this list; rank is the position of its type."""
_Place = tuple[Any, ...]


@dataclass(frozen=True)
class Head:
    """How an item starts, up to its mention, and its possible tails (rank, bytes) after the closing quote."""

    opening: bytes
    tails: tuple[tuple[int, bytes], ...] = ((0, b""),)


class _Lists(SlotAutomaton):
    """Lists one after another: `begins[n]` opens the n-th (`begins[0]` also the answer), `end` closes the last."""

    def __init__(self, begins: Sequence[bytes], end: bytes) -> None:
        self._begins = begins
        self._closers = [*begins[1:], end]
        super().__init__(("begin",))

    def items(self, number: int, last: _Last) -> list[tuple[bytes, _Place]]:
        """How the next item of a list may start, each with the place after that; empty if no item is left."""
        raise NotImplementedError

    def item(self, place: _Place) -> Slot:
        """The slots inside an item."""
        raise NotImplementedError

    def slot(self, place: Any) -> Slot | None:
        match place:
            case ("begin",):
                return Literals([(self._begins[0], ("list", 0, None))])
            case ("list", number, last):
                between = b"" if last is None else b", "
                items = [(between + opening, after) for opening, after in self.items(number, last)]
                return Literals([(self._closers[number], self._next(number)), *items], first_is_shortest=True)
            case ("end",):
                return None
        return self.item(place)

    def _next(self, number: int) -> _Place:
        return ("list", number + 1, None) if number + 1 < len(self._begins) else ("end",)

    def ending(self, place: Any) -> bytes:
        match place:
            case ("end",):
                return b""
            case ("begin",):
                return b"".join([*self._begins, self._closers[-1]])
            case ("list", number, _):
                return b"".join(self._closers[number:])
        slot = self.slot(place)
        assert slot is not None
        return slot.closing(slot.start, self.ending)


class Terms(_Lists):
    """Lists of distinct terms of a text. `heads` are the ways in which an item can start, the same in every list.

    `characters` is the text, escaped as between quotes; starts and ends are offsets in it. A term's key is its first
    occurrence.
    """

    def __init__(
        self,
        characters: Sequence[str],
        starts: Collection[int],
        ends: Collection[int],
        begins: Sequence[bytes],
        heads: Sequence[Head],
        end: bytes,
    ) -> None:
        self.surfaces: SuffixArray = SuffixArray(characters, starts, ends)
        self._heads = heads
        super().__init__(begins, end)

    def _floor(self, head: Head, last: _Last) -> int:
        """The lowest key that an item with this head may have."""
        if last is None:
            return 0
        key, rank = last
        return key if any(r > rank for r, _ in head.tails) else key + 1

    def items(self, number: int, last: _Last) -> list[tuple[bytes, _Place]]:
        highest = self.surfaces.highest(self.surfaces.root)
        return [
            (head.opening, ("mention", number, n, last))
            for n, head in enumerate(self._heads)
            if highest >= self._floor(head, last)
        ]

    def item(self, place: _Place) -> Slot:
        kind, number, n, last, *rest = place
        head = self._heads[n]
        if kind == "mention":
            least = min(len(tail) for _, tail in head.tails) + len(self.ending(("list", number, last)))
            then = partial(_after, head, number, n, last)  # a bound method would keep the automaton in a cycle
            return Mention(self.surfaces, self._floor(head, last), then, rest=least)
        (key,) = rest
        left = [(tail, r) for r, tail in head.tails if last is None or (key, r) > last]
        return Literals([(tail, ("list", number, (key, r))) for tail, r in left])


def _after(head: Head, number: int, n: int, last: _Last, key: int) -> _Place:
    """The place after the mention of an item with the n-th head."""
    (rank, tail), *others = head.tails
    return ("tail", number, n, last, key) if tail or others else ("list", number, (key, rank))


class Offsets(_Lists):
    """Lists of `[start, end]`, each item greater than the one before; `starts` and `ends` are sorted offsets."""

    def __init__(self, starts: Sequence[int], ends: Sequence[int], begins: Sequence[bytes], end: bytes) -> None:
        self._starts = starts
        self._ends = ends
        super().__init__(begins, end)

    def _lowest(self, last: _Last) -> int:
        """The lowest start that the next item may have."""
        if last is None:
            return 0
        start, end = last
        return start if end < self._ends[-1] else start + 1

    def items(self, number: int, last: _Last) -> list[tuple[bytes, _Place]]:
        if not len(self._starts) or self._starts[-1] < self._lowest(last):
            return []
        return [(b"[", ("start", number, last))]

    def item(self, place: _Place) -> Slot:
        match place:
            case ("start", number, last):
                return Number(self._starts, self._lowest(last), lambda start: ("comma", number, last, start))
            case ("comma", number, last, start):
                return Literals([(b", ", ("stop", number, last, start))])
            case ("stop", number, last, start):
                low = last[1] if last and last[0] == start else start
                return Number(self._ends, low + 1, lambda end: ("close", number, (start, end)))
        _, number, last = place
        return Literals([(b"]", ("list", number, last))])
