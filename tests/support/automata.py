"""What tests ask of a byte automaton."""

from __future__ import annotations

from bioner_edge.decoding.automaton import ByteAutomaton, State

__all__ = ["accepts_all"]


def accepts_all(automaton: ByteAutomaton, data: bytes) -> bool:
    """Whether `data`, whole, is an answer."""
    state: State | None = automaton.start
    for byte in data:
        state = automaton.step(state, byte)
        if state is None:
            return False
    return automaton.accepts(state)
