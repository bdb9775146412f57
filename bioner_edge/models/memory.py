"""Estimate a model's memory and the free memory: a model that cannot fit is refused before it is loaded.

Free memory is the least of what the system can provide without swapping, what the control groups of the process
(containers, systemd) leave of their limits, and what is left of `ulimit -v`.

The memory needed, in addition to that of the process, is estimated from the headers alone:

    GGUF    tensors + cache + vocabulary + 512 rows of activations
    ONNX    weights as onnxruntime holds them + caches + tokenizer + 256 rows of activations and attention scores

llama.cpp holds each tensor once. onnxruntime repacks the matrices it multiplies by: float32 ones at their own size,
block-quantized ones with their scales twice, while the file's scales stay mapped; a tensor that is also looked up, such
as an embedding tied to the output matrix, stays mapped beside its packed copy.

Compared with the peak RSS (VmHWM, Linux) of processes that filled a context of 2048 tokens and forked a sequence, with
random weights in the shape of Qwen2.5-0.5B: GGUF F32, Q8_0, Q4_K_M, Q4_0, IQ4_XS 0.94 to 0.99 of it; ONNX of both
exporters at F32, int8, int4 0.93 to 1.10. Without the memory of Python and its libraries: 1.01 to 1.18.
`tests/models/test_memory.py` repeats the measurement on small models.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bioner_edge.errors import ModelError
from bioner_edge.hardware.threads import system_text
from bioner_edge.models import gguf_header
from bioner_edge.models.gguf_header import Array
from bioner_edge.models.onnx import folder as onnx_folder
from bioner_edge.models.onnx.graph import Graph, Node, Tensor

__all__ = ["available", "estimate", "refuse_larger"]

_CONTEXT = 2048  # tokens, the back ends' default for models that were trained for more
_LIBRARY = {"gguf": 12 << 20, "onnx": 32 << 20}  # bytes of a library's code and own data
_ROWS = {"gguf": 512, "onnx": 256}  # tokens that are read at once
_TOKEN, _MERGE = 200, 140  # bytes that llama.cpp keeps for each
_TOKENIZER = 20  # bytes that the tokenizers library keeps for each byte of tokenizer.json
_CACHES = {"shared": 2, "grown": 3}  # filled at once: a prompt, an answer forked from it, and the past of a step
_SCORES = {"shared": 1, "grown": 3}  # copies of the attention scores: before, with the mask, after the softmax
_IN_BLOCKS = "com.microsoft.MatMulNBits"
_MULTIPLY = ("MatMul", "Gemm", "com.microsoft.FusedMatMul", _IN_BLOCKS)  # by their second input, which is packed
_NO_LIMIT = 1 << 60  # version 1 of control groups writes a number like this for "no limit"


def refuse_larger(path: Path, force: bool = False, context: int | None = None) -> None:
    """Raise ModelError if a model needs more memory than is free, unless `force`."""
    free = None if force else available()
    if free is not None and (needed := estimate(path, context)) > free:
        message = f"needs about {_gb(needed)} of memory, {_gb(free)} are free"
        raise ModelError(f"{path}: {message}; use a smaller level, or --force to try")


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


# --- Free memory


def available(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Bytes that this process can still allocate; None if unknown, as on macOS and Windows."""
    found = [*_of_system(proc / "meminfo"), *_of_groups(proc / "self" / "cgroup", groups), *_of_limit(proc)]
    return max(0, min(found)) if found else None


def _of_system(path: Path) -> Iterator[int]:
    """Bytes that the kernel can provide without swapping."""
    for line in system_text(path).splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable" and value.split()[:1] != []:
            yield int(value.split()[0]) * 1024


def _of_groups(own: Path, root: Path) -> Iterator[int]:
    """Bytes left by the control groups of this process and their parents, of either version."""
    for line in system_text(own).splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers == "":
            mounted, names = root, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            mounted = root / "memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        folder = mounted / path.lstrip("/")
        for group in (folder, *folder.parents):  # in a container the path may exist only on the host
            yield from _of_group(group, *names)
            if group == mounted:
                break


def _of_group(folder: Path, limit: str, used: str, cached: str) -> Iterator[int]:
    """Bytes that a group leaves of its limit, if it has one; inactive cached files can be evicted."""
    most, now = system_text(folder / limit).strip(), system_text(folder / used).strip()
    if most.isdecimal() and now.isdecimal() and int(most) < _NO_LIMIT:
        rows = (line.split() for line in system_text(folder / "memory.stat").splitlines())
        yield int(most) - int(now) + sum(int(row[1]) for row in rows if row[:1] == [cached])


