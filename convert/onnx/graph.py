"""Turn an exporter's float32 graph into the delivered graph, the same for every exporter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from bioner_edge.convert.onnx.layout import INLINE, Graph, attributes, open_writer, parts, replace
from bioner_edge.errors import ModelError

__all__ = ["MICROSOFT", "finish", "head"]

MICROSOFT = "com.microsoft"  # the domain of onnxruntime's own operators

_IDS = ("input_ids", "attention_mask", "position_ids")
_PROJECTIONS = ("FusedMatMul", "MatMul")
# Operators that may follow the output projection: they treat all positions alike.
_POINTWISE = ("Add", "Cast", "Div", "Identity", "Mul", "Sub", "Tanh")


def finish(source: Path, out: Path) -> None:
    """Write an exporter's float32 graph `source` as `out`, "model.onnx", with "model.onnx.data" beside it.

    It outputs logits of the last position only. Inputs and outputs are in the order of the contract: input_ids,
    attention_mask, position_ids where present, the cache of each layer; logits, the cache. A tied matrix is stored
    once, as (vocabulary, width). The same source gives the same bytes.

    Raises ModelError for a graph that is not a float32 causal language model with a cache.
    """
    graph = Graph(source)
    _order_values(graph)
    turned = _untranspose(graph)
    _last_position(graph)
    graph.drop_unused()
    _as_tensors(graph)
    with open_writer(graph, out) as writer:
        for part in parts(graph.top):
            for tensor in part.initializer:
                array = graph.array(tensor)
                tensor.CopyFrom(writer.copy(tensor.name, array.T if tensor.name in turned else array))


# --- Inputs and outputs


def _order_values(graph: Graph) -> None:
    """Sort inputs and outputs. Raises ModelError where they are not those of the contract."""
    inputs = [value for value in graph.top.input if value.name not in graph.tensors]  # old exporters list weights too
    layers = max(1, len(graph.top.output) // 2)
    cached = [f"{layer}.{part}" for layer in range(layers) for part in ("key", "value")]
    ids = [name for name in _IDS if name != "position_ids" or any(value.name == name for value in inputs)]
    fed = dict.fromkeys(ids, TensorProto.INT64)
    fed |= dict.fromkeys([f"past_key_values.{name}" for name in cached], TensorProto.FLOAT)
    made = dict.fromkeys(["logits", *(f"present.{name}" for name in cached)], TensorProto.FLOAT)
    replace(graph.top.input, _select(graph.path, "inputs", inputs, fed))
    replace(graph.top.output, _select(graph.path, "outputs", graph.top.output, made))


def _select(
    path: Path, kind: str, values: Sequence[ValueInfoProto], expected: Mapping[str, TensorProto.DataType]
) -> list[ValueInfoProto]:
    """The values in the order of `expected`. Raises ModelError for other names or types."""
    found = {value.name: value for value in values}
    if found.keys() != expected.keys():
        lacking, more = (
            ", ".join([name for name in some if name not in others][:6])
            for some, others in ((expected, found), (found, expected))
        )
        message = f"its {kind} lack {lacking or 'nothing'} and have {more or 'nothing'} in addition"
        raise ModelError(f"{path}: {message}; export it as text generation with past")
    for name, dtype in expected.items():
        if (other := found[name].type.tensor_type.elem_type) != dtype:
            message = f"{name} is {TensorProto.DataType.Name(other)}, not {TensorProto.DataType.Name(dtype)}"
            raise ModelError(f"{path}: {message}; export it in float32")
    return [found[name] for name in expected]


def _last_position(graph: Graph) -> None:
    """Slice the hidden state to its last position before the output projection, unless the exporter did."""
    shape = graph.top.output[0].type.tensor_type.shape.dim
    if len(shape) != 3 or not shape[2].dim_value:
        raise ModelError(f"{graph.path}: its logits are not (batch, positions, vocabulary); export it again")
    projection = head(graph)
    if shape[1].dim_value == 1:
        return
    shape[1].dim_value = 1
    graph.top.initializer.append(numpy_helper.from_array(np.array([-1], np.int64), "last_position"))
    hidden, projection.input[0] = projection.input[0], f"{projection.input[0]}.last"
    cut = helper.make_node("Gather", [hidden, "last_position"], [projection.input[0]], axis=1)
    graph.top.node.insert(graph.place(projection), cut)


def head(graph: Graph) -> NodeProto:
    """The output projection. Raises ModelError where a node after it may mix positions."""
    makers: dict[str, NodeProto] = {name: node for node in graph.top.node for name in node.output}
    constant = {*graph.tensors, *(name for name, node in makers.items() if node.op_type == "Constant")}
    name = "logits"
    while node := makers.get(name):
        if node.op_type in _PROJECTIONS and node.input[1] in graph.tensors:
            return node
        varying = [name for name in node.input if name not in constant]
        if node.op_type not in _POINTWISE or len(varying) != 1:
            raise ModelError(f"{graph.path}: its logits come from {node.op_type}, not a projection; export it again")
        name = varying[0]
    raise ModelError(f"{graph.path}: its logits do not come from a projection; export it again")


# --- Weights


def _untranspose(graph: Graph) -> set[str]:
    """Store matrices as they are multiplied: onnxruntime would transpose each in memory at every start. An embedding
    that is read transposed must be transposed itself. Returns the names of those tensors."""
    turned = set()
    for node in [node for node in graph.top.node if _transposes_matrix(graph, node)]:
        matrix, made = node.input[0], node.output[0]
        of_made, of_matrix = ([user for user in graph.top.node if name in user.input] for name in (made, matrix))
        of_matrix.remove(node)
        if any(user.op_type == "Gather" for user in of_made) and all(_multiplies(user, matrix) for user in of_matrix):
            turned.add(matrix)
            direct, fused = of_made, of_matrix
        else:
            direct = fused = [user for user in of_made if _multiplies(user, made)]
        for user in direct:
            replace(user.input, [matrix if name == made else name for name in user.input])
        for user in fused:
            user.op_type, user.domain = "FusedMatMul", MICROSOFT
            user.attribute.append(helper.make_attribute("transB", 1))
            graph.use(MICROSOFT)
    return turned


def _transposes_matrix(graph: Graph, node: NodeProto) -> bool:
    tensor = graph.tensors.get(node.input[0]) if node.op_type == "Transpose" else None
    return tensor is not None and len(tensor.dims) == 2 and attributes(node).get("perm", [1, 0]) == [1, 0]


def _multiplies(node: NodeProto, matrix: str) -> bool:
    return node.op_type == "MatMul" and node.input[1] == matrix


def _as_tensors(graph: Graph) -> None:
    """Convert large constants to tensors, also those in branches of an If, so that they are stored outside the
    graph."""
    for part in parts(graph.top):
        for node in [node for node in part.node if node.op_type == "Constant"]:
            value = attributes(node).get("value")
            if isinstance(value, TensorProto) and value.ByteSize() >= INLINE:
                value.name = node.output[0]
                part.initializer.append(value)
                part.node.remove(node)
