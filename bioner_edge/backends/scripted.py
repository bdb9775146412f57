"""A back end without weights: a byte vocabulary, and a function from the ids read so far to logits. For tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from bioner_edge.backends.contract import Batch, CachedSequence, Logits, check_batch, check_filled, check_room

__all__ = ["Scripted"]

_SLOTS = 16  # as in the real back ends


class Scripted:
    """A model simulated by `logits(ids)`. Tokens 0-255 are the bytes, followed by `words` (longer tokens) and an end
    token.

    Tokenization is greedy (longest match), so `words` are canonical. `context` is in tokens per sequence.
    """

    def __init__(
        self,
        logits: Callable[[list[int]], Logits],
        words: Sequence[bytes] = (),
        *,
        context: int = 1 << 20,
        chat_template: str | None = None,
    ) -> None:
        self._logits = logits
        self._pieces = [bytes((b,)) for b in range(256)] + list(words)
        self._ids = {piece: n for n, piece in enumerate(self._pieces)}
        self._longest = max(map(len, self._pieces))
        self._cached: dict[int, list[int]] = {}
        self.context = context
        self.vocabulary_size = len(self._pieces) + 1
        self.end_tokens = frozenset({len(self._pieces)})
        self.bos: int | None = None
        self.template_tokens: Mapping[str, str] = {"bos_token": "", "eos_token": ""}
        self.chat_template = chat_template
        self.runtime = "a script"
        self.threads = 1
        self.evaluated: list[int] = []
        """The number of tokens of each append, for tests that count steps."""

    def tokenize(self, text: bytes, special: bool) -> list[int]:
        ids, at = [], 0
        while at < len(text):
            size = next(n for n in range(min(self._longest, len(text) - at), 0, -1) if text[at : at + n] in self._ids)
            ids.append(self._ids[text[at : at + size]])
            at += size
        return ids

    def piece(self, token: int) -> bytes | None:
        return self._pieces[token] if token < len(self._pieces) else None

    def new_sequence(self) -> CachedSequence:
        slot = next((n for n in range(_SLOTS) if n not in self._cached), None)
        if slot is None:
            raise RuntimeError(f"all {_SLOTS} sequences are in use; release one")
        self._cached[slot] = []
        return CachedSequence(slot)

    def eval(self, sequence: CachedSequence, ids: Sequence[int]) -> Logits:
        return self.eval_batch([(sequence, ids)])[0]

    def eval_batch(self, batch: Batch) -> list[Logits]:
        check_batch(batch)
        check_room(batch, self.context)
        logits = []
        for sequence, ids in batch:
            self._cached[sequence.slot] += ids
            sequence.length += len(ids)
            self.evaluated.append(len(ids))
            logits.append(np.asarray(self._logits(self._cached[sequence.slot]), np.float32))
        return logits

    def fork(self, sequence: CachedSequence, upto: int) -> CachedSequence:
        check_filled(sequence, upto)
        other = self.new_sequence()
        self._cached[other.slot] = self._cached[sequence.slot][:upto]
        other.length = upto
        return other

    def truncate(self, sequence: CachedSequence, length: int) -> None:
        check_filled(sequence, length)
        del self._cached[sequence.slot][length:]
        sequence.length = length

    def release(self, sequence: CachedSequence) -> None:
        check_filled(sequence, 0)
        del self._cached[sequence.slot]
        sequence.slot, sequence.length = -1, 0

    def close(self) -> None:
        self._cached.clear()
