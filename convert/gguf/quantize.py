"""Quantize with llama.cpp, and check the tensor types that it wrote.

llama.cpp aborts the process, or continues silently, on some invalid arguments. So names, types, widths and importances
are checked against the source's header first, and the written file is read back.
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

# Level -> llama.cpp's file type number.
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
# Types that can be chosen for single tensors, best first: those that need no importance matrix.
TENSOR_TYPES = (
    *FLOATS, "Q8_0", "Q6_K", "Q5_K", "Q5_1", "Q5_0",
    "Q4_K", "Q4_1", "Q4_0", "IQ4_NL", "IQ4_XS", "Q3_K", "IQ3_S", "Q2_K",
)  # fmt: skip
_BLOCKS = {name: (number, block) for number, (name, block, _) in gguf_header.BLOCKS.items()}

Importance = Mapping[str, NDArray[np.float32]]
Tensors = Mapping[str, gguf_header.Tensor]


def parse_tensor_types(arguments: Sequence[str]) -> dict[str, str]:
    """`REGEX=TYPE` arguments as a mapping, in their order.

    Raises UsageError for a missing or unknown type and an invalid regular expression.
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
    """Quantize the F32 file `source` to `out`, which is complete only when this returns.

    `importance` holds the mean square of each input of a matrix, by tensor name; shape: (inputs,). `tensor_types` maps
    regular expressions to the type of the tensors whose names they match; the first match counts. `threads` defaults to
    the cores of this process. Ctrl-C takes effect once llama.cpp is done.

    Raises UsageError for tensor types that are not possible, ModelError where llama.cpp fails, with its reason, and
    where `out` cannot be written; `out` is then removed.
    """
    tensors = _tensors(source)
    chosen = _tensor_types(tensors, tensor_types or {}, level)
    settings = lib.llama_model_quantize_default_params()
    set_fields(settings, nthread=threads or cores(), ftype=int(LEVELS[level]))
    if chosen:
        set_fields(settings, tt_overrides=_overrides(chosen))
    if importance:
        set_fields(settings, imatrix=_matrices(importance, tensors, source))
    _check_writable(source, out)
    try:
        with _defer_interrupts():
            listen()
            failed = lib.llama_model_quantize(os.fsencode(source), os.fsencode(out), ctypes.byref(settings))
        if failed:
            raise ModelError(_failure_reason(source, out, level))
        _check_types(out, level, chosen)
    except BaseException:
        out.unlink(missing_ok=True)
        raise


def check(source: Path, level: str, tensor_types: Mapping[str, str]) -> None:
    """Raises UsageError for tensor types that `quantize` would refuse."""
    _tensor_types(_tensors(source), tensor_types, level)


def _tensors(source: Path) -> dict[str, gguf_header.Tensor]:
    return {tensor.name: tensor for tensor in gguf_header.read(source).tensors}


def tensor_mix(path: Path) -> tuple[dict[str, int], float]:
    """The number of tensors by type in a GGUF, and its bits per weight over all of them."""
    tensors = gguf_header.read(path).tensors
    mix = dict(Counter(tensor.type for tensor in tensors).most_common())
    return mix, 8 * sum(tensor.bytes for tensor in tensors) / sum(tensor.weights for tensor in tensors)


# --- Types of single tensors. Python matches the patterns; llama.cpp, whose regex dialect differs, gets full names.


def _pattern(pattern: str, kind: str) -> re.Pattern[str]:
    if kind not in TENSOR_TYPES:
        raise UsageError(unknown_name("tensor type", kind, TENSOR_TYPES))
    try:
        return re.compile(pattern)
    except re.error as error:
        raise UsageError(f"tensor type {pattern!r}: not a regular expression: {error}") from None


def _tensor_types(tensors: Tensors, requested: Mapping[str, str], level: str) -> dict[str, str]:
    """Tensor name -> requested type. Raises UsageError for a request that cannot be met."""
    if requested and level in FLOATS:
        raise UsageError(f"the tensors of {level} cannot have other types; choose a quantized level")
    matrices = [name for name, tensor in tensors.items() if _quantizable(tensor)]
    chosen: dict[str, str] = {}
    for pattern, kind in requested.items():
        regex = _pattern(pattern, kind)
        matching = [name for name in matrices if regex.search(name)]
        if not matching:
            some = ", ".join(sorted(matrices, key=lambda name: ("blk." in name, name))[:12])
            raise UsageError(f"tensor type {pattern!r}: matches no matrix; some names: {some}")
        if not (new := [name for name in matching if name not in chosen]):
            raise UsageError(f"tensor type {pattern!r}: everything it matches already has a type; put it first")
        for name in new:
            _check_width(tensors[name], kind)
        chosen |= dict.fromkeys(new, kind)
    return chosen


