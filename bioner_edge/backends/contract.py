"""The back end interface: token ids in, logits out, over sequences that share cached prefixes.

Decoding, formats and extraction know a model only through `Backend`, so that each runs on every runtime.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bioner_edge.errors import InputError

__all__ = [
    "Backend",
    "Batch",
    "CachedSequence",
    "ContextFull",
    "Logits",
    "Spelling",
    "check_batch",
    "check_filled",
    "check_room",
]

Logits = NDArray[np.float32]


@dataclass(slots=True)
class CachedSequence:
    """A handle on a sequence in the KV cache: its slot, -1 once it was released, and its number of filled positions."""

    slot: int
    length: int = 0


Batch = Sequence[tuple[CachedSequence, Sequence[int]]]
"""What one step reads: different sequences, each with the ids to append to it, of any number from one on. A step can so
mix the prompt of one sequence with single tokens of others."""


class Spelling(Protocol):
    """The part of a model that needs no weights: its tokenizer and chat template, to count tokens and write prompts."""

    @property
    def chat_template(self) -> str | None: ...
    @property
    def template_tokens(self) -> Mapping[str, str]: ...
    @property
    def bos(self) -> int | None: ...
    def tokenize(self, text: bytes, special: bool) -> list[int]: ...


class Backend(Protocol):
    """A loaded model. Not thread-safe: one thread at a time may use it.

    Any use of a released sequence, a second release included, raises ValueError: its slot may belong to another by now.
    """

    context: int
    """Positions that all sequences may fill together, a shared prefix counted once; in some back ends, each of them."""
    vocabulary_size: int
    end_tokens: frozenset[int]
    """The tokens with which the model ends an answer."""
    chat_template: str | None
    template_tokens: Mapping[str, str]
    """`bos_token` and `eos_token` as a chat template writes them; empty where the vocabulary has none."""
    bos: int | None
    """The token that every prompt starts with, if the model was trained with one."""
    runtime: str
    """The library that computes, its version and its kernels: with another one logits are rounded otherwise."""
    threads: int
    """How many it computes with, on which their rounding may depend too."""

    def tokenize(self, text: bytes, special: bool) -> list[int]:
        """The canonical token ids of a text. `special` parses the names of control tokens, too; never for documents."""

    def piece(self, token: int) -> bytes | None:
        """The bytes that a token writes; None for a control token."""

    def new_sequence(self) -> CachedSequence:
        """An empty sequence. Raises RuntimeError where no slot is free."""

    def eval_batch(self, batch: Batch) -> list[Logits]:
        """Append to each sequence its ids and return for each the logits after its last id.

        Each is (vocabulary_size,), valid until the next call of `eval` or `eval_batch`. A runtime reads in one step
        what it can and splits the rest; the logits are those of single calls, up to the rounding of its kernels.

        Raises ValueError, before anything is read, for a sequence without ids, a released one and one that is twice in
        the batch; ContextFull where the cache has no room for all of them, and ModelError where the runtime fails: all
        sequences are then as they were.
        """

    def eval(self, sequence: CachedSequence, ids: Sequence[int]) -> Logits:
        """`eval_batch` of one sequence."""

    def fork(self, sequence: CachedSequence, upto: int) -> CachedSequence:
        """A new sequence that shares the first `upto` positions, 0 to all that are filled.

        Raises ValueError for any other number, and RuntimeError where no slot is free.
        """

    def truncate(self, sequence: CachedSequence, length: int) -> None:
        """Keep the first `length` positions: how decoding goes back. Raises ValueError where fewer are filled, and for
        less than 0."""

    def release(self, sequence: CachedSequence) -> None:
        """Free the sequence's slot."""

    def close(self) -> None:
        """Free the model."""


class ContextFull(InputError):
    """The KV cache has no room for so many tokens. An error of the document at hand: the next one may fit."""


def check_filled(sequence: CachedSequence, length: int) -> None:
    """Raises ValueError for a released sequence, and where `length` is not between 0 and its filled positions."""
    if sequence.slot < 0:
        raise ValueError("the sequence was released")
    if not 0 <= length <= sequence.length:
        raise ValueError(f"{sequence.length} positions are filled, not {length}")


def check_batch(batch: Batch) -> None:
    """Raises ValueError for a sequence without ids, a released sequence, and one that is twice in the batch."""
    for sequence, ids in batch:
        if not ids:
            raise ValueError("eval needs at least one token")
        if sequence.slot < 0:
            raise ValueError("the sequence was released")
    if len(batch) > 1 and len({sequence.slot for sequence, _ in batch}) < len(batch):
        raise ValueError("a sequence is twice in the batch")


def check_room(batch: Batch, context: int) -> None:
    """Raises ContextFull where a sequence would outgrow a context that it has for itself."""
    for sequence, ids in batch:
        if sequence.length + len(ids) > context:
            raise ContextFull(f"no room for {len(ids)} tokens after {sequence.length} in a context of {context}")
