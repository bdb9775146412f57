"""Byte automata: what may still be written, one byte at a time.

An automaton is all that a format has to know of decoding; lifting it from bytes to a model's tokens is done once, in
token_masks.py. States are hashable and small. Every state that can be reached can reach acceptance, so decoding never
gets stuck and can always be closed.
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
        """The state after `byte`, or None where it is not allowed."""

    @abstractmethod
    def accepts(self, state: State) -> bool:
        """Whether the answer may end here."""

    @abstractmethod
    def closing(self, state: State) -> bytes:
        """A shortest way from here to acceptance."""

    def forced(self, state: State) -> bytes:
        """The bytes that must come next, up to the next choice or acceptance; empty where the state accepts."""
        written = bytearray()
        while not self.accepts(state) and len(options := self.options(state)) == 1:
            (byte,) = options
            written.append(byte)
            state = self.step(state, byte)
        return bytes(written)

    # Where a format can be written on without a mention, the loop asks these; an automaton without that has neither.

    def neutral(self, state: State) -> bytes | None:
        """What is written up to the end where no mention is begun; None inside one, and where no such way is known."""
        return None

    def unfinished(self, state: State) -> bool:
        """Whether a mention was begun that `withdrawn` can take back."""
        return False

    def withdrawn(self, before: State, state: State) -> bytes:
        """What would have been written from `before`, a state that was not unfinished, to a little behind `state`,
        had no mention been begun between them; empty where the answer then is whole."""
        raise NotImplementedError

    # What follows serves speed alone; an automaton need not know of it.

    def stretch(self, state: State) -> tuple[bytes, State]:
        """Some of the bytes that must come next, where they can be told at once, and the state after them."""
        return b"", state

    surfaces: SuffixArray | None = None
    """The text in which the automaton looks for mentions, if it does."""

    def searching(self, state: State) -> Searching | None:
        """How far a search in `surfaces` has come, where the state is inside a mention: such states share walks."""
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
