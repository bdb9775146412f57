"""Memory bandwidth, and the bytes of weights read per token: single-token decoding reads every weight, so bandwidth is
its limit.

    echo '{"threads": 2}' | python -P -m bioner_edge.benchmarks.measuring.bandwidth

copies a buffer on two cores and prints {"copy_bytes_per_s": …}: bytes read plus bytes written, the best of five,
counted as in STREAM (McCalpin 1995). A copy measures only copying: a machine that reads faster than it writes can
exceed it.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np

from bioner_edge.benchmarks.measuring.machine import pin
from bioner_edge.errors import BionerError
from bioner_edge.models import gguf_header, memory
from bioner_edge.models.onnx import folder as onnx_folder
from bioner_edge.models.onnx.graph import Graph
from bioner_edge.processes import end_with_parent

__all__ = ["buffer_bytes", "copy_bytes_per_s", "last_level_cache_bytes", "main", "step_bytes"]

_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_LEAST = 256 << 20  # bytes
_TIMES_CACHE = 8  # a buffer as large as the cache would partly stay in it
_MULTIPLY = ("MatMul", "Gemm", "com.microsoft.FusedMatMul", "com.microsoft.MatMulNBits")  # the second input, on
_RESHAPE = (
    "Cast",
    "DequantizeLinear",
    "Identity",
    "Reshape",
    "Transpose",
)  # operators between a matrix and its multiplication


def main() -> int:
    """Run the process: 0, or 2 for a number of threads that is not available."""
    try:
        rate = copy_bytes_per_s(json.load(sys.stdin)["threads"])
    except BionerError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps({"copy_bytes_per_s": rate}))
    return 0


# --- Memory bandwidth


def last_level_cache_bytes(folder: Path = _CACHES) -> int | None:
    """The largest cache of the first core; None where the system does not report it."""
    sizes = [_size(path) for path in folder.glob("index*/size")]
    return max(sizes, default=0) or None


def _size(path: Path) -> int:
    match = re.fullmatch(r"(\d+)([KMG]?)", path.read_text().strip())
    return int(match[1]) * _UNITS[match[2]] if match else 0


def buffer_bytes() -> int:
    """The size of the copied buffer: far larger than the caches, at most an eighth of the free memory, since source and
    target are both allocated."""
    size = max(_LEAST, _TIMES_CACHE * (last_level_cache_bytes() or 0))
    free = memory.available()
    return size if free is None else max(1 << 20, min(size, free // 8))


def copy_bytes_per_s(threads: int, *, bytes: int | None = None, repeats: int = 5) -> float:
    """Bytes read and written per second by a plain copy of `bytes` on `threads` cores, the best of `repeats`.

    Each thread copies its own share with numpy, which releases the GIL. Raises UsageError where this process does not
    have so many cores.
    """
    count = (bytes or buffer_bytes()) // 8
    source, target = np.ones(count), np.zeros(count)
    bounds = [count * n // threads for n in range(threads + 1)]
    shares = [slice(*edges) for edges in pairwise(bounds)]
    with pin(threads), ThreadPoolExecutor(threads) as pool:

        def copied() -> float:
            started = time.perf_counter()
            list(pool.map(lambda share: np.copyto(target[share], source[share]), shares))
            return time.perf_counter() - started

        copied()  # start the threads, map the target's pages
        return 16 * count / min(copied() for _ in range(repeats))


# --- Bytes that a model reads


def step_bytes(path: Path) -> int | None:
    """Bytes of weights read per token: all matrices, including the output's; only one row of an untied embedding. None
    where unknown, as for a mixture of experts.

    Raises ModelError for a file that is damaged.
    """
    return _of_onnx(onnx_folder.check_confined(path)) if path.is_dir() else _of_gguf(path)


def _of_gguf(path: Path) -> int | None:
    header = gguf_header.read(path)
    if f"{header.metadata['general.architecture']}.expert_count" in header.metadata:
        return None
    sizes = {tensor.name: tensor.bytes for tensor in header.tensors}
    return sum(sizes.values()) - (sizes.get("token_embd.weight", 0) if "output.weight" in sizes else 0)


def _of_onnx(graph: Graph) -> int:
    made = {name: node for node in graph.nodes if node.operator in _RESHAPE for name in node.outputs}

    def origins(name: str) -> Iterator[str]:
        yield name
        for origin in made[name].inputs if name in made else ():
            yield from origins(origin)

    read = {
        origin
        for node in graph.nodes
        if node.operator in _MULTIPLY
        for name in node.inputs[1:]
        for origin in origins(name)
    }
    return sum(tensor.bytes for tensor in graph.tensors if tensor.name in read)


if __name__ == "__main__":
    end_with_parent(*map(int, sys.argv[1:]))
    raise SystemExit(main())
