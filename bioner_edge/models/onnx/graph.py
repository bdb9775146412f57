"""Read an ONNX file in pure Python, before native code reads it: inputs, outputs, operators, tensors.

The tensors' data are not read. A tensor's data can be in an external file, named by a path in the ONNX file; such
references are found wherever a tensor is allowed: in initializers, attributes of nodes, graphs in attributes, functions
and training information. Field numbers are those of onnx-ml.proto, onnx 1.23.
"""

from __future__ import annotations

import hashlib
import mmap
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import NoReturn

from bioner_edge.errors import ModelError
from bioner_edge.models.onnx.protobuf import File, Message

__all__ = ["TYPES", "External", "Graph", "Node", "Tensor", "Value", "read", "summary"]

# TensorProto.DataType -> (name, bits of an element; None if its size is not fixed).
TYPES: dict[int, tuple[str, int | None]] = {
    1: ("f32", 32), 2: ("uint8", 8), 3: ("int8", 8), 4: ("uint16", 16), 5: ("int16", 16), 6: ("int32", 32),
    7: ("int64", 64), 8: ("string", None), 9: ("bool", 8), 10: ("f16", 16), 11: ("f64", 64), 12: ("uint32", 32),
    13: ("uint64", 64), 14: ("complex64", 64), 15: ("complex128", 128), 16: ("bf16", 16), 17: ("f8e4m3fn", 8),
    18: ("f8e4m3fnuz", 8), 19: ("f8e5m2", 8), 20: ("f8e5m2fnuz", 8), 21: ("uint4", 4), 22: ("int4", 4),
    23: ("f4e2m1", 4), 24: ("f8e8m0", 8), 25: ("uint2", 2), 26: ("int2", 2),
}  # fmt: skip
_KINDS = {4: "sequence", 5: "map", 7: "opaque", 8: "sparse tensor", 9: "optional"}  # of TypeProto, except tensors
_EXTERNAL = ("location", "offset", "length", "checksum")
_MAX_BYTES = (1 << 31) - 1  # the limit of the protobuf library
_MAX_DIMS, _MAX_ELEMENTS = 64, 1 << 48  # beyond any memory


