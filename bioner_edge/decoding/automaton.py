"""Byte automata: what may still be written, one byte at a time.

An automaton is all that a format has to know about decoding; token_masks.py maps it from bytes to a model's tokens.
States are hashable and small. Acceptance is reachable from every reachable state, so decoding never gets stuck and an
answer can always be closed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Set
from typing import Any

from bioner_edge.decoding.suffix_array import Searching, SuffixArray

__all__ = ["Anything", "ByteAutomaton"]

State = Any  # hashable; each automaton has its own kind


class ByteAutomaton(ABC):
    """A deterministic automaton over bytes."""

    start: Hashable

    @abstractmethod
    def options(self, state: State) -> Set[int]:
        """The bytes that may come next: exactly those for which `step` is not None."""

    @abstractmethod
    def step(self, state: State, byte: int) -> State | None:
        """The state after `byte`, or None if it is not allowed."""

    @abstractmethod
    def accepts(self, state: State) -> bool:
        """Whether the answer may end here."""

    @abstractmethod
    def closing(self, state: State) -> bytes:
        """A shortest string that leads to acceptance."""

    def forced(self, state: State) -> bytes:
        """The bytes that must come next, up to the next choice or acceptance; empty if the state accepts."""
        written = bytearray()
        while not self.accepts(state) and len(options := self.options(state)) == 1:
            (byte,) = options
            written.append(byte)
            state = self.step(state, byte)
        return bytes(written)

    # For formats in which writing can go on without a mention; other automata keep these defaults.

    def neutral(self, state: State) -> bytes | None:
        """What follows up to the end if no further mention begins; None inside a mention, and if that is unknown."""
        return None

    def in_mention(self, state: State) -> bool:
        """Whether the state is inside a mention that `without_mention` can take back."""
        return False

    def without_mention(self, before: State, state: State) -> bytes:
        """What would have been written from `before`, a state outside mentions, to a little beyond `state` if no
        mention had begun in between; empty if the answer is complete without it."""
        raise NotImplementedError

    # Optional, for speed alone.

    def stretch(self, state: State) -> tuple[bytes, State]:
        """Bytes that must come next, if they are known without stepping, and the state after them."""
        return b"", state

    surfaces: SuffixArray | None = None
    """The surfaces of the text, if the automaton matches mentions against them."""

    def searching(self, state: State) -> Searching | None:
        """The search in `surfaces` of a state inside a mention, else None. States with one search share a trie walk."""
        return None


_BYTES = frozenset(range(256))


class Anything(ByteAutomaton):
    """No constraint: every byte, and the end at any time."""

    start = 0

    def options(self, state: State) -> Set[int]:
        return _BYTES

    def step(self, state: State, byte: int) -> State | None:
        return 0

    def accepts(self, state: State) -> bool:
        return True

    def closing(self, state: State) -> bytes:
        return b""
