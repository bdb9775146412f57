"""The memory that a process takes: at its peak, before and after a model is loaded, and how much of it is the cache.

Of what is resident two kinds are told apart: anonymous memory, which is the process's own, and what is mapped from
files, which the kernel can take back and read again. Linux says both; elsewhere only the peak is known.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bioner_edge.benchmarks.measuring.machine import resident
from bioner_edge.models import gguf_header
from bioner_edge.models.gguf_header import Array
from bioner_edge.models.onnx import folder as onnx_folder
from bioner_edge.models.onnx.signature import signature

__all__ = ["Watermark", "cache_bytes", "peak_bytes"]

_KINDS = ("RssAnon", "RssFile")
_EVERY_S = 0.005  # a look takes some 25 microseconds
_CELLS = 256  # positions; llama.cpp makes whole stretches of as many
# What makes a cache other than keys and values of all layers, of one size.
_UNLIKE = (
    "ssm.",
    "wkv.",
    "shortconv.",
    "attention.kv_lora_rank",
    "attention.shared_kv_layers",
    "attention.key_length_",
)


class Watermark:
    """The largest RssAnon and RssFile that were seen, each for itself; None where the system does not tell."""

    def __init__(self) -> None:
        now = resident("self")
        self.before_bytes: int | None = sum(now[kind] for kind in _KINDS) if now else None
        """Resident when this was made."""
        self._seen = {kind: now.get(kind) for kind in _KINDS}

    @property
    def anonymous_bytes(self) -> int | None:
        return self._seen["RssAnon"]

    @property
    def file_bytes(self) -> int | None:
        return self._seen["RssFile"]

    def look(self) -> None:
        """Take what is resident now into account."""
        for kind, count in resident("self").items():
            if kind in self._seen:
                self._seen[kind] = max(count, self._seen[kind] or 0)

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Looks every few milliseconds, from a thread: what is only held for a moment is seen too."""
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(_EVERY_S):
                self.look()

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            self.look()


def peak_bytes() -> int | None:
    """The most that this process ever had resident; None where the system does not tell (Windows)."""
    if found := resident("self").get("VmHWM"):
        return found
    try:
        import resource
    except ModuleNotFoundError:
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def cache_bytes(path: Path, context: int) -> int | None:
    """Bytes of the KV cache of a model at `context` positions: what llama.cpp makes at once, in float16, and what
    onnxruntime fills step by step for one sequence, in float32. None where the header does not tell.

    Raises ModelError for a file that is damaged.
    """
    if path.is_dir():
        return context * signature(onnx_folder.check_confined(path), path / "model.onnx").bytes_per_position
    told = gguf_header.check(path)
    prefix = f"{told['general.architecture']}."
    if any(key.startswith(tuple(prefix + part for part in _UNLIKE)) for key in told):
        return None
    return _of_layers({key.removeprefix(prefix): value for key, value in told.items()}, context)


def _of_layers(told: dict[str, Any], context: int) -> int | None:
    heads = told.get("attention.head_count")
    kept = told.get("attention.head_count_kv", heads)
    if isinstance(heads, Array) or isinstance(kept, Array) or not heads:  # of each layer its own
        return None
    size = told.get("embedding_length", 0) // heads
    parts = told.get("attention.key_length", size) + told.get("attention.value_length", size)
    positions = -(-context // _CELLS) * _CELLS
    return int(positions * told["block_count"] * kept * parts * 2)
