"""The `llama_batch` of one `llama_decode`: the tokens of one or several sequences.

`llama_batch_init` allocates the sequence ids of each token separately, which takes five accesses through ctypes per
token. Here each field is one array, filled by slices, and every token belongs to one sequence.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence

from bioner_edge.backends.contract import Batch, CachedSequence
from bioner_edge.backends.native import lib, set_fields

__all__ = ["Part", "TokenBatch", "split"]

Part = tuple[CachedSequence, Sequence[int], bool]
"""A sequence, ids to append to it, and whether they are its last in the batch, after which logits are needed."""


def split(batch: Batch, most: int) -> Iterator[list[Part]]:
    """Split a batch, in order, into steps of at most `most` tokens; a sequence may continue in the next step."""
    step: list[Part] = []
    room = most
    for sequence, ids in batch:
        at = 0
        while at < len(ids):
            part = ids[at : at + room]
            at += len(part)
            room -= len(part)
            step.append((sequence, part, at == len(ids)))
            if not room:
                yield step
                step, room = [], most
    if step:
        yield step


class TokenBatch:
    """Buffers for the tokens of one step. `struct`, the argument of `llama_decode`, points into them."""

    def __init__(self, size: int) -> None:
        self._ids = (lib.llama_token * size)()
        self._positions = (lib.llama_pos * size)()
        self._slots = (lib.llama_seq_id * size)()
        self._want_logits = (ctypes.c_int8 * size)()
        self._counts = (ctypes.c_int32 * size)(*[1] * size)  # sequences of each token
        lists = ctypes.POINTER(lib.llama_seq_id)
        offsets = range(0, ctypes.sizeof(self._slots), ctypes.sizeof(lib.llama_seq_id))
        self._lists = (lists * size)(*(ctypes.cast(ctypes.byref(self._slots, offset), lists) for offset in offsets))
        self.struct = set_fields(
            lib.llama_batch(),
            token=self._ids,
            pos=self._positions,
            n_seq_id=self._counts,
            seq_id=self._lists,
            logits=self._want_logits,
        )

    def fill(self, step: Sequence[Part]) -> list[int]:
        """Overwrite the buffers with the tokens of a step; returns the rows with logits."""
        begin, rows = 0, []
        for sequence, ids, last in step:
            count = len(ids)
            end = begin + count
            self._ids[begin:end] = list(ids)
            self._positions[begin:end] = list(range(sequence.length, sequence.length + count))
            self._slots[begin:end] = [sequence.slot] * count
            self._want_logits[begin:end] = [0] * count
            if last:
                self._want_logits[end - 1] = 1
                rows.append(end - 1)
            begin = end
        self.struct.n_tokens = begin
        return rows
