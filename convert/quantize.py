"""Quantization by llama.cpp itself, and what it made of the tensors."""

from __future__ import annotations

import ctypes
import os
from collections import Counter
from pathlib import Path

import llama_cpp.llama_cpp as lib
from gguf import LlamaFileType

from bioner_edge import gguf_header
from bioner_edge.errors import ModelError

__all__ = ["LEVELS", "quantize", "tensor_mix"]

# Level -> llama.cpp's number for it. F32 and F16 are written by `gguf`, the others by `quantize`.
LEVELS = {
    "F32": LlamaFileType.ALL_F32,
    "F16": LlamaFileType.MOSTLY_F16,
    "Q8_0": LlamaFileType.MOSTLY_Q8_0,
}

_ERROR = 3  # GGML_LOG_LEVEL_ERROR
_reasons: list[str] = []


@lib.llama_log_callback  # type: ignore[untyped-decorator]
def _log(level: int, text: bytes, data: object) -> None:
    """Keeps what went wrong; at module level because llama.cpp keeps the pointer."""
    if level == _ERROR:
        _reasons.append(text.decode(errors="replace").strip())


def quantize(source: Path, out: Path, level: str) -> None:
    """Quantize the F32 file `source` to `out`, which is not complete until this returns.

    Raises ModelError where llama.cpp refuses, with its reason.
    """
    settings = lib.llama_model_quantize_default_params()
    wanted = {"nthread": os.cpu_count() or 1, "ftype": int(LEVELS[level])}
    there = {field[0] for field in settings._fields_}
    for name, value in wanted.items():
        if name not in there:  # ctypes takes an unknown name without a word, and would quantize to a default level
            raise ModelError(f"this llama-cpp-python has no {name}; install the one in pyproject.toml")
        setattr(settings, name, value)
    _reasons.clear()
    lib.llama_log_set(_log, ctypes.c_void_p())
    if lib.llama_model_quantize(str(source).encode(), str(out).encode(), ctypes.byref(settings)):
        raise ModelError(
            f"{source}: llama.cpp cannot quantize it to {level}: {' '.join(_reasons) or 'no reason given'}"
        )


def tensor_mix(path: Path) -> tuple[dict[str, int], float]:
    """How many tensors of a GGUF have which type, and the bits per weight over all of them."""
    tensors = gguf_header.read(path).tensors
    mix = dict(Counter(tensor.type for tensor in tensors).most_common())
    return mix, 8 * sum(tensor.bytes for tensor in tensors) / sum(tensor.weights for tensor in tensors)
