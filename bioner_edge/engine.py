"""A loaded model with what is read once for all documents: the bytes of its tokens, and the cached instructions."""

from __future__ import annotations

from collections.abc import Set

from bioner_edge.backends.contract import Backend, CachedSequence
from bioner_edge.decoding.token_masks import Vocabulary

__all__ = ["Engine"]


class Engine:
    """What extractors of one model share. Not safe for use from several threads at once."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self._vocabulary: Vocabulary | None = None
        self._instructions: dict[tuple[int, ...], CachedSequence] = {}

    def vocabulary(self) -> Vocabulary:
        """The bytes of the tokens, read when they are first needed."""
        if self._vocabulary is None:
            self._vocabulary = Vocabulary(self.backend)
        return self._vocabulary

    def instruction(self, before: list[int], needed: Set[tuple[int, ...]]) -> CachedSequence:
        """A sequence that holds the instruction `before`, less its last token, so that no prompt after it is empty.

        Instructions that are not among those `needed` now are released: they would take room in the context.
        """
        for key in self._instructions.keys() - needed:
            self.backend.release(self._instructions.pop(key))
        key = tuple(before)
        if key not in self._instructions:
            self._instructions[key] = self.backend.new_sequence()
            if len(before) > 1:
                self.backend.eval(self._instructions[key], before[:-1])
        return self._instructions[key]
