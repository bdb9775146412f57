"""Quantize a graph: its matrices in blocks of 8 or 4 bits, which onnxruntime multiplies directly.

A row of a matrix, the weights of one output, is divided into blocks of 32, the last one padded. A weight is (q - zero
point) · scale, with unsigned q and zero point; of two in a byte, the first is the lower half.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from bioner_edge.convert.onnx.graph import MICROSOFT, head
from bioner_edge.convert.onnx.layout import DATA, GRAPH, Graph, Writer, attributes, open_writer, parts, rows
from bioner_edge.errors import ModelError, UsageError, unknown_name

__all__ = ["LEVELS", "pack", "quantize", "round_blocks"]

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class _Kind:
    """How a matrix is quantized. Zero points change nothing at 8 bits; at 4 they reduce the KL divergence by a
    sixth."""

    bits: int
    symmetric: bool


_INT8, _INT4 = _Kind(8, symmetric=True), _Kind(4, symmetric=False)
# Level -> (the layers' matrices, embedding and output projection). Those two cost as much accuracy as all layers
# together: with 4 bits for them, too, the KL divergence of the bundled model is 0.082, not 0.048.
LEVELS = {"F32": None, "int8": (_INT8, _INT8), "int4": (_INT4, _INT8)}

# Activations are rounded to 8 bits too: logits then depend slightly on how many tokens are fed at once (up to 0.12
# standard deviations, KL divergence 5e-6). In float32 they would make onnxruntime 1.31 unpack an 8-bit matrix to
# floats at every token: at the shape of Qwen2.5-0.5B, on two threads, int8 gives 67 tokens/s, not 2, int4 95, not 2.
_ACCURACY_LEVEL = 4
_BLOCK = 32
_DOMAINS = ("", "ai.onnx", MICROSOFT)
_MATRIX = {"MatMul": 1, "FusedMatMul": 1, "Gather": 0}  # operator -> the input that may be a matrix
_LEAST = np.finfo(np.float32).tiny  # a smaller scale has no reciprocal: its block becomes 0


def quantize(f32: Path, out: Path, level: str) -> None:
    """Write the graph in the folder `f32`, made by `graph.finish`, to the folder `out` at a level.

    Norms, biases and rotary tables stay float32, a tied matrix stays tied. The same graph gives the same bytes.

    Raises UsageError for an unknown level; ModelError for weights that are not finite, and for a graph without an
    output projection or with operators that are not onnxruntime's.
    """
    if level not in LEVELS:
        raise UsageError(unknown_name("level", level, LEVELS))
    if (kinds := LEVELS[level]) is None:
        for name in (GRAPH, DATA):
            shutil.copyfile(f32 / name, out / name)
        return
    graph = Graph(f32 / GRAPH)
    _refuse_operators(graph)
    found = _readers(graph, *kinds)
    with open_writer(graph, out / GRAPH) as writer:
        blocks = _Blocks(graph, writer)
        for node, kind in found:
            blocks.replace(node, kind)
        graph.use(MICROSOFT)
        graph.drop_unused()
        for part in parts(graph.top):
            for tensor in part.initializer:
                tensor.CopyFrom(writer.copy(tensor.name, graph.array(tensor)))
        read = {name for node in graph.top.node for name in node.input}
        graph.top.initializer.extend(tensor for name, tensor in blocks.tensors.items() if name in read)


# --- Arithmetic, identical bit for bit to onnxruntime's quantizer.


def round_blocks(weights: Floats, bits: int, symmetric: bool) -> tuple[Bytes, Floats, Bytes]:
    """(q, scales, zero points) of weights of shape (rows, columns). A block that is not finite has a scale that is not.

    Shapes: (rows, blocks, 32), (rows, blocks), (rows, blocks). Symmetric: the zero point is the middle, and the weight
    furthest from 0 becomes q = 0, which has no counterpart. Otherwise the extremes of a block, or 0, become those of q.
    """
    count, width = weights.shape
    filled = np.zeros((count, -(-width // _BLOCK), _BLOCK), np.float32)
    filled.reshape(count, -1)[:, :width] = weights
    low, high = filled.min(axis=2), filled.max(axis=2)
    middle, top = 1 << bits - 1, (1 << bits) - 1
    if symmetric:
        scales = np.where(np.abs(high) > np.abs(low), high, low) / np.float32(-middle)
        zeros = np.full_like(scales, middle)
    else:
        low, high = np.minimum(low, 0), np.maximum(high, 0)
        scales = (high - low) / np.float32(top)
        zeros = _nearest(_divide(-low, scales), top)
    filled *= _divide(np.ones_like(scales), scales)[..., None]
    filled += zeros[..., None]
    return _nearest(filled, top).astype(np.uint8), scales, zeros.astype(np.uint8)


def _divide(values: Floats, scales: Floats) -> Floats:
    return np.divide(values, scales, out=np.zeros_like(scales), where=np.abs(scales) >= _LEAST)


def _nearest(values: Floats, top: int) -> Floats:
    """Round half up, clip to between 0 and `top`, in place."""
    values += np.float32(0.5)
    return np.floor(np.clip(values, 0, top, out=values), out=values)


def pack(values: Bytes, bits: int) -> Bytes:
    """Values below 2 ** bits as bytes along the last axis, padded with 0 where their number is odd."""
    if bits == 8:
        return values
    if values.shape[-1] % 2:
        values = np.concatenate((values, np.zeros_like(values[..., :1])), axis=-1)
    return values[..., ::2] | values[..., 1::2] << np.uint8(4)


# --- The graph


def _refuse_operators(graph: Graph) -> None:
    for part in parts(graph.top):
        for node in part.node:
            if node.domain not in _DOMAINS:
                message = f"its operator {node.op_type} of {node.domain} is not onnxruntime's own"
                raise ModelError(f"{graph.path}: {message}; use the other exporter")


def _readers(graph: Graph, inner: _Kind, outer: _Kind) -> list[tuple[NodeProto, _Kind]]:
    """The nodes that read a weight matrix, and how it is to be quantized."""
    last, found = head(graph), []
    for node in graph.top.node:
        tensor = graph.tensors.get(node.input[_MATRIX[node.op_type]]) if node.op_type in _MATRIX else None
        if tensor is None or len(tensor.dims) != 2 or tensor.data_type != TensorProto.FLOAT:
            continue
        if node.op_type == "Gather":
            if node.input[1] == "input_ids":  # other tables are for positions
                found.append((node, outer))
        elif node.op_type == "MatMul" or attributes(node) == {"transB": 1}:
            found.append((node, outer if node is last else inner))
    return found


class _Blocks:
    """The tensors that replace matrices, by name, as they are written."""

    def __init__(self, graph: Graph, writer: Writer) -> None:
        self.tensors: dict[str, TensorProto] = {}
        self._graph, self._writer = graph, writer

    def replace(self, node: NodeProto, kind: _Kind) -> None:
        """Replace a node by one that reads blocks."""
        name = node.input[_MATRIX[node.op_type]]
        matrix = self._graph.array(self._graph.tensors[name])
        if node.op_type == "MatMul":
            matrix = matrix.T
        count, width = matrix.shape
        blocked = f"{name}.int{kind.bits}"
        if blocked not in self.tensors:
            self._write(blocked, matrix, kind, node.name or name)
        beside = [f"{blocked}.scales"] if kind.symmetric else [f"{blocked}.scales", f"{blocked}.zeros"]
        if node.op_type == "Gather":
            inputs = [self._flat(blocked), node.input[1], *beside]
            made = _node("GatherBlockQuantized", inputs, node, kind, quantize_axis=1)
            self._unfill(node, made, width)
        else:
            inputs = [node.input[0], blocked, *beside]
            made = _node("MatMulNBits", inputs, node, kind, K=width, N=count, accuracy_level=_ACCURACY_LEVEL)
        node.CopyFrom(made)

    def _write(self, name: str, matrix: Floats, kind: _Kind, matrix_name: str) -> None:
        """Write a matrix of shape (outputs, inputs) as the tensors `name`, its scales and its zero points.

        Shapes: (outputs, blocks, bytes of a block), (outputs, blocks), (outputs, bytes of that many zero points).
        """
        scales, zeros = [], []

        def values() -> Iterator[Bytes]:
            for piece in rows(matrix):
                with np.errstate(invalid="ignore", over="ignore"):
                    q, scale, zero = round_blocks(piece, kind.bits, kind.symmetric)
                if not np.isfinite(scale).all():
                    raise ModelError(
                        f"{self._graph.path}: the weights of {matrix_name} are not all finite; use an undamaged model"
                    )
                scales.append(scale)
                zeros.append(pack(zero, kind.bits))
                yield pack(q, kind.bits)

        shape = (len(matrix), -(-matrix.shape[1] // _BLOCK), _BLOCK * kind.bits // 8)
        self._keep(self._writer.tensor(name, np.uint8, shape, values()))
        self._keep(self._writer.copy(f"{name}.scales", np.concatenate(scales)))
        if not kind.symmetric:
            self._keep(self._writer.copy(f"{name}.zeros", np.concatenate(zeros)))

    def _keep(self, tensor: TensorProto) -> None:
        self.tensors[tensor.name] = tensor

    def _flat(self, name: str) -> str:
        """The name of a tensor reshaped to (rows, bytes of a row); it shares the same bytes."""
        flat = TensorProto()
        flat.CopyFrom(self.tensors[name])
        flat.name = f"{name}.rows"
        count, *row = flat.dims
        del flat.dims[:]
        flat.dims.extend((count, math.prod(row)))
        self._keep(flat)
        return flat.name

    def _unfill(self, node: NodeProto, made: NodeProto, width: int) -> None:
        """Remove the padding of rows to whole blocks from the output of `made`, which is to replace `node`."""
        if width % _BLOCK == 0:
            return
        whole, made.output[0] = made.output[0], f"{made.output[0]}.filled"
        ends = {f"{whole}.first": 0, f"{whole}.end": width, f"{whole}.axis": -1}
        for name, value in ends.items():
            self._keep(numpy_helper.from_array(np.array([value], np.int64), name))
        cut = helper.make_node("Slice", [made.output[0], *ends], [whole])
        self._graph.top.node.insert(self._graph.place(node) + 1, cut)


def _node(operator: str, inputs: list[str], node: NodeProto, kind: _Kind, **more: Any) -> NodeProto:
    """An onnxruntime node with the name and the outputs of `node`."""
    more |= {"domain": MICROSOFT, "bits": kind.bits, "block_size": _BLOCK}
    return helper.make_node(operator, inputs, node.output, node.name, **more)
