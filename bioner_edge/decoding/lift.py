"""From bytes to tokens: which tokens of a vocabulary an automaton allows in a state.

The vocabulary is a trie of its pieces; walking trie and automaton together visits only what both allow, so that a
copy costs microseconds whatever the vocabulary's size, and every tokenization whose bytes match is allowed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..backends.contract import Backend
from ..errors import ModelError
from .automaton import ByteAutomaton, State

__all__ = ["Lift", "Vocabulary"]

Ids = NDArray[np.int64]


class Vocabulary:
    """The pieces of a back end's tokens and their trie. Raises ModelError where some byte cannot be spelled."""

    def __init__(self, backend: Backend) -> None:
        self.pieces: list[bytes | None] = [backend.piece(t) for t in range(backend.vocabulary_size)]
        self.end_tokens = np.array(sorted(backend.end_tokens), np.int64)
        self.children: list[dict[int, int]] = [{}]  # node -> byte -> node
        self.ids: list[list[int]] = [[]]  # node -> the tokens that end there
        for token, piece in enumerate(self.pieces):
            if piece:
                self._insert(piece, token)
        missing = [b for b in range(256) if b not in self.children[0] or not self.ids[self.children[0][b]]]
        # 0xC0, 0xC1 and 0xF5-0xFF never occur in UTF-8: SentencePiece vocabularies may do without them.
        if missing := [b for b in missing if b not in (0xC0, 0xC1) and b < 0xF5]:
            told = f"cannot spell the bytes {bytes(missing)!r}; it cannot copy every text"
            raise ModelError(f"the model's vocabulary {told}")
        if self.spell(backend.tokenize(b"a", False)) != b"a":  # SentencePiece may put a blank before every text
            raise ModelError("the model's tokenizer changes the text that it is given; forced text cannot be fed to it")

    def _insert(self, piece: bytes, token: int) -> None:
        node = 0
        for byte in piece:
            after = self.children[node].get(byte)
            if after is None:
                after = len(self.children)
                self.children[node][byte] = after
                self.children.append({})
                self.ids.append([])
            node = after
        self.ids[node].append(token)

    def spell(self, ids: Sequence[int]) -> bytes:
        """The bytes that the tokens write."""
        return b"".join(self.pieces[i] or b"" for i in ids)


class Lift:
    """An automaton over a vocabulary's tokens. What is allowed is cached by state: keep one Lift for each automaton."""

    def __init__(self, automaton: ByteAutomaton, vocabulary: Vocabulary) -> None:
        self.automaton = automaton
        self.vocabulary = vocabulary
        self._allowed: dict[State, Ids] = {}

    def allowed(self, state: State) -> Ids:
        """The tokens that may come next, end tokens not among them."""
        found = self._allowed.get(state)
        if found is None:
            found = self._allowed[state] = np.array(self._walk(state), np.int64)
        return found

    def _walk(self, state: State) -> list[int]:
        children, ids = self.vocabulary.children, self.vocabulary.ids
        step, options = self.automaton.step, self.automaton.options
        found: list[int] = []
        open_nodes = [(0, state)]
        while open_nodes:
            node, at = open_nodes.pop()
            below = children[node]
            if not below:
                continue
            for byte in options(at):
                child = below.get(byte)
                if child is not None:
                    found += ids[child]
                    open_nodes.append((child, step(at, byte)))
        return found

    def advance(self, state: State, data: bytes) -> State:
        """The state after `data`, which must be allowed."""
        for byte in data:
            state = self.automaton.step(state, byte)
        return state
