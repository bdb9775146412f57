"""What a back end does: tokens to logits, with sequences that share what they have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bioner_edge.errors import InputError

__all__ = ["Backend", "CachedSequence", "ContextFull", "Logits", "Spelling", "refuse_outside"]

Logits = NDArray[np.float32]


@dataclass(slots=True)
class CachedSequence:
    """A handle on cached tokens: a slot of the back end, -1 once it was released, and how many positions are filled."""

    slot: int
    length: int = 0


class Spelling(Protocol):
    """What a model knows of text, which can be had without its weights: enough to count tokens and to write prompts."""

    @property
    def chat_template(self) -> str | None: ...
    @property
    def template_tokens(self) -> Mapping[str, str]: ...
    @property
    def bos(self) -> int | None: ...
    def tokenize(self, text: bytes, special: bool) -> list[int]: ...


class Backend(Protocol):
    """A loaded model. Not safe for use from several threads at once.

    Whatever is done with a sequence after its release is a ValueError, a second release too: its slot may be another's.
    """

    context: int
    """Positions that all sequences together may fill; shared prefixes count once."""
    vocabulary_size: int
    end_tokens: frozenset[int]
    """The tokens by which the model ends an answer."""
    chat_template: str | None
    template_tokens: Mapping[str, str]
    """`bos_token` and `eos_token` as a chat template writes them, empty where the vocabulary has none."""
    bos: int | None
    """The token that a prompt starts with, where the model was trained so."""
    runtime: str
    """The library that computes, its version and its kernels: with another one logits are rounded otherwise."""
    threads: int
    """How many it computes with, on which their rounding may depend too."""

    def tokenize(self, text: bytes, special: bool) -> list[int]:
        """Canonical token ids; `special` reads names of control tokens as these tokens, never used for a document."""

    def piece(self, token: int) -> bytes | None:
        """The bytes that a token writes; None for control tokens."""

    def new_sequence(self) -> CachedSequence:
        """An empty sequence. Raises RuntimeError where no slot is free."""

    def eval(self, sequence: CachedSequence, ids: Sequence[int]) -> Logits:
        """Append `ids`, at least one, and return the logits after the last: (vocabulary_size,), until the next call.

        Raises ContextFull, with the sequence as it was, where the context has no room for them, ValueError for none.
        """

    def fork(self, sequence: CachedSequence, upto: int) -> CachedSequence:
        """A new sequence that shares the first `upto` positions: from none to all that are filled.

        Raises ValueError for more, or less than none, and RuntimeError where no slot is free.
        """

    def truncate(self, sequence: CachedSequence, length: int) -> None:
        """Forget all positions from `length` on. Raises ValueError where fewer are filled, or it is less than none."""

    def release(self, sequence: CachedSequence) -> None:
        """Give the slot back."""

    def close(self) -> None:
        """Free the model."""


class ContextFull(InputError):
    """The context has no room for the tokens; says how many were asked for. Of a document: the next one may fit."""


def refuse_outside(sequence: CachedSequence, length: int) -> None:
    """Raises ValueError where a sequence was released, or `length` is none of its lengths until now."""
    if sequence.slot < 0:
        raise ValueError("the sequence was released")
    if not 0 <= length <= sequence.length:
        raise ValueError(f"{sequence.length} positions are filled, not {length}")
