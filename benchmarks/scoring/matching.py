"""Match predictions with gold entities, each with at most one, independent of order.

For overlapping pairs a maximum matching is computed, by augmenting paths (Berge 1957, doi:10.1073/pnas.43.9.842; Kuhn
1955, doi:10.1002/nav.3800020109). Giving each prediction the first free gold entity would depend on the order: [0, 10)
and [0, 2) against [0, 10) and [8, 10) would give one pair or two.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Sequence

from bioner_edge.document import Span

__all__ = ["Hits", "maximum", "overlapping", "overlaps", "same_place"]

Fragments = tuple[Span, ...]
Keys = Iterable[tuple[str, Fragments]]
"""Unique entities of one side: label and offsets."""
Hits = tuple[list[str], list[str]]
"""The labels of the paired entities, of the predicted and of the gold."""


def same_place(ours: Keys, theirs: Keys) -> Hits:
    """Pairs at the same offsets: equal labels first, then, in alphabetical order, as many more as both sides have."""
    at: defaultdict[Fragments, tuple[set[str], set[str]]] = defaultdict(lambda: (set(), set()))
    for side, keys in enumerate((ours, theirs)):
        for label, fragments in keys:
            at[fragments][side].add(label)
    hits: Hits = ([], [])
    for sides in at.values():
        common = sides[0] & sides[1]
        size = min(map(len, sides))
        for mine, chosen in zip(sides, hits, strict=True):
            chosen += [*common, *sorted(mine - common)][:size]
    return hits


def overlapping(ours: Keys, theirs: Keys) -> Hits:
    """As many pairs as possible with the same label and at least one common character."""
    places: defaultdict[str, tuple[list[Fragments], list[Fragments]]] = defaultdict(lambda: ([], []))
    for side, keys in enumerate((ours, theirs)):
        for label, fragments in keys:
            places[label][side].append(fragments)
    found = [label for label, sides in places.items() for _ in range(maximum(overlaps(*sides)))]
    return found, found


def overlaps(ours: Sequence[Fragments], theirs: Sequence[Fragments]) -> list[set[int]]:
    """For each of ours the indices of theirs that share at least one character with it."""
    found: list[set[int]] = [set() for _ in ours]
    spans = [(s.start, s.end, 0, i) for i, fragments in enumerate(ours) for s in fragments]
    spans += [(s.start, s.end, 1, i) for i, fragments in enumerate(theirs) for s in fragments]
    reached: tuple[list[tuple[int, int]], list[tuple[int, int]]] = ([], [])  # (end, number), those passed only at times
    for start, end, side, number in sorted(spans):
        reached[1 - side][:] = [(until, other) for until, other in reached[1 - side] if until > start]
        for _, other in reached[1 - side]:
            mine, its = (number, other) if side == 0 else (other, number)
            found[mine].add(its)
        reached[side].append((end, number))
    return found


def maximum(neighbours: Sequence[Collection[int]]) -> int:
    """The size of a maximum matching. `neighbours` are the right-hand nodes adjacent to each left-hand node."""
    left_of: dict[int, int] = {}
    right_of: dict[int, int] = {}
    return sum(_augment(start, neighbours, left_of, right_of) for start in range(len(neighbours)))


def _augment(
    start: int, neighbours: Sequence[Collection[int]], left_of: dict[int, int], right_of: dict[int, int]
) -> bool:
    """Match `start` too, along an augmenting path; False where there is none."""
    reached_from: dict[int, int] = {}
    waiting = deque([start])
    while waiting:
        left = waiting.popleft()
        for right in neighbours[left]:
            if right in reached_from:
                continue
            reached_from[right] = left
            if right in left_of:
                waiting.append(left_of[right])
                continue
            free: int | None = right
            while free is not None:  # back along the path: each node takes the free one and frees its own
                taker = reached_from[free]
                left_of[free], right_of[taker], free = taker, free, right_of.get(taker)
            return True
    return False