def _of_limit(proc: Path) -> Iterator[int]:
    """Bytes left of the limit on address space, `ulimit -v`."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return
    most = resource.getrlimit(resource.RLIMIT_AS)[0]
    if most != resource.RLIM_INFINITY:
        pages = (system_text(proc / "self" / "statm").split() or ["0"])[0]
        yield most - int(pages) * os.sysconf("SC_PAGE_SIZE")


# --- Memory needed


def estimate(path: Path, context: int | None = None) -> int:
    """Estimate the bytes that a model takes when loaded and run; `context` in tokens, by default the back ends'.

    Raises ModelError for a damaged file.
    """
    return _of_onnx(path, context) if path.is_dir() else _of_gguf(path, context)


def _of_gguf(path: Path, context: int | None) -> int:
    header = gguf_header.read(path)
    metadata = header.metadata
    prefix = metadata["general.architecture"]

    def number(key: str, default: int) -> int:
        value = metadata.get(f"{prefix}.{key}", default)
        return value if isinstance(value, int) and value > 0 else default  # an array has one for each layer

    heads, width = number("attention.head_count", 1), number("embedding_length", 0)
    size = width // heads
    parts = number("attention.key_length", size) + number("attention.value_length", size)
    positions = context or min(number("context_length", _CONTEXT), _CONTEXT)
    cache = positions * number("block_count", 0) * number("attention.head_count_kv", heads) * parts * 2  # float16
    row = 4 * (4 * width + 3 * number("feed_forward_length", 0))
    words = _TOKEN * _length(metadata, "tokens") + _MERGE * _length(metadata, "merges")
    tensors = sum(tensor.bytes for tensor in header.tensors)
    return tensors + cache + words + _ROWS["gguf"] * row + _LIBRARY["gguf"]


def _length(metadata: Mapping[str, Any], key: str) -> int:
    value = metadata.get(f"tokenizer.ggml.{key}")
    return value.length if isinstance(value, Array) else 0


def _of_onnx(folder: Path, context: int | None) -> int:
    graph, runtime = onnx_folder.check_confined(folder), onnx_folder.Runtime.load(folder)
    kind, positions, rows = runtime.cache, context or min(runtime.context, _CONTEXT), _ROWS["onnx"]
    logits = next((value.shape for value in graph.outputs if value.name == "logits"), ())
    words, pruned = _at(logits, 2), _at(logits, 1) == 1
    pasts = [value.shape for value in graph.inputs if value.name.startswith("past_key_values.")]
    cache = positions * sum(4 * _at(shape, 1) * _at(shape, 3) for shape in pasts)
    hidden, widest = _widths(graph, words)
    by_width = -(-hidden // max(1, _at(pasts[0], 3))) if pasts else 0
    heads = max((node.numbers.get("num_heads", 0) for node in graph.nodes), default=0) or by_width
    scores = 4 * rows * heads * positions
    run = _CACHES[kind] * cache + _SCORES[kind] * scores + 4 * rows * (6 * widest + (0 if pruned else words))
    tokenizer = folder / "tokenizer.json"
    return (
        _resident_bytes(graph)
        + run
        + _TOKENIZER * (tokenizer.stat().st_size if tokenizer.is_file() else 0)
        + _LIBRARY["onnx"]
    )


def _at(shape: tuple[int | str, ...], axis: int) -> int:
    """The size of a dimension; 0 if it is missing or variable."""
    size = shape[axis] if axis < len(shape) else 0
    return size if isinstance(size, int) and size > 0 else 0


def _resident_bytes(graph: Graph) -> int:
    """Bytes of the tensors as onnxruntime holds them; shared data are mapped once."""
    packed, scales, read = set[str](), set[str](), set[str]()
    for node in graph.nodes:
        for place, name in enumerate(node.inputs):
            matrix = node.operator in _MULTIPLY and place == 1
            beside = node.operator == _IN_BLOCKS and place > 1
            (packed if matrix else scales if beside else read).add(name)
    total = sum(tensor.bytes * ((tensor.name in packed) + 3 * (tensor.name in scales)) for tensor in graph.tensors)
    mapped = {_place(tensor): tensor.bytes for tensor in graph.tensors if tensor.name in read or not tensor.initializer}
    return total + sum(mapped.values())


def _place(tensor: Tensor) -> object:
    return tensor.external or (tensor.name, tensor.initializer)


def _widths(graph: Graph, words: int) -> tuple[int, int]:
    """(the width between the layers, that of the widest matrix), without the output matrix, which has `words` rows."""
    names = {node.inputs[1] for node in graph.nodes if node.operator in _MULTIPLY and len(node.inputs) > 1}
    shapes = [tensor.shape for tensor in graph.tensors if tensor.name in names and len(tensor.shape) == 2]
    shapes += [_matrix(node) for node in graph.nodes if node.operator == _IN_BLOCKS]
    hidden = max((min(shape) for shape in shapes if words in shape), default=0)
    return hidden, max((max(shape) for shape in shapes if words not in shape), default=0)


def _matrix(node: Node) -> tuple[int, int]:
    return node.numbers.get("N", 0), node.numbers.get("K", 0)
