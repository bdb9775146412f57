"""How much memory a model needs, and how much there is: a model that cannot fit is refused before it is loaded.

What is free is what the system says that it can give without swapping, what the control groups that the process lives
in (containers, systemd) leave of their limits, and what is left of `ulimit -v`, whichever is least.

What is needed is estimated from the headers alone, beside what the process has already:

    GGUF    tensors + cache + vocabulary + 512 rows of activations
    ONNX    weights as onnxruntime holds them + caches + tokenizer + 256 rows of activations and attention scores

llama.cpp holds each tensor once. onnxruntime packs what it multiplies by anew: matrices in float32 at their own size,
those in blocks with their scales twice, the scales of the file staying mapped; what is looked up too, as an embedding
that is the output matrix, stays mapped beside the packed copy.

Held against the peak RSS (VmHWM, Linux) of processes that filled a context of 2048 tokens and branched off, of random
weights in the shape of Qwen2.5-0.5B: GGUF F32, Q8_0, Q4_K_M, Q4_0, IQ4_XS 0.94 to 0.99 of it; ONNX of both exporters at
F32, int8, int4 0.93 to 1.10. Of what such a process took beside Python and its libraries: 1.01 to 1.18.
`tests/test_memory.py` measures small models again.
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

_CONTEXT = 2048  # tokens that the back ends take where a model was trained for more
_LIBRARY = {"gguf": 12 << 20, "onnx": 32 << 20}  # bytes of code and of what a library keeps of its own
_ROWS = {"gguf": 512, "onnx": 256}  # tokens that are read at once
_TOKEN, _MERGE = 200, 140  # bytes that llama.cpp keeps for each
_TOKENIZER = 20  # bytes that the tokenizers library keeps for each of tokenizer.json
_CACHES = {"shared": 2, "grown": 3}  # filled at once: a prompt and an answer that branches off, and the past of a step
_SCORES = {"shared": 1, "grown": 3}  # copies of the attention's scores: before, with the mask, after the softmax
_IN_BLOCKS = "com.microsoft.MatMulNBits"
_MULTIPLY = ("MatMul", "Gemm", "com.microsoft.FusedMatMul", _IN_BLOCKS)  # by their second input, which is packed
_NO_LIMIT = 1 << 60  # version 1 of control groups writes a number like this for none


def refuse_larger(path: Path, force: bool = False, context: int | None = None) -> None:
    """Raises ModelError where a model needs more memory than there is, unless `force` asks to try."""
    free = None if force else available()
    if free is not None and (asked := estimate(path, context)) > free:
        message = f"needs about {_gb(asked)} of memory, {_gb(free)} are free"
        raise ModelError(f"{path}: {message}; take a smaller level, or --force to try")


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


# --- What there is


def available(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Bytes that this process may still take; None where nothing tells, as on macOS and Windows."""
    found = [*_of_system(proc / "meminfo"), *_of_groups(proc / "self" / "cgroup", groups), *_of_limit(proc)]
    return max(0, min(found)) if found else None


def _of_system(path: Path) -> Iterator[int]:
    """What the kernel can give without swapping."""
    for line in system_text(path).splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable" and value.split()[:1] != []:
            yield int(value.split()[0]) * 1024


def _of_groups(own: Path, root: Path) -> Iterator[int]:
    """What the groups of this process leave, its own and those that hold it; either version of the kernel's files."""
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
        for group in (folder, *folder.parents):  # in a container the path may be one that only the host sees
            yield from _of_group(group, *names)
            if group == mounted:
                break


def _of_group(folder: Path, limit: str, used: str, cached: str) -> Iterator[int]:
    """What a group leaves of its limit, if it has one; cached files that nobody has touched lately can go."""
    most, now = system_text(folder / limit).strip(), system_text(folder / used).strip()
    if most.isdecimal() and now.isdecimal() and int(most) < _NO_LIMIT:
        rows = (line.split() for line in system_text(folder / "memory.stat").splitlines())
        yield int(most) - int(now) + sum(int(row[1]) for row in rows if row[:1] == [cached])


def _of_limit(proc: Path) -> Iterator[int]:
    """What is left of the limit on addresses, `ulimit -v`."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return
    most = resource.getrlimit(resource.RLIMIT_AS)[0]
    if most != resource.RLIM_INFINITY:
        pages = (system_text(proc / "self" / "statm").split() or ["0"])[0]
        yield most - int(pages) * os.sysconf("SC_PAGE_SIZE")


# --- What is needed


def estimate(path: Path, context: int | None = None) -> int:
    """Bytes that loading and running a model takes, estimated; `context` in tokens, by default as the back ends do.

    Raises ModelError for a file that is damaged.
    """
    return _of_onnx(path, context) if path.is_dir() else _of_gguf(path, context)


def _of_gguf(path: Path, context: int | None) -> int:
    header = gguf_header.read(path)
    told = header.metadata
    prefix = told["general.architecture"]

    def number(key: str, default: int) -> int:
        value = told.get(f"{prefix}.{key}", default)
        return value if isinstance(value, int) and value > 0 else default  # an array has one for each layer

    heads, width = number("attention.head_count", 1), number("embedding_length", 0)
    size = width // heads
    parts = number("attention.key_length", size) + number("attention.value_length", size)
    positions = context or min(number("context_length", _CONTEXT), _CONTEXT)
    cache = positions * number("block_count", 0) * number("attention.head_count_kv", heads) * parts * 2  # float16
    row = 4 * (4 * width + 3 * number("feed_forward_length", 0))
    words = _TOKEN * _length(told, "tokens") + _MERGE * _length(told, "merges")
    tensors = sum(tensor.bytes for tensor in header.tensors)
    return tensors + cache + words + _ROWS["gguf"] * row + _LIBRARY["gguf"]


def _length(told: Mapping[str, Any], key: str) -> int:
    value = told.get(f"tokenizer.ggml.{key}")
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
    return _held(graph) + run + _TOKENIZER * (tokenizer.stat().st_size if tokenizer.is_file() else 0) + _LIBRARY["onnx"]


def _at(shape: tuple[int | str, ...], axis: int) -> int:
    """A dimension; 0 where there is none, or it may be any."""
    size = shape[axis] if axis < len(shape) else 0
    return size if isinstance(size, int) and size > 0 else 0


def _held(graph: Graph) -> int:
    """Bytes of the tensors as onnxruntime holds them; what several share is mapped once."""
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
    """(the width between the layers, the widest matrix); the output matrix, of `words`, is none."""
    names = {node.inputs[1] for node in graph.nodes if node.operator in _MULTIPLY and len(node.inputs) > 1}
    shapes = [tensor.shape for tensor in graph.tensors if tensor.name in names and len(tensor.shape) == 2]
    shapes += [_matrix(node) for node in graph.nodes if node.operator == _IN_BLOCKS]
    hidden = max((min(shape) for shape in shapes if words in shape), default=0)
    return hidden, max((max(shape) for shape in shapes if words not in shape), default=0)


def _matrix(node: Node) -> tuple[int, int]:
    return node.numbers.get("N", 0), node.numbers.get("K", 0)
