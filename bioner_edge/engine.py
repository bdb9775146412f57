"""A loaded model with what is computed once for all documents: its tokens' bytes and the cached instructions."""

from __future__ import annotations

from collections.abc import Set

from bioner_edge.backends.contract import Backend, CachedSequence
from bioner_edge.decoding.token_masks import Vocabulary

__all__ = ["Engine"]


class Engine:
    """State shared by all extractors of one model. Not safe for use from several threads at once."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self._vocabulary: Vocabulary | None = None
        self._instructions: dict[tuple[int, ...], CachedSequence] = {}

    def vocabulary(self) -> Vocabulary:
        """The tokens' bytes, read from the back end on first use."""
        if self._vocabulary is None:
            self._vocabulary = Vocabulary(self.backend)
        return self._vocabulary

    def instruction(self, before: list[int], needed: Set[tuple[int, ...]]) -> CachedSequence:
        """A cached sequence of the instruction `before` without its last token, so that no prompt after it is empty.

        Instructions not in `needed` are released: they would take up context.
        """
        for key in self._instructions.keys() - needed:
            self.backend.release(self._instructions.pop(key))
        key = tuple(before)
        if key not in self._instructions:
            self._instructions[key] = self.backend.new_sequence()
            if len(before) > 1:
                self.backend.eval(self._instructions[key], before[:-1])
        return self._instructions[key]
