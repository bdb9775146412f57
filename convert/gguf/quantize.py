"""Quantization by llama.cpp itself, and what it made of the tensors.

A file is written by native code that aborts the process, or goes on in silence, at some of what it is given: so names,
types, widths and importances are held against the header of the source here first, and what was written is read again.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from gguf import LlamaFileType
from numpy.typing import NDArray

from bioner_edge.backends.native import lib, listen, reason, set_fields
from bioner_edge.errors import ModelError, UsageError, unknown_name
from bioner_edge.hardware.threads import cores
from bioner_edge.models import gguf_header

__all__ = ["FLOATS", "LEVELS", "TENSOR_TYPES", "check", "parse_tensor_types", "quantize", "tensor_mix"]

# Level -> llama.cpp's number for it.
LEVELS = {
    "F32": LlamaFileType.ALL_F32,
    "F16": LlamaFileType.MOSTLY_F16,
    "BF16": LlamaFileType.MOSTLY_BF16,
    "Q8_0": LlamaFileType.MOSTLY_Q8_0,
    "Q6_K": LlamaFileType.MOSTLY_Q6_K,
    "Q5_K_M": LlamaFileType.MOSTLY_Q5_K_M,
    "Q4_K_M": LlamaFileType.MOSTLY_Q4_K_M,
    "Q4_0": LlamaFileType.MOSTLY_Q4_0,
    "IQ4_XS": LlamaFileType.MOSTLY_IQ4_XS,
}
FLOATS = ("F32", "F16", "BF16")
# The types that a single tensor can be given, best first: those that need no importance matrix.
TENSOR_TYPES = (
    *FLOATS, "Q8_0", "Q6_K", "Q5_K", "Q5_1", "Q5_0",
    "Q4_K", "Q4_1", "Q4_0", "IQ4_NL", "IQ4_XS", "Q3_K", "IQ3_S", "Q2_K",
)  # fmt: skip
_BLOCKS = {name: (number, block) for number, (name, block, _) in gguf_header.BLOCKS.items()}

Importance = Mapping[str, NDArray[np.float32]]
Tensors = Mapping[str, gguf_header.Tensor]


def parse_tensor_types(arguments: Sequence[str]) -> dict[str, str]:
    """`REGEX=TYPE` arguments as a mapping, in their order.

    Raises UsageError for one without a type, an unknown type and what is no regular expression.
    """
    found: dict[str, str] = {}
    for argument in arguments:
        pattern, equals, kind = argument.rpartition("=")
        if not equals or not pattern:
            raise UsageError(f"tensor type {argument!r}: write REGEX=TYPE, such as 'ffn_down=Q6_K'")
        _pattern(pattern, kind)
        found[pattern] = kind
    return found


def quantize(
    source: Path,
    out: Path,
    level: str,
    *,
    importance: Importance | None = None,
    tensor_types: Mapping[str, str] | None = None,
    threads: int | None = None,
) -> None:
    """Quantize the F32 file `source` to `out`, which is not complete until this returns.

    `importance` holds the mean square of each input of a matrix, by the name of its tensor; shape: (inputs,).
    `tensor_types` maps a regular expression to the type of the tensors in whose names it is found; the first that fits
    counts. `threads` are all cores of this process where it is not given. Ctrl-C is heard once llama.cpp is done.

    Raises UsageError for tensor types that cannot be had, ModelError where llama.cpp refuses, with its reason, and
    where `out` cannot be written; then there is no `out`.
    """
    tensors = _tensors(source)
    chosen = _chosen(tensors, tensor_types or {}, level)
    settings = lib.llama_model_quantize_default_params()
    set_fields(settings, nthread=threads or cores(), ftype=int(LEVELS[level]))
    if chosen:
        set_fields(settings, tt_overrides=_overrides(chosen))
    if importance:
        set_fields(settings, imatrix=_matrices(importance, tensors, source))
    _writable(source, out)
    try:
        with _interrupts_later():
            listen()
            failed = lib.llama_model_quantize(os.fsencode(source), os.fsencode(out), ctypes.byref(settings))
        if failed:
            raise ModelError(_why(source, out, level))
        _as_asked(out, level, chosen)
    except BaseException:
        out.unlink(missing_ok=True)
        raise


def check(source: Path, level: str, tensor_types: Mapping[str, str]) -> None:
    """Raises UsageError where `quantize` would, for tensor types that cannot be had."""
    _chosen(_tensors(source), tensor_types, level)


def _tensors(source: Path) -> dict[str, gguf_header.Tensor]:
    return {tensor.name: tensor for tensor in gguf_header.read(source).tensors}


def tensor_mix(path: Path) -> tuple[dict[str, int], float]:
    """How many tensors of a GGUF have which type, and the bits per weight over all of them."""
    tensors = gguf_header.read(path).tensors
    mix = dict(Counter(tensor.type for tensor in tensors).most_common())
    return mix, 8 * sum(tensor.bytes for tensor in tensors) / sum(tensor.weights for tensor in tensors)


# --- Types of single tensors. Patterns are read by Python; llama.cpp, which has another dialect, gets whole names.


def _pattern(pattern: str, kind: str) -> re.Pattern[str]:
    if kind not in TENSOR_TYPES:
        raise UsageError(unknown_name("tensor type", kind, TENSOR_TYPES))
    try:
        return re.compile(pattern)
    except re.error as error:
        raise UsageError(f"tensor type {pattern!r}: not a regular expression: {error}") from None


def _chosen(tensors: Tensors, wanted: Mapping[str, str], level: str) -> dict[str, str]:
    """The name of each tensor whose type is chosen -> that type. Raises UsageError where a wish cannot be met."""
    if wanted and level in FLOATS:
        raise UsageError(f"the tensors of {level} cannot be given types of their own; take a quantized level")
    matrices = [name for name, tensor in tensors.items() if _quantizable(tensor)]
    chosen: dict[str, str] = {}
    for pattern, kind in wanted.items():
        regex = _pattern(pattern, kind)
        matching = [name for name in matrices if regex.search(name)]
        if not matching:
            some = ", ".join(sorted(matrices, key=lambda name: ("blk." in name, name))[:12])
            raise UsageError(f"tensor type {pattern!r}: found in no matrix's name; some names: {some}")
        if not (new := [name for name in matching if name not in chosen]):
            raise UsageError(f"tensor type {pattern!r}: all that it matches has a type already; put it first")
        for name in new:
            _fits(tensors[name], kind)
        chosen |= dict.fromkeys(new, kind)
    return chosen


def _quantizable(tensor: gguf_header.Tensor) -> bool:
    """llama.cpp's own rule, for the tensors that the architectures here have."""
    return len(tensor.shape) > 1 and tensor.name.endswith("weight") and "_norm.weight" not in tensor.name