def _quantizable(tensor: gguf_header.Tensor) -> bool:
    """llama.cpp's own rule, for the tensors of the supported architectures."""
    return len(tensor.shape) > 1 and tensor.name.endswith("weight") and "_norm.weight" not in tensor.name


def _check_width(tensor: gguf_header.Tensor, kind: str) -> None:
    """Raises UsageError where rows are not a multiple of the block size of `kind`: llama.cpp would use another type."""
    width = tensor.shape[0]
    if width % _BLOCKS[kind][1]:
        fitting = ", ".join(name for name in TENSOR_TYPES if not width % _BLOCKS[name][1])
        message = f"has rows of {width} weights, and {kind} needs a multiple of {_BLOCKS[kind][1]}"
        raise UsageError(f"tensor type {kind}: {tensor.name} {message}; choose one of {fitting}")


def _overrides(chosen: Mapping[str, str]) -> Any:
    """An array terminated by an empty row. A dot replaces each non-word character, so that nothing needs escaping."""
    row = lib.llama_model_tensor_override
    exact = {name: b"^" + re.sub(rb"\W", b".", name.encode()) + b"$" for name in chosen}
    return (row * (len(chosen) + 1))(*(row(exact[name], _BLOCKS[kind][0]) for name, kind in chosen.items()))


# --- Importances


def _matrices(importance: Importance, tensors: Tensors, source: Path) -> Any:
    """An array terminated by an empty row.

    Raises ModelError for what llama.cpp would silently skip: an unknown name, a wrong number of inputs.
    """
    rows = []
    for name, values in importance.items():
        if name not in tensors or not _quantizable(tensors[name]):
            raise ModelError(
                f"{source}: has no matrix {name!r}, which the importance matrix contains; compute it again"
            )
        if values.shape != (width := tensors[name].shape[:1]):
            message = f"the importance of {name!r} has shape {values.shape}, and its inputs {width}"
            raise ModelError(f"{source}: {message}; compute it again")
        if not np.isfinite(values).all() or values.min() < 0:
            raise ModelError(f"{source}: the importance of {name!r} is not finite and positive; compute it again")
        held = np.ctypeslib.as_ctypes(
            np.ascontiguousarray(values, np.float32)
        )  # unlike a pointer, it keeps the array alive
        rows.append(lib.llama_model_imatrix_data(name.encode(), held, values.size))
    return (lib.llama_model_imatrix_data * (len(rows) + 1))(*rows)


# --- Native code


def _check_writable(source: Path, out: Path) -> None:
    """Raises UsageError where `out` is the source, ModelError, with the reason, where it cannot be opened."""
    if out.exists() and out.samefile(source):
        raise UsageError(f"{out}: is the source file; write to another one")
    try:
        out.open("wb").close()
    except OSError as error:
        raise ModelError(f"{out}: cannot be written: {error.strerror}") from None


def _failure_reason(source: Path, out: Path, level: str) -> str:
    """Why llama.cpp failed. For a full disk it reports only a stream failure."""
    if "iostream" in reason():
        room = shutil.disk_usage(out.parent).free
        return f"{out}: could be written only in part; {room:,} bytes are free there, free disk space"
    return f"{source}: llama.cpp cannot quantize it to {level}: {reason()}"


def _check_types(out: Path, level: str, chosen: Mapping[str, str]) -> None:
    """Raises ModelError where llama.cpp used other types, as it silently does where rows do not fit the blocks."""
    tensors = gguf_header.read(out).tensors
    for tensor in tensors:
        if (kind := chosen.get(tensor.name, tensor.type)) != tensor.type:
            message = f"llama.cpp wrote {tensor.name} as {tensor.type}, not {kind}"
            raise ModelError(f"{out}: {message}; omit that tensor type")
    free = [tensor for tensor in tensors if _quantizable(tensor) and tensor.name not in chosen]
    if level not in FLOATS and free and all(tensor.type in FLOATS for tensor in free):
        widths = ", ".join(map(str, sorted({tensor.shape[0] for tensor in free})))
        raise ModelError(f"{out}: rows of {widths} weights do not fit the blocks of {level}; use F16")


@contextmanager
def _defer_interrupts() -> Iterator[None]:
    """Defer Ctrl-C, which would be lost inside the callback that receives llama.cpp's messages."""
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
