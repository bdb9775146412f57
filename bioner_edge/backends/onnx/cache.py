"""The KV cache of an ONNX graph, in our own buffers that onnxruntime reads and writes.

There are two kinds of graphs. In a shared cache (operator GroupQueryAttention), past and present are one buffer of any
length, and the attention mask says how much of it is filled: nothing is copied, and a shorter mask truncates a
sequence. In a grown cache, the present is the past followed by the new positions, in memory of its own.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Sequence
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bioner_edge.backends.contract import Logits
from bioner_edge.backends.onnx.session import MOST_ROWS, Step, reason
from bioner_edge.errors import ModelError
from bioner_edge.models.onnx.signature import Signature

__all__ = ["CACHES", "Cache", "Grown", "Shared", "probe"]

_Buffer = NDArray[np.float32]


class Cache(Protocol):
    """Cached positions of up to MOST_ROWS sequences, each in its slot."""

    together: bool
    """Whether one run can read a token in each of several adjacent slots."""

    def read(self, slots: Sequence[int], pasts: Sequence[int], ids: Sequence[int]) -> Logits:
        """Read `ids`, an equal share for each of the adjacent slots, after the first `pasts` positions of each. Returns
        logits (slots, vocabulary_size), valid until the next call. Raises ModelError, with the past unchanged."""

    def copy(self, source: int, target: int, upto: int) -> None:
        """Copy the first `upto` positions of a slot to another."""


class Shared:
    """Past and present are one buffer for each slot, layer and part: (slots, heads, context, size)."""

    together = True

    def __init__(self, session: Any, signature: Signature, step: Step, context: int) -> None:
        self._session = session
        self._step = step
        self._buffers = {suffix: _lazy((MOST_ROWS, heads, context, size)) for suffix, heads, size in signature.caches}
        self._bindings: dict[tuple[int, int], Any] = {}

    def read(self, slots: Sequence[int], pasts: Sequence[int], ids: Sequence[int]) -> Logits:
        return self._step.run(self._binding(slots[0], len(slots)), pasts, ids)

    def copy(self, source: int, target: int, upto: int) -> None:
        for buffer in self._buffers.values():
            buffer[target, :, :upto] = buffer[source, :, :upto]

    def _binding(self, first: int, count: int) -> Any:
        """The binding of `count` adjacent caches, made once: they never move."""
        if (first, count) not in self._bindings:
            binding = self._session.io_binding()
            for suffix, buffer in self._buffers.items():
                rows = buffer[first : first + count]
                place = ("cpu", 0, np.float32, rows.shape, rows.ctypes.data)
                binding.bind_input(f"past_key_values.{suffix}", *place)
                binding.bind_output(f"present.{suffix}", *place)
            self._bindings[first, count] = binding
        return self._bindings[first, count]


class Grown:
    """Each slot holds the past of each layer and part, (heads, filled, size) without gaps. A run writes to free
    buffers, which then replace the slot's all at once, so that a run that fails or is interrupted leaves the slot
    unchanged."""

    together = False

    def __init__(self, session: Any, signature: Signature, step: Step, context: int) -> None:
        self._step = step
        self._caches = signature.caches
        self._context = context
        self._binding = session.io_binding()
        self._held: dict[int, tuple[int, list[_Buffer]]] = {}
        self._free: list[list[_Buffer]] = [self._new()]

    def read(self, slots: Sequence[int], pasts: Sequence[int], ids: Sequence[int]) -> Logits:
        (slot,), (past,) = slots, pasts
        new = self._take_buffers()
        filled, held = self._held.get(slot, (0, new))
        if past < filled:  # truncated positions leave gaps between the heads
            self.copy(slot, slot, past)
            filled, held = self._held[slot]
        for (suffix, heads, size), old, longer in zip(self._caches, held, new, strict=True):
            before, after = (1, heads, past, size), (1, heads, past + len(ids), size)
            self._binding.bind_input(f"past_key_values.{suffix}", "cpu", 0, np.float32, before, old.ctypes.data)
            self._binding.bind_output(f"present.{suffix}", "cpu", 0, np.float32, after, longer.ctypes.data)
        logits = self._step.run(self._binding, pasts, ids)
        self._put(slot, past + len(ids), new)
        return logits

    def copy(self, source: int, target: int, upto: int) -> None:
        new = self._take_buffers()
        filled, held = self._held.get(source, (0, new))
        for (_, heads, size), old, shorter in zip(self._caches, held, new, strict=True):
            _view(shorter, heads, upto, size)[:] = _view(old, heads, filled, size)[:, :upto]
        self._put(target, upto, new)

    def _put(self, slot: int, filled: int, buffers: list[_Buffer]) -> None:
        _, before = self._held.get(slot, (0, None))
        self._held[slot] = filled, buffers
        if before is not None:
            self._free.append(before)

    def _take_buffers(self) -> list[_Buffer]:
        return self._free.pop() if self._free else self._new()

    def _new(self) -> list[_Buffer]:
        return [_lazy((heads * self._context * size,)) for _, heads, size in self._caches]


CACHES: dict[str, Callable[[Any, Signature, Step, int], Cache]] = {"shared": Shared, "grown": Grown}


def _view(buffer: _Buffer, heads: int, length: int, size: int) -> _Buffer:
    return buffer[: heads * length * size].reshape(heads, length, size)


def _lazy(shape: tuple[int, ...]) -> _Buffer:
    """Zeros that take memory page by page as they are written. numpy's own may use huge pages of 2 MB, so that one
    token in each buffer would take as much as a full context. Raises ModelError if the system refuses even the
    addresses."""
    if not hasattr(mmap, "MAP_PRIVATE"):
        return np.zeros(shape, np.float32)
    size = 4 * prod(shape)
    try:
        pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        message = f"no room for {size} bytes of a KV cache: {error.strerror}"
        raise ModelError(f"{message}; free some memory, or take a smaller model") from None
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        with suppress(OSError):  # a system without huge pages
            pages.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(pages, np.float32).reshape(shape)


def probe(session: Any, signature: Signature, path: Path) -> tuple[str, bool]:
    """Find out a graph's kind of cache, "shared" or "grown", and whether it returns logits of the last token only.

    Two tokens are read with a past of five positions, once with a mask that covers none of these and once with one that
    covers all. In the first run, only a graph whose past may be longer than its filled part returns a present of five.
    Raises ModelError if neither fits.
    """
    past, new = 5, 2
    names = [f"present.{suffix}" for suffix, *_ in signature.caches]
    message = ""
    for kind, before, after in (("shared", 0, past), ("grown", past, past + new)):
        feeds = {
            "input_ids": np.zeros((1, new), np.int64),
            "attention_mask": np.ones((1, before + new), np.int64),
            **{f"past_key_values.{s}": np.zeros((1, h, past, size), np.float32) for s, h, size in signature.caches},
        }
        if signature.positions:
            feeds["position_ids"] = np.arange(before, before + new)[None]
        try:
            logits, *presents = session.run(["logits", *names], feeds)
        except Exception as error:
            message = reason(error)
            continue
        lengths = sorted({present.shape[2] for present in presents})
        if lengths == [after]:
            return kind, logits.shape[1] == 1
        message = f"{new} tokens after {past} give {', '.join(map(str, lengths))} positions"
    raise ModelError(f"{path}: its cache is neither shared nor grown: {message}; convert it again")
