"""How a graph is stored: `model.onnx`, and `model.onnx.data` beside it with every tensor of 1 KiB and more.

Each tensor starts at a multiple of 4096 bytes, on its own page, so that onnxruntime can map it. Data that two tensors
share, such as a tied matrix, is stored once. Tensors are read and written in pieces: a graph may be larger than memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from bioner_edge.errors import ModelError

__all__ = ["DATA", "GRAPH", "INLINE", "Graph", "Writer", "attributes", "open_writer", "parts", "replace", "rows"]

GRAPH, DATA = "model.onnx", "model.onnx.data"
INLINE = 1024  # bytes below which a tensor stays in the graph

_ALIGNED = 4096
_PIECE = 1 << 24  # bytes of a tensor processed at a time

Array = NDArray[Any]


class Graph:
    """A graph whose tensors stay on disk until they are requested.

    Raises ModelError for a file that is not an ONNX graph.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.model: ModelProto = onnx.load(path, load_external_data=False)
        except OSError as error:
            raise ModelError(f"{path}: cannot be read: {error.strerror}") from None
        except Exception as error:  # protobuf's exception has no public name
            raise ModelError(f"{path}: is not an ONNX graph: {error}; export it again") from None
        self.top = self.model.graph
        self.tensors = {tensor.name: tensor for tensor in self.top.initializer}

    def array(self, tensor: TensorProto) -> Array:
        """The values of a tensor. Raises ModelError where their file is missing or too short."""
        if tensor.data_location != TensorProto.EXTERNAL:
            return numpy_helper.to_array(tensor)
        where = {entry.key: entry.value for entry in tensor.external_data}
        file, dtype = self.path.parent / where["location"], helper.tensor_dtype_to_np_dtype(tensor.data_type)
        try:  # a separate memory map: its pages are freed with the array
            return np.memmap(file, dtype, "r", int(where.get("offset", 0)), tuple(tensor.dims))
        except (OSError, ValueError) as error:
            raise ModelError(f"{file}: {tensor.name} cannot be read: {error}; export it again") from None

    def use(self, domain: str) -> None:
        """Declare that operators of this domain are used."""
        if all(opset.domain != domain for opset in self.model.opset_import):
            self.model.opset_import.append(helper.make_opsetid(domain, 1))

    def place(self, node: NodeProto) -> int:
        """The index of a node; all of its inputs are computed before it."""
        return list(self.top.node).index(node)

    def drop_unused(self) -> None:
        """Drop nodes and tensors that no output depends on."""
        needed = {value.name for value in self.top.output}
        kept = []
        for node in reversed(self.top.node):
            if needed.intersection(node.output):
                kept.append(node)
                needed.update(_inputs_of(node))
        replace(self.top.node, kept[::-1])
        replace(self.top.initializer, [tensor for tensor in self.top.initializer if tensor.name in needed])


class Writer:
    """Writes the tensor file; identical data is written once."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._known: dict[bytes, tuple[int, int]] = {}

    def tensor(self, name: str, dtype: Any, shape: Sequence[int], pieces: Iterable[Array]) -> TensorProto:
        """A tensor with the values of `pieces`, arrays of its `dtype`, one after the other."""
        made = TensorProto(name=name, data_type=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), dims=shape)
        if int(np.prod(shape)) * np.dtype(dtype).itemsize < INLINE:
            made.raw_data = b"".join(piece.tobytes() for piece in pieces)
            return made
        offset, length = self._write(pieces)
        made.data_location = TensorProto.EXTERNAL
        for key, value in (("location", DATA), ("offset", str(offset)), ("length", str(length))):
            made.external_data.add(key=key, value=value)
        return made

    def copy(self, name: str, array: Array) -> TensorProto:
        """A tensor with the values of an array."""
        return self.tensor(name, array.dtype, array.shape, rows(array))

    def _write(self, pieces: Iterable[Array]) -> tuple[int, int]:
        """(offset, length) of the values."""
        before = self._stream.seek(0, 2)
        self._stream.write(bytes(-before % _ALIGNED))
        offset, digest = self._stream.tell(), hashlib.sha256()
        for piece in pieces:
            data = np.ascontiguousarray(piece).reshape(-1).view(np.uint8).data
            digest.update(data)
            self._stream.write(data)
        place = self._known.setdefault(digest.digest(), (offset, self._stream.tell() - offset))
        if place[0] != offset:
            self._stream.truncate(before)
        return place


def rows(array: Array) -> Iterator[Array]:
    """An array in pieces along its first axis, each small enough to process."""
    array = np.atleast_1d(array)
    step = max(1, _PIECE * len(array) // max(1, array.nbytes))
    return (array[at : at + step] for at in range(0, len(array), step))


@contextmanager
def open_writer(graph: Graph, out: Path) -> Iterator[Writer]:
    """Write `out` and its tensor file when all tensors are made; neither is left where that fails."""
    data = out.with_name(DATA)
    try:
        with data.open("wb") as stream:
            yield Writer(stream)
        _strip(graph.model)
        out.write_bytes(graph.model.SerializeToString(deterministic=True))
    except BaseException:
        out.unlink(missing_ok=True)
        data.unlink(missing_ok=True)
        raise


def _strip(model: ModelProto) -> None:
    """Drop provenance, and shapes of intermediate values, which may have changed."""
    for part in parts(model.graph):
        for message in (model, part, *part.node, *part.input, *part.output, *part.initializer):
            message.ClearField("doc_string")
            message.ClearField("metadata_props")
        part.ClearField("value_info")
        part.ClearField("quantization_annotation")


def attributes(node: NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def parts(graph: GraphProto) -> Iterator[GraphProto]:
    """A graph and its subgraphs, the branches of an If."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from parts(attribute.g)


def _inputs_of(node: NodeProto) -> Iterator[str]:
    yield from node.input
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            for inner in attribute.g.node:
                yield from _inputs_of(inner)


def replace(field: Any, values: Iterable[Any]) -> None:
    """Set a repeated field to new values, which may include its own."""
    kept = [value if isinstance(value, str) else type(value).FromString(value.SerializeToString()) for value in values]
    del field[:]
    field.extend(kept)
