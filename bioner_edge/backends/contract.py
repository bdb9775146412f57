"""The back end interface: token ids in, logits out, over sequences that share cached prefixes.

Decoding, formats and extraction use a model only through `Backend`, so that each works with every runtime.
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
    """A handle on a sequence in the KV cache: its slot (-1 after release) and its number of filled positions."""

    slot: int
    length: int = 0


Batch = Sequence[tuple[CachedSequence, Sequence[int]]]
"""The input of one step: distinct sequences, each with at least one id to append. A step may mix the prompt of one
sequence with single tokens of others."""


class Spelling(Protocol):
    """The part of a model that needs no weights: tokenizer and chat template, to count tokens and write prompts."""

    @property
    def chat_template(self) -> str | None: ...
    @property
    def template_tokens(self) -> Mapping[str, str]: ...
    @property
    def bos(self) -> int | None: ...
    def tokenize(self, text: bytes, special: bool) -> list[int]: ...


class Backend(Protocol):
    """A loaded model. Not thread-safe: one thread at a time may use it.

    Any use of a released sequence, including a second release, raises ValueError: another may have taken its slot.
    """

    context: int
    """Positions for all sequences together, a shared prefix counted once; in some back ends, for each sequence."""
    vocabulary_size: int
    end_tokens: frozenset[int]
    """The tokens with which the model ends an answer."""
    chat_template: str | None
    template_tokens: Mapping[str, str]
    """`bos_token` and `eos_token` as a chat template writes them; empty where the vocabulary has none."""
    bos: int | None
    """The token that starts every prompt, or None if the model was trained without one."""
    runtime: str
    """The runtime library, its version and its kernels, on which the rounding of logits depends."""
    threads: int
    """The number of threads, on which rounding may depend as well."""

    def tokenize(self, text: bytes, special: bool) -> list[int]:
        """The canonical token ids of a text. `special` also parses names of control tokens; never use it for
        documents."""

    def piece(self, token: int) -> bytes | None:
        """The bytes that a token writes; None for a control token."""

    def new_sequence(self) -> CachedSequence:
        """An empty sequence. Raises RuntimeError if no slot is free."""

    def eval_batch(self, batch: Batch) -> list[Logits]:
        """Append its ids to each sequence and return the logits after the last id of each.

        Logits are (vocabulary_size,), valid until the next call of `eval` or `eval_batch`. The runtime may split the
        batch into several steps; the logits equal those of single calls, up to the rounding of its kernels.

        Raises ValueError, before anything is read, for a sequence without ids, a released one, or one that occurs twice
        in the batch; ContextFull if the cache has no room for the batch, and ModelError if the runtime fails. All
        sequences are then as before.
        """

    def eval(self, sequence: CachedSequence, ids: Sequence[int]) -> Logits:
        """`eval_batch` of one sequence."""

    def fork(self, sequence: CachedSequence, upto: int) -> CachedSequence:
        """A new sequence that shares the first `upto` positions, from 0 to all filled ones.

        Raises ValueError for any other number, and RuntimeError if no slot is free.
        """

    def truncate(self, sequence: CachedSequence, length: int) -> None:
        """Keep only the first `length` positions, to go back in decoding. Raises ValueError if fewer are filled or
        `length` is negative."""

    def release(self, sequence: CachedSequence) -> None:
        """Free the sequence's slot."""

    def close(self) -> None:
        """Free the model."""


class ContextFull(InputError):
    """The KV cache has no room for that many tokens. An error of the current document: the next one may fit."""


def check_filled(sequence: CachedSequence, length: int) -> None:
    """Raises ValueError for a released sequence, and if `length` is not between 0 and its filled positions."""
    if sequence.slot < 0:
        raise ValueError("the sequence was released")
    if not 0 <= length <= sequence.length:
        raise ValueError(f"{sequence.length} positions are filled, not {length}")


def check_batch(batch: Batch) -> None:
    """Raises ValueError for a sequence without ids, a released one, and one that occurs twice in the batch."""
    for sequence, ids in batch:
        if not ids:
            raise ValueError("eval needs at least one token")
        if sequence.slot < 0:
            raise ValueError("the sequence was released")
    if len(batch) > 1 and len({sequence.slot for sequence, _ in batch}) < len(batch):
        raise ValueError("a sequence occurs twice in the batch")


def check_room(batch: Batch, context: int) -> None:
    """Raises ContextFull if a sequence would outgrow its own context, in back ends with one per sequence."""
    for sequence, ids in batch:
        if sequence.length + len(ids) > context:
            raise ContextFull(f"no room for {len(ids)} tokens after {sequence.length} in a context of {context}")
