"""The surfaces of a text (every substring between token boundaries) in a suffix array, keyed by first occurrence.

Suffixes are taken only where a mention may start. All that match the bytes written so far are one range of the array,
so a search is two indices and a length, and the text is stored once.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Collection, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bioner_edge.decoding.method_cache import method_cache

__all__ = ["Search", "Searching", "SuffixArray", "byte_offsets"]

_FEW = 16  # up to this many starts, Python is faster than numpy

Search = tuple[int, int, int, int]
"""(from, to, bytes written, last start): the starts in `order[from:to]`, and the rightmost of them in the text."""


class Searching(NamedTuple):
    """A state inside a mention: the search so far, the lowest key allowed, and the state after a surface by its key."""

    at: Search
    floor: int
    found: Callable[[int], Any]


class SuffixArray:
    """`characters` is the text as it is written, escapes included; starts and ends are offsets in characters.

    A surface has a key: start × (size + 1) + end of its first occurrence, in bytes. Keys ascend with the position.
    """

    def __init__(self, characters: Sequence[str], starts: Collection[int], ends: Collection[int]) -> None:
        offsets = byte_offsets(characters)
        self.text = "".join(islice(characters, max(ends, default=0))).encode()  # only white space follows
        self.size = len(self.text)
        # Arrays of the standard library for access to single elements, which is slow in numpy.
        self._edges = array("i", sorted(int(offsets[e]) for e in ends))
        self._is_end = bytearray(self.size + 1)
        for edge in self._edges:
            self._is_end[edge] = 1
        self._ends = np.frombuffer(self._is_end, bool)
        self._starts = np.array(sorted(int(offsets[s]) for s in starts), np.int32)
        owners = self._starts[: self._owners()]
        self._bytes = np.frombuffer(self.text, np.uint8)
        self._sorted = _sort(self._bytes, owners)
        self._order = array("i", self._sorted.tobytes())
        self.root: Search = (0, len(owners), 0, int(owners[-1]) if len(owners) else -1)
        self._branches = method_cache(self._branch, 2048)

    def _owners(self) -> int:
        """How many starts, from the left, are the first occurrence of some surface.

        If the text from a start to the end occurs earlier, so does every surface from there, so that start is never a
        first occurrence. Nor is any after it, since the earlier occurrence has the same boundaries inside.
        """
        low, high = 0, len(self._starts)
        while low < high:
            middle = (low + high) // 2
            if self._first(int(self._starts[middle])) < self._starts[middle]:
                high = middle
            else:
                low = middle + 1
        return low

    def _first(self, start: int) -> int:
        """The first occurrence, as a surface, of the text from `start` to the end."""
        rest = self.text[start:]
        starts = self._starts
        at = self.text.find(rest)
        while at < start:
            place = int(np.searchsorted(starts, at))
            if starts[place] == at and self._is_end[at + len(rest)]:
                break
            # Only starts qualify: continue from the next one.
            at = self.text.find(rest, max(at + 1, int(starts[place])))
        return at

    def key(self, start: int, end: int) -> int:
        """The key of the mention [start, end) in bytes."""
        return start * (self.size + 1) + end

    def highest(self, search: Search) -> int:
        """The highest key of a surface that starts with the search."""
        return self.key(search[3], self.size) if search[3] >= 0 else -1

    def least(self, floor: int) -> int:
        """The lowest start from which a surface can reach the key `floor`, that is, `highest` is no less."""
        return -((self.size - floor) // (self.size + 1))

    def found(self, search: Search) -> int | None:
        """The key of the search, or None if it is not a surface."""
        low, high, length, _ = search
        if high - low == 1:
            start = self._order[low]
            return self.key(start, start + length) if length and self._is_end[start + length] else None
        if not length:
            return None
        if high - low <= _FEW:
            start = min((s for s in self._order[low:high] if self._is_end[s + length]), default=-1)
        else:
            starts = self._sorted[low:high]
            start = int(starts[self._ends[starts + length]].min(initial=self.size))
            start = start if start < self.size else -1
        return self.key(start, start + length) if start >= 0 else None

    def branches(self, search: Search) -> list[tuple[int, Search]]:
        """The bytes that may follow in some surface, each with the search after it."""
        low, high, length, last = search
        if high - low == 1:
            return [(self.text[last + length], (low, high, length + 1, last))] if last + length < self.size else []
        return self._branches(low, high, length)

    def _branch(self, low: int, high: int, length: int) -> list[tuple[int, Search]]:
        if high - low <= _FEW:
            return self._branch_of_few(low, high, length)
        starts = self._sorted[low:high]
        ended = int((starts + length >= self.size).sum())  # at most one, sorted before the others
        following = self._bytes[starts[ended:] + length]
        cuts = [0, *(np.flatnonzero(following[1:] != following[:-1]) + 1).tolist(), len(following)]
        lasts = np.maximum.reduceat(starts[ended:], cuts[:-1]).tolist() if len(following) else []
        heads = following[cuts[:-1]].tolist() if len(following) else []
        return [
            (byte, (low + ended + a, low + ended + b, length + 1, last))
            for byte, a, b, last in zip(heads, cuts[:-1], cuts[1:], lasts, strict=True)
        ]

    def _branch_of_few(self, low: int, high: int, length: int) -> list[tuple[int, Search]]:
        found: list[tuple[int, Search]] = []
        text, begin, before, last = self.text, low, -1, -1
        for n, start in enumerate(self._order[low:high], low):
            byte = text[start + length] if start + length < self.size else -1
            if byte != before:
                if before >= 0:
                    found.append((before, (begin, n, length + 1, last)))
                begin, before, last = n, byte, -1
            last = max(last, start)
        if before >= 0:
            found.append((before, (begin, high, length + 1, last)))
        return found

    def stretch(self, search: Search) -> bytes:
        """The bytes up to the next end of a surface if only one start matches, else empty."""
        low, high, length, last = search
        if high - low > 1:
            return b""
        at = last + length
        edge = bisect_left(self._edges, at)
        return self.text[at : self._edges[edge]] if edge < len(self._edges) else b""


def byte_offsets(characters: Sequence[str]) -> NDArray[np.int32]:
    """The byte offset of each string in the UTF-8 of all of them, then the total length: (strings + 1,)."""
    sizes = np.fromiter((len(c) if c.isascii() else len(c.encode()) for c in characters), np.int32, len(characters))
    return np.concatenate([np.zeros(1, np.int32), np.cumsum(sizes, dtype=np.int32)])


def _sort(text: NDArray[np.uint8], starts: NDArray[np.int32]) -> NDArray[np.int32]:
    """Sort `starts` by the suffix of the text at each, by prefix doubling; a prefix sorts before the longer suffix."""
    size = len(text)
    if not len(starts):
        return starts
    padded = np.concatenate([text.astype(np.uint64) + 1, np.zeros(8, np.uint64)])
    rank = np.zeros(size + 1, np.uint64)
    for offset in range(6):  # six bytes of nine bits each
        rank[:size] = rank[:size] * np.uint64(512) + padded[offset : offset + size]
    ranks = np.unique(rank, return_inverse=True)[1].astype(np.int64)
    length = 6
    while True:
        own = np.sort(ranks[starts])
        if not (own[1:] == own[:-1]).any():
            return starts[np.argsort(ranks[starts])]
        behind = np.zeros(size + 1, np.int64)
        behind[: max(0, size + 1 - length)] = ranks[length:]
        ranks = np.unique(ranks * (size + 2) + behind, return_inverse=True)[1].astype(np.int64)
        length *= 2