def _fits(tensor: gguf_header.Tensor, kind: str) -> None:
    """Raises UsageError where rows cannot be cut into blocks of `kind`: llama.cpp would take another type."""
    width = tensor.shape[0]
    if width % _BLOCKS[kind][1]:
        fitting = ", ".join(name for name in TENSOR_TYPES if not width % _BLOCKS[name][1])
        message = f"has rows of {width}, {kind} needs a multiple of {_BLOCKS[kind][1]}"
        raise UsageError(f"tensor type {kind}: {tensor.name} {message}; take one of {fitting}")


def _overrides(chosen: Mapping[str, str]) -> Any:
    """An array that ends with an empty row. A dot stands for whatever is no letter, so nothing needs an escape."""
    row = lib.llama_model_tensor_override
    exact = {name: b"^" + re.sub(rb"\W", b".", name.encode()) + b"$" for name in chosen}
    return (row * (len(chosen) + 1))(*(row(exact[name], _BLOCKS[kind][0]) for name, kind in chosen.items()))


# --- Importances


def _matrices(importance: Importance, tensors: Tensors, source: Path) -> Any:
    """An array that ends with an empty row.

    Raises ModelError for what llama.cpp would pass over: an unknown name, another number of inputs.
    """
    rows = []
    for name, values in importance.items():
        if name not in tensors or not _quantizable(tensors[name]):
            raise ModelError(f"{source}: has no matrix {name!r}, for which there is an importance; compute it again")
        if values.shape != (width := tensors[name].shape[:1]):
            message = f"the importance of {name!r} has shape {values.shape}, its inputs {width}"
            raise ModelError(f"{source}: {message}; compute it again")
        if not np.isfinite(values).all() or values.min() < 0:
            raise ModelError(f"{source}: the importance of {name!r} is not finite and positive; compute it again")
        held = np.ctypeslib.as_ctypes(np.ascontiguousarray(values, np.float32))  # unlike a pointer, it is kept alive
        rows.append(lib.llama_model_imatrix_data(name.encode(), held, values.size))
    return (lib.llama_model_imatrix_data * (len(rows) + 1))(*rows)


# --- Native code


def _writable(source: Path, out: Path) -> None:
    """Raises UsageError where `out` is the source, ModelError, with the reason, where it cannot be opened."""
    if out.exists() and out.samefile(source):
        raise UsageError(f"{out}: is the file that is read; write to another one")
    try:
        out.open("wb").close()
    except OSError as error:
        raise ModelError(f"{out}: cannot be written: {error.strerror}") from None


def _why(source: Path, out: Path, level: str) -> str:
    """What went wrong. Of a full disk llama.cpp says no more than that a stream failed."""
    if "iostream" in reason():
        room = shutil.disk_usage(out.parent).free
        return f"{out}: could be written in part only, {room:,} bytes are free there; make room"
    return f"{source}: llama.cpp cannot quantize it to {level}: {reason()}"


def _as_asked(out: Path, level: str, chosen: Mapping[str, str]) -> None:
    """Raises ModelError where llama.cpp took other types, as it does without an error where rows fit no block."""
    tensors = gguf_header.read(out).tensors
    for tensor in tensors:
        if (kind := chosen.get(tensor.name, tensor.type)) != tensor.type:
            message = f"llama.cpp made {tensor.name} {tensor.type}, not {kind}"
            raise ModelError(f"{out}: {message}; leave that tensor type out")
    free = [tensor for tensor in tensors if _quantizable(tensor) and tensor.name not in chosen]
    if level not in FLOATS and free and all(tensor.type in FLOATS for tensor in free):
        widths = ", ".join(map(str, sorted({tensor.shape[0] for tensor in free})))
        raise ModelError(f"{out}: rows of {widths} weights cannot be cut into {level}'s blocks; take F16 instead")


@contextmanager
def _interrupts_later() -> Iterator[None]:
    """Holds Ctrl-C back, which would be lost inside the callback that hears llama.cpp's messages."""
    if threading.current_thread() is not threading.main_thread():
        yield  # the signal goes to the main thread
        return
    pressed: list[int] = []
    remember: Callable[[int, Any], None] = lambda number, frame: pressed.append(number)  # noqa: E731
    before = signal.signal(signal.SIGINT, remember)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        signal.raise_signal(signal.SIGINT)
