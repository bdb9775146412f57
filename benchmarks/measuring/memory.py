"""Memory of a process: peak, before and after loading a model, and the size of the KV cache.

Resident memory is of two kinds: anonymous, the process's own, and file-backed, which the kernel can reclaim and read
again. Linux reports both; elsewhere only the peak is known.
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
_EVERY_S = 0.005  # a reading takes about 25 microseconds
_CELLS = 256  # positions; llama.cpp allocates multiples of it
# Keys of architectures whose cache is not keys and values of equal size in all layers.
_UNLIKE = (
    "ssm.",
    "wkv.",
    "shortconv.",
    "attention.kv_lora_rank",
    "attention.shared_kv_layers",
    "attention.key_length_",
)


class Watermark:
    """The largest RssAnon and RssFile seen, each separately; None where the system does not report them."""

    def __init__(self) -> None:
        now = resident("self")
        self.before_bytes: int | None = sum(now[kind] for kind in _KINDS) if now else None
        """Resident at creation."""
        self._seen = {kind: now.get(kind) for kind in _KINDS}

    @property
    def anonymous_bytes(self) -> int | None:
        return self._seen["RssAnon"]

    @property
    def file_bytes(self) -> int | None:
        return self._seen["RssFile"]

    def look(self) -> None:
        """Update from the current resident memory."""
        for kind, count in resident("self").items():
            if kind in self._seen:
                self._seen[kind] = max(count, self._seen[kind] or 0)

    @contextmanager
    def sample(self) -> Iterator[None]:
        """Update every few milliseconds from a thread, to see short-lived memory too."""
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
    """The peak resident memory of this process; None where the system does not report it (Windows)."""
    if found := resident("self").get("VmHWM"):
        return found
    try:
        import resource
    except ModuleNotFoundError:
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def cache_bytes(path: Path, context: int) -> int | None:
    """Bytes of a model's KV cache at `context` positions: in llama.cpp allocated at once, in float16; in onnxruntime
    grown step by step for one sequence, in float32. None where the header does not say.

    Raises ModelError for a file that is damaged.
    """
    if path.is_dir():
        return context * signature(onnx_folder.check_confined(path), path / "model.onnx").bytes_per_position
    header = gguf_header.check(path)
    prefix = f"{header['general.architecture']}."
    if any(key.startswith(tuple(prefix + part for part in _UNLIKE)) for key in header):
        return None
    return _of_layers({key.removeprefix(prefix): value for key, value in header.items()}, context)


def _of_layers(header: dict[str, Any], context: int) -> int | None:
    heads = header.get("attention.head_count")
    kept = header.get("attention.head_count_kv", heads)
    if isinstance(heads, Array) or isinstance(kept, Array) or not heads:  # differs by layer
        return None
    size = header.get("embedding_length", 0) // heads
    parts = header.get("attention.key_length", size) + header.get("attention.value_length", size)
    positions = -(-context // _CELLS) * _CELLS
    return int(positions * header["block_count"] * kept * parts * 2)