@dataclass(frozen=True, slots=True)
class External:
    """A reference to external data: `length` bytes at `offset` of the file `location`, as written in the ONNX file."""

    location: str
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor in the file or with external data. `initializer`: of the main graph; otherwise a constant of a node,
    subgraph or function."""

    name: str
    type: str
    shape: tuple[int, ...]
    bytes: int
    external: External | None
    initializer: bool

    @property
    def elements(self) -> int:
        return prod(self.shape)


@dataclass(frozen=True, slots=True)
class Value:
    """An input or output; a variable dimension is its name, or ""."""

    name: str
    type: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class Node:
    """A node and its integer attributes. The operator's name is prefixed with its domain, except for ONNX's own."""

    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    numbers: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Graph:
    """An ONNX file. `nodes` and `tensors` include those of subgraphs and functions; `inputs` are those to be fed."""

    ir_version: int
    opsets: Mapping[str, int]
    producer: str
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    nodes: tuple[Node, ...]
    tensors: tuple[Tensor, ...]

    @property
    def operators(self) -> dict[str, int]:
        """The number of nodes by operator, the most frequent first."""
        return dict(Counter(node.operator for node in self.nodes).most_common())


_PARSED: dict[bytes, Graph] = {}  # the last one, by the SHA-256 of its file


def read(path: Path) -> Graph:
    """Read the graph of a valid file. Raises ModelError for a file that is damaged or not ONNX."""
    try:
        if not path.is_file():
            raise ModelError(f"{path}: {'not a regular file' if path.exists() else 'no such file'}")
        with path.open("rb") as stream:
            if not 0 < (size := stream.seek(0, 2)) <= _MAX_BYTES:
                message = f"{size:,} bytes, more than an ONNX file can have" if size else "empty, not an ONNX file"
                raise ModelError(f"{path}: {message}; fetch or convert it again")
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
                if data[4:8] == b"ORTM":  # onnxruntime would read it as a flatbuffer
                    raise ModelError(f"{path}: in onnxruntime's own format, not ONNX; convert the model again")
                return _graph(path, data)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from None


def _graph(path: Path, data: mmap.mmap) -> Graph:
    """The graph in `data`. The last one is cached by its hash, since loading a model needs it four times. With 24
    layers, parsing takes 60 ms for a graph of optimum, 8 ms for one of the builder; hashing takes 2 or 0.2 ms.
    """
    digest = hashlib.sha256(data).digest()
    graph = _PARSED.get(digest) or _Reader(File(path, data, "ONNX")).graph()
    _PARSED.clear()
    _PARSED[digest] = graph
    return graph


def summary(values: Iterable[Value]) -> dict[str, str]:
    """Types and shapes by name, as text; names that differ only in a number are grouped, with * for the number."""
    groups = Counter((re.sub(r"\d+", "*", v.name), f"{v.type} [{', '.join(map(str, v.shape))}]") for v in values)
    return {f"{name} × {count}" if count > 1 else name: shape for (name, shape), count in groups.items()}


class _Reader:
    """Walks the messages of a file and collects nodes and tensors."""

    def __init__(self, file: File) -> None:
        self.file = file
        self.nodes: list[Node] = []
        self.tensors: list[Tensor] = []

    def graph(self) -> Graph:
        model = self.file.message()
        versions = {row.text(1) or "ai.onnx": row.integer(2) for row in model.messages(8, "an operator set")}
        main = model.message(7, "the graph")
        if model.integer(1) < 1 or not versions or main is None:
            lacks = "graph" if main is None else "version of its operators" if model.integer(1) >= 1 else "IR version"
            raise ModelError(f"{self.file.path}: not an ONNX file, or cut off: it has no {lacks}; convert it again")
        self.of_graph(main, True)
        for function in model.messages(25, "a function"):
            self.of_nodes(function, 7)
            self.of_attributes(function, 11)
        for training in model.messages(20, "the training"):
            for number in (1, 2):
                if (part := training.message(number, "a training's graph")) is not None:
                    self.of_graph(part, False)
        given = {tensor.name for tensor in self.tensors if tensor.initializer}
        inputs = tuple(value for value in _values(main, 11, "an input") if value.name not in given)
        outputs = tuple(_values(main, 12, "an output"))
        producer = f"{model.text(2)} {model.text(3)}".strip()
        return Graph(model.integer(1), versions, producer, inputs, outputs, tuple(self.nodes), tuple(self.tensors))

    def of_graph(self, graph: Message, main: bool) -> None:
        for tensor in graph.messages(5, "an initializer"):
            self.of_tensor(tensor, main)
        for sparse in graph.messages(15, "a sparse initializer"):
            self.of_sparse(sparse, main)
        self.of_nodes(graph, 1)

    def of_nodes(self, holder: Message, number: int) -> None:
        for node in holder.messages(number, "a node"):
            domain = node.text(7)
            operator = node.text(4) if domain in ("", "ai.onnx") else f"{domain}.{node.text(4)}"
            inputs, outputs = tuple(node.texts(1)), tuple(node.texts(2))
            self.nodes.append(Node(operator, inputs, outputs, self.of_attributes(node, 5)))

    def of_attributes(self, holder: Message, number: int) -> dict[str, int]:
        """Collect the tensors and graphs in attributes, and return the integer attributes by name."""
        numbers = {}
        for attribute in holder.messages(number, "an attribute"):
            if (tensor := attribute.message(5, "a tensor")) is not None:
                self.of_tensor(tensor, False)
            for tensor in attribute.messages(10, "a tensor"):
                self.of_tensor(tensor, False)
            if (sparse := attribute.message(22, "a sparse tensor")) is not None:
                self.of_sparse(sparse, False)
            for sparse in attribute.messages(23, "a sparse tensor"):
                self.of_sparse(sparse, False)
            if (graph := attribute.message(6, "a subgraph")) is not None:
                self.of_graph(graph, False)
            for graph in attribute.messages(11, "a subgraph"):
                self.of_graph(graph, False)
            if attribute.integer(20) == 2:  # INT
                numbers[attribute.text(1)] = attribute.integer(3)
        return numbers

    def of_sparse(self, sparse: Message, initializer: bool) -> None:
        for number, name in ((1, "the values of a sparse tensor"), (2, "the indices of a sparse tensor")):
            if (tensor := sparse.message(number, name)) is not None:
                self.of_tensor(tensor, initializer)

    def of_tensor(self, tensor: Message, initializer: bool) -> None:
        name, kind, shape = tensor.text(8), tensor.integer(2), tuple(tensor.integers(1))
        if kind not in TYPES:
            tensor.fail(f"tensor {name!r} has the unknown type {kind}")
        if len(shape) > _MAX_DIMS or any(size < 0 for size in shape) or prod(shape) > _MAX_ELEMENTS:
            tensor.fail(f"tensor {name!r} has an impossible shape of {len(shape)} dimensions")
        label, bits = TYPES[kind]
        size = -(-prod(shape) * bits // 8) if bits else sum(end - start for start, end in tensor.spans(6))
        raw = tensor.spans(9)
        external = _external(tensor, name, size) if tensor.spans(13) or tensor.integer(14) else None
        if external and not bits:
            tensor.fail(f"tensor {name!r} is of strings, which cannot be external data")
        if raw and not external and raw[-1][1] - raw[-1][0] != size:
            tensor.fail(f"tensor {name!r} of shape {shape} needs {size} bytes, it has {raw[-1][1] - raw[-1][0]}")
        self.tensors.append(Tensor(name, label, shape, size, external, initializer))


def _external(tensor: Message, name: str, size: int) -> External:
    """The external reference of a tensor of `size` bytes; whether the file holds them is not checked here."""

    def fail(what: str) -> NoReturn:
        tensor.fail(f"tensor {name!r} {what}")

    stated: dict[str, str] = {}
    for entry in tensor.messages(13, "a reference"):
        if (key := entry.text(1)) in stated:
            fail(f"has its {key} twice")
        if key not in _EXTERNAL:
            fail(f"has the unknown key {key!r} in its external data; known: {', '.join(_EXTERNAL)}")
        stated[key] = entry.text(2)
    if tensor.integer(14) not in (0, 1) or "location" not in stated:
        fail("has external data without a valid location")
    for key in ("offset", "length"):
        if not re.fullmatch("[0-9]{1,18}", stated.get(key, "0"), re.ASCII):
            fail(f"has the {key} {stated[key]!r}, which is not a number of bytes")
    if (length := int(stated.get("length", size))) != size:
        fail(f"needs {size} bytes of external data, not {length}")
    return External(stated["location"], int(stated.get("offset", 0)), size)


def _values(graph: Message, number: int, name: str) -> Iterator[Value]:
    """The inputs or outputs of a graph."""
    for value in graph.messages(number, name):
        kind = value.message(2, "a type")
        tensor = kind.message(1, "a tensor's type") if kind else None
        if kind is None or tensor is None:
            other = next((word for n, word in _KINDS.items() if kind and kind.spans(n)), "unknown")
            yield Value(value.text(1), other, ())
            continue
        shape = tensor.message(2, "a shape")
        dims = [_dim(dim) for dim in shape.messages(1, "a dimension")] if shape else []
        if len(dims) > _MAX_DIMS:
            value.fail(f"{name} of {len(dims)} dimensions")
        yield Value(value.text(1), TYPES.get(tensor.integer(1), ("unknown", 0))[0], tuple(dims))


def _dim(dim: Message) -> int | str:
    names, sizes = dim.texts(2), dim.integers(1)
    if names and sizes:
        dim.fail("a dimension has a size and a name")
    return sizes[-1] if sizes else names[-1] if names else ""
