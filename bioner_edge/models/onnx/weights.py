"""Count the weights in the tensors of an ONNX graph, by type and in bits.

A quantized matrix is an initializer of bytes that its node describes: integers packed in `bits`, with scales in another
initializer. Scales and zero points are not weights, but count toward their bits; the sine and cosine tables that an
exporter leaves in the graph, as long as the context, are left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from bioner_edge.errors import ModelError
from bioner_edge.models.onnx.graph import Graph, Node, Tensor

__all__ = ["QUANTIZED", "Weights", "weights"]

# Operator of block-quantized weights -> (input of the weights, inputs of scales and zero points).
QUANTIZED: dict[str, tuple[int, tuple[int, ...]]] = {
    "com.microsoft.MatMulNBits": (1, (2, 3, 4)),
    "com.microsoft.GatherBlockQuantized": (0, (2, 3)),
}
# Operator -> inputs that are tables of sines and cosines.
_TABLES: dict[str, tuple[int, ...]] = {
    "RotaryEmbedding": (1, 2),
    "com.microsoft.RotaryEmbedding": (2, 3),
    "com.microsoft.GroupQueryAttention": (7, 8),
}
_PASSED_ON = ("Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")  # keep all weights
_NO_WEIGHTS = ("bool", "int16", "int32", "int64", "string", "uint16", "uint32", "uint64")
_MAX_PASSED = 4  # in a row; a crafted graph might have a cycle of them
_BITS = (2, 4, 8)


@dataclass(frozen=True, slots=True)
class Weights:
    """`tensors` and `counts`, by type, are the numbers of weight tensors and of weights in them. `bytes` are those of
    all initializers except the sine and cosine tables. Types are f32, f16 … and int8, int4, int2 for block-quantized
    weights. Data shared by initializers, such as tied embeddings, count once."""

    tensors: Mapping[str, int]
    counts: Mapping[str, int]
    bytes: int

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    @property
    def bits_per_weight(self) -> float:
        """0.0 if there are no weights."""
        return 8 * self.bytes / self.total if self.total else 0.0


def weights(graph: Graph, path: Path) -> Weights:
    """Count the weights of a graph; `path` is for errors. Raises ModelError for a tensor that does not fit its node."""
    initializers = [tensor for tensor in graph.tensors if tensor.initializer]
    passed = {node.outputs[0]: node.inputs[0] for node in graph.nodes if _passes(node)}
    quantized: dict[str, Node] = {}
    beside, tables = set[str](), set[str]()
    for node in graph.nodes:
        if node.operator in QUANTIZED:
            at, others = QUANTIZED[node.operator]
            for name in _inputs(node, (at,), passed):
                if name not in quantized or "K" in node.numbers:  # K is the number without the padding of blocks
                    quantized[name] = node
            beside.update(_inputs(node, others, passed))
        tables.update(_inputs(node, _TABLES.get(node.operator, ()), passed))
    found: dict[object, tuple[str, int]] = {}
    for tensor in initializers:
        kind, count = tensor.type, tensor.elements
        if tensor.name in quantized:
            kind, count = _quantized_weights(tensor, quantized[tensor.name], path)
        elif tensor.name in beside | tables or kind in _NO_WEIGHTS:
            continue
        if count < found.get(_place(tensor), (kind, count + 1))[1]:
            found[_place(tensor)] = kind, count
    counts = Counter[str]()
    for kind, count in found.values():
        counts[kind] += count
    held = {_place(tensor): tensor.bytes for tensor in initializers if tensor.name not in tables}
    return Weights(dict(Counter(kind for kind, _ in found.values())), dict(counts), sum(held.values()))


def _place(tensor: Tensor) -> object:
    """A key that is equal for tensors that share their data."""
    return tensor.external or tensor.name


def _passes(node: Node) -> bool:
    return node.operator in _PASSED_ON and bool(node.inputs and node.outputs)


def _inputs(node: Node, places: tuple[int, ...], passed: Mapping[str, str]) -> Iterator[str]:
    """The names at these inputs of a node, traced back through `passed` to an initializer."""
    for place in places:
        if place < len(node.inputs):
            name = node.inputs[place]
            for _ in range(_MAX_PASSED):
                name = passed.get(name, name)
            yield name


def _quantized_weights(tensor: Tensor, node: Node, path: Path) -> tuple[str, int]:
    """(the type of a quantized tensor, the number of its weights)."""

    def fail(what: str) -> NoReturn:
        where = f"{path}: damaged ONNX: {node.operator} of {tensor.name[:100]!r}"
        raise ModelError(f"{where} {what}; fetch or convert it again")

    own = tensor.type.removeprefix("u")
    bits = int(own.removeprefix("int")) if own in ("int2", "int4") else node.numbers.get("bits", 4)
    if own not in ("int2", "int4", "int8") or bits not in _BITS:
        fail(f"has {bits} bits in a tensor of {tensor.type}")
    room = 8 * tensor.bytes // bits
    rows, columns = node.numbers.get("N", 1), node.numbers.get("K", room)
    if rows < 1 or columns < 0 or not 0 < rows * columns <= room:
        fail(f"has {rows} × {columns} weights, but room for {room}")
    return f"int{bits}", rows * columns
