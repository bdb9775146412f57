"""The grounded constraint of brat standoff: lines in ascending order of offsets at token boundaries, with mentions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from bioner_edge.decoding.slots import Literals, Number, Slot, SlotAutomaton

__all__ = ["Standoff"]

_Place = tuple[Any, ...]
_Edges = tuple[int, ...]
"""start, end, start, end … of a mention's fragments, as far as written."""


class Standoff(SlotAutomaton):
    """`T1⇥TYPE 0 8⇥mention`, lines in the order of (offsets, position of the type).

    `escape` writes a mention in its column; starts and ends are sorted offsets in `text`. An answer holds at most as
    many discontinuous mentions as the text has tokens; without a bound it could be exponentially long.

    Places: ("line", number, last, left), ("start", …, type, edges), ("blank", …), ("stop", …), ("after", …), where
    `last` is (edges, type) of the previous line and `left` the number of discontinuous mentions still allowed.
    """

    def __init__(
        self,
        text: str,
        escape: Callable[[str], str],
        starts: Sequence[int],
        ends: Sequence[int],
        types: Sequence[bytes],
    ) -> None:
        self._text = text
        self._escape = escape
        self._starts = starts
        self._ends = ends
        self._types = types
        super().__init__(("line", 1, None, self.most_discontinuous(len(starts))))

    @staticmethod
    def most_discontinuous(tokens: int) -> int:
        """The maximum number of discontinuous mentions in an answer."""
        return tokens

    def final(self, place: Any) -> bool:
        return bool(place[0] == "line")

    def slot(self, place: Any) -> Slot | None:
        kind, number, last, left, *rest = place
        if kind == "line":
            begin = (b"\n" if number > 1 else b"") + b"T%d\t" % number
            return Literals(
                [
                    (begin + name + b" ", ("start", number, last, left, rank, ()))
                    for rank, name in enumerate(self._types)
                    if self._starts and self._grows(last, left, rank, ())
                ]
            )
        rank, edges = rest
        head = (number, last, left, rank)
        if kind == "start":
            low = self._lowest(last, left, rank, edges, edges[-1] if edges else 0)
            # Of two starts with equally many digits, the later one may have the shorter mention.
            return Number(self._starts, low, lambda start: ("blank", *head, (*edges, start)), lowest_is_shortest=False)
        if kind == "blank":
            return Literals([(b" ", ("stop", *head, edges))])
        if kind == "stop":
            low = self._lowest(last, left, rank, edges, edges[-1] + 1)
            free = last is None or edges != last[0][: len(edges)]
            return Number(self._ends, low, lambda end: ("after", *head, (*edges, end)), lowest_is_shortest=free)
        choices: list[tuple[bytes, _Place]] = []
        if last is None or (edges, rank) > last:
            left_after = left - (len(edges) > 2)
            mention = b"\t" + self._mention(edges)
            choices.append((mention, ("line", number + 1, (edges, rank), left_after)))
        if left and self._starts[-1] >= edges[-1]:
            choices.append((b";", ("start", *head, edges)))
        return Literals(choices, first_is_shortest=True)

    def _mention(self, edges: _Edges) -> bytes:
        fragments = [self._text[start:end] for start, end in zip(edges[::2], edges[1::2], strict=True)]
        return self._escape(" ".join(fragments)).encode()

    def _lowest(self, last: tuple[_Edges, int] | None, left: int, rank: int, edges: _Edges, low: int) -> int:
        """The lowest next edge, at least `low`, with which the line can still sort after the last one."""
        if last is None or edges != last[0][: len(edges)] or len(edges) == len(last[0]):
            return low
        tight = last[0][len(edges)]
        return max(low, tight if self._grows(last, left, rank, (*edges, tight)) else tight + 1)

    def _grows(self, last: tuple[_Edges, int] | None, left: int, rank: int, edges: _Edges) -> bool:
        """Whether a line that starts like the last one, with these edges, can sort after it."""
        if last is None:
            return True
        before, rank_before = last
        if not left:  # only one fragment is allowed
            before = before[:2]
            same = rank > rank_before and len(last[0]) == 2
        else:
            same = rank > rank_before or self._starts[-1] >= before[-1]  # the same mention with another fragment
        rest = range(len(edges), len(before))
        return same or any(before[n] < (self._ends if n % 2 else self._starts)[-1] for n in rest)

    def ending(self, place: Any) -> bytes:
        if place[0] == "line":
            return b""
        slot = self.slot(place)
        assert slot is not None
        return slot.closing(slot.start, self.ending)
