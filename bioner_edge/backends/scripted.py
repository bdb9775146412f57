"""A model without weights: a byte vocabulary and a function from what was read to logits. It drives most tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from bioner_edge.backends.contract import CachedSequence, ContextFull, Logits, refuse_outside

__all__ = ["Scripted"]


class Scripted:
    """Tokens 0-255 are the bytes, then `words` (longer tokens), then one end token; `logits(ids)` plays the model.

    Tokenization is greedy: the longest token that fits, which makes the words canonical.
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
        """The number of tokens of each call of `eval`, for tests that count calls."""

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
        slot = max(self._cached, default=-1) + 1
        self._cached[slot] = []
        return CachedSequence(slot)

    def eval(self, sequence: CachedSequence, ids: Sequence[int]) -> Logits:
        if not ids:
            raise ValueError("eval needs at least one token")
        refuse_outside(sequence, sequence.length)
        if sequence.length + len(ids) > self.context:
            raise ContextFull(f"no room for {len(ids)} tokens after {sequence.length} in a context of {self.context}")
        self._cached[sequence.slot] += ids
        sequence.length += len(ids)
        self.evaluated.append(len(ids))
        return np.asarray(self._logits(self._cached[sequence.slot]), np.float32)

    def fork(self, sequence: CachedSequence, upto: int) -> CachedSequence:
        refuse_outside(sequence, upto)
        other = self.new_sequence()
        self._cached[other.slot] = self._cached[sequence.slot][:upto]
        other.length = upto
        return other

    def truncate(self, sequence: CachedSequence, length: int) -> None:
        refuse_outside(sequence, length)
        del self._cached[sequence.slot][length:]
        sequence.length = length

    def release(self, sequence: CachedSequence) -> None:
        refuse_outside(sequence, 0)
        del self._cached[sequence.slot]
        sequence.slot, sequence.length = -1, 0

    def close(self) -> None:
        self._cached.clear()
