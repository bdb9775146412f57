"""The reader of ONNX files: it sees what onnx sees, all that refers to other files above all, and survives the rest."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bioner_edge.errors import ModelError
from bioner_edge.models.onnx import graph as onnx_graph
from bioner_edge.models.onnx import protobuf
from bioner_edge.models.onnx.graph import TYPES, External, Tensor, Value, read, summary
from bioner_edge.models.onnx.weights import weights

# --- The wire format, written by hand


def varint(value: int) -> bytes:
    value %= 1 << 64
    data = bytearray()
    while value > 127:
        data.append(value & 127 | 128)
        value >>= 7
    return bytes([*data, value])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def data(field: int, *parts: bytes | str) -> bytes:
    content = b"".join(part.encode() if isinstance(part, str) else part for part in parts)
    return varint(field << 3 | 2) + varint(len(content)) + content


def external(*pairs: tuple[str, str]) -> bytes:
    return b"".join(data(13, data(1, key), data(2, value)) for key, value in pairs) + number(14, 1)


def tensor(*more: bytes, name: str = "w", kind: int = 1, dims: tuple[int, ...] = (2, 3)) -> bytes:
    return b"".join(number(1, size) for size in dims) + number(2, kind) + data(8, name) + b"".join(more)


OPSET = data(8, number(2, 21))
ELSEWHERE = tensor(external(("location", "other.bin"), ("offset", "8"), ("length", "24")))


def model(*graph: bytes, more: bytes = b"") -> bytes:
    return number(1, 10) + data(2, "hand") + data(7, *graph) + OPSET + more


def attribute(*content: bytes, kind: int = 0) -> bytes:
    return data(5, data(1, "a"), *content, number(20, kind))


def node(*content: bytes) -> bytes:
    return data(1, data(4, "Op"), *content)


# Where a tensor may stand, as a model that holds one there.
PLACES: dict[str, Callable[[bytes], bytes]] = {
    "initializer": lambda t: model(data(5, t)),
    "sparse initializer's values": lambda t: model(data(15, data(1, t))),
    "sparse initializer's indices": lambda t: model(data(15, data(2, t))),
    "attribute": lambda t: model(node(attribute(data(5, t), kind=4))),
    "attribute of another kind": lambda t: model(node(attribute(data(5, t), number(3, 1), kind=2))),
    "attribute's list": lambda t: model(node(attribute(data(10, tensor()), data(10, t), kind=9))),
    "sparse attribute": lambda t: model(node(attribute(data(22, data(1, t)), kind=11))),
    "list of sparse": lambda t: model(node(attribute(data(23, data(2, t)), kind=12))),
    "subgraph's initializer": lambda t: model(node(attribute(data(6, data(5, t)), kind=5))),
    "subgraph's node": lambda t: model(node(attribute(data(6, node(attribute(data(5, t))))))),
    "list of subgraphs": lambda t: model(node(attribute(data(11, b""), data(11, data(5, t)), kind=10))),
    "function's node": lambda t: model(more=data(25, data(1, "f"), data(7, attribute(data(5, t))))),
    "function's default": lambda t: model(more=data(25, data(11, data(1, "d"), data(5, t)))),
    "training's start": lambda t: model(more=data(20, data(1, data(5, t)))),
    "training's step": lambda t: model(more=data(20, data(2, node(attribute(data(5, t)))))),
}


@pytest.fixture
def file(tmp_path: Path) -> Callable[[bytes], Path]:
    def write(content: bytes) -> Path:
        path = tmp_path / "model.onnx"
        path.write_bytes(content)
        return path

    return write


@pytest.mark.parametrize("place", PLACES)
def test_references_are_found_wherever_a_tensor_may_stand(file: Callable[[bytes], Path], place: str) -> None:
    path = file(PLACES[place](ELSEWHERE))
    found = [tensor for tensor in read(path).tensors if tensor.external]
    assert [tensor.external for tensor in found] == [External("other.bin", 8, 24)]
    assert found[0].initializer == ("initializer" in place and "subgraph" not in place)
    onnx = pytest.importorskip("onnx")
    theirs = onnx.load(path, load_external_data=False)
    assert [t.name for t in messages(theirs, onnx.TensorProto) if t.external_data] == ["w"]


# --- What onnx reads, read without onnx


def messages(message: Any, kind: type) -> Iterator[Any]:
    """All messages of a type in a message, by reflection."""
    if isinstance(message, kind):
        yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in value if hasattr(value, "__len__") and not hasattr(value, "ListFields") else [value]:
                yield from messages(part, kind)


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with something of everything, and two tensors in a file of their own."""
    onnx = pytest.importorskip("onnx")
    np = pytest.importorskip("numpy")
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    rng = np.random.default_rng(0)
    big = [rng.standard_normal((16, 32)).astype(np.float32), rng.integers(0, 255, (8, 2, 16)).astype(np.uint8)]
    small = [
        np.array([1, -2, 3], np.int64), np.array(2.5, np.float64), np.ones((0, 4), np.float16),
        np.array([True, False]), np.array([b"a", b"bc"], object), np.array([[1, 2]], np.int8),
    ]  # fmt: skip
    tensors = [numpy_helper.from_array(array, f"t{n}") for n, array in enumerate([*big, *small])]
    tensors.append(helper.make_tensor("typed", onnx.TensorProto.FLOAT, [3], [1.0, 2.0, 3.0]))
    tensors.append(helper.make_tensor("packed", onnx.TensorProto.INT64, [4], [-1, 0, 1 << 40, 3]))
    tensors.append(helper.make_tensor("bf", onnx.TensorProto.BFLOAT16, [2], [1.0, 2.0]))
    tensors.append(helper.make_tensor("nibbles", onnx.TensorProto.INT4, [3], [1, -2, 3]))
    sparse = helper.make_sparse_tensor(
        helper.make_tensor("s", onnx.TensorProto.FLOAT, [1], [1.0]), numpy_helper.from_array(np.array([2])), [5]
    )
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(big[0][:2], "inner"))],
        "body", [], [value("c", 1, None)], [numpy_helper.from_array(big[0][:3], "of_body")],
    )  # fmt: skip
    nodes = [
        helper.make_node("If", ["cond"], ["y"], then_branch=body, else_branch=body),
        helper.make_node("MatMulNBits", ["x", "t1", "t0"], ["z"], domain="com.microsoft",
                         K=32, N=8, bits=8, block_size=16),
        helper.make_node("Custom", ["x"], ["q"], domain="mine",
                         many=[tensors[2]], strings=["a"], floats=[1.0], ints=[1, 2]),
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("Relu", ["r"], ["r2"], domain="ai.onnx"),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes, "g",
        [value("x", 1, ["batch", 32, None]), value("ids", 7, [1, "n"]), value("cond", 9, []), value("any", 10, None),
         helper.make_tensor_sequence_value_info("seq", 1, None), value("t0", 1, [16, 32])],
        [value("y", 1, ["batch", "n + 1"]), value("z", 16, [0])],
        tensors, sparse_initializer=[sparse], doc_string="d",
    )  # fmt: skip
    constant = helper.make_node("Constant", [], ["b"], value=tensors[3])
    function = helper.make_function("mine", "F", ["a"], ["b"], [constant], [helper.make_opsetid("", 21)])
    opsets = [helper.make_opsetid(domain, n) for domain, n in (("", 21), ("com.microsoft", 1), ("mine", 3))]
    made = helper.make_model(
        graph, opset_imports=opsets, functions=[function], producer_name="p", producer_version="1.2", ir_version=10
    )
    step = onnx.TrainingInfoProto()
    step.algorithm.CopyFrom(body)
    made.training_info.append(step)
    helper.set_model_props(made, {"k": "v"})
    path = tmp_path_factory.mktemp("rich") / "model.onnx"
    onnx.save(made, path, save_as_external_data=True, location="model.onnx.data", size_threshold=100)
    return path


def theirs(onnx: Any, path: Path) -> Any:
    return onnx.load(path, load_external_data=False)


def test_tensors_are_those_that_onnx_reads(rich: Path) -> None:
    onnx = pytest.importorskip("onnx")
    expected = []
    for t in messages(theirs(onnx, rich), onnx.TensorProto):
        said = {entry.key: entry.value for entry in t.external_data}
        where = (said["location"], int(said["offset"]), int(said["length"])) if said else None
        expected.append((t.name, t.data_type, tuple(t.dims), where))
    number_of = {name: number for number, (name, _) in TYPES.items()}
    found = []
    for mine in read(rich).tensors:
        where = (mine.external.location, mine.external.offset, mine.external.length) if mine.external else None
        found.append((mine.name, number_of[mine.type], mine.shape, where))
    assert Counter(found) == Counter(expected) and sum(where is not None for *_, where in found) >= 2


def test_sizes_are_those_of_the_arrays(rich: Path) -> None:
    onnx = pytest.importorskip("onnx")
    arrays = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(rich).graph.initializer}
    for mine in read(rich).tensors:
        if mine.initializer and mine.name in arrays and mine.name not in ("nibbles", "t6"):
            assert (mine.bytes, mine.elements) == (arrays[mine.name].nbytes, arrays[mine.name].size)
    sizes = {mine.name: mine.bytes for mine in read(rich).tensors}
    assert (sizes["nibbles"], sizes["t6"]) == (2, 3)  # half bytes; the letters of strings


def test_the_types_are_those_of_onnx() -> None:
    onnx = pytest.importorskip("onnx")
    known = {name.lower(): n for name, n in onnx.TensorProto.DataType.items() if name != "UNDEFINED"}
    assert len(known) >= len(TYPES)
    for n, (name, bits) in TYPES.items():
        assert n in known.values()
        if bits and bits >= 8:
            assert onnx.helper.tensor_dtype_to_np_dtype(n).itemsize * 8 == bits, name


def test_the_rest_is_what_onnx_reads(rich: Path) -> None:
    onnx = pytest.importorskip("onnx")
    their, mine = theirs(onnx, rich), read(rich)
    assert mine.ir_version == their.ir_version and mine.producer == "p 1.2"
    assert mine.opsets == {opset.domain or "ai.onnx": opset.version for opset in their.opset_import}
    names = [f"{n.domain}.{n.op_type}" if n.domain not in ("", "ai.onnx") else n.op_type
             for n in messages(their, onnx.NodeProto)]  # fmt: skip
    assert mine.operators == Counter(names) and mine.operators["Relu"] == 2
    nodes = [(tuple(n.input), tuple(n.output)) for n in messages(their, onnx.NodeProto)]
    assert sorted((n.inputs, n.outputs) for n in mine.nodes) == sorted(nodes)
    assert [v.name for v in mine.inputs] == ["x", "ids", "cond", "any", "seq"]  # but for the initializer
    for value, their_value in zip(mine.outputs, their.graph.output, strict=True):
        dims = their_value.type.tensor_type.shape.dim
        assert value.name == their_value.name
        assert value.shape == tuple(d.dim_param or d.dim_value for d in dims)
    assert mine.inputs[0] == Value("x", "f32", ("batch", 32, ""))
    assert mine.inputs[3] == Value("any", "f16", ()) and mine.inputs[4] == Value("seq", "sequence", ())
    (quantized,) = [n for n in mine.nodes if n.operator == "com.microsoft.MatMulNBits"]
    assert quantized.numbers == {"K": 32, "N": 8, "bits": 8, "block_size": 16}


def test_inputs_in_words() -> None:
    shape = ("B", 2, "past", 64)
    values = [Value("ids", "int64", ("B", "n")), *(Value(f"past.{n}.key", "f32", shape) for n in range(12))]
    assert summary(values) == {"ids": "int64 [B, n]", "past.*.key × 12": "f32 [B, 2, past, 64]"}


# --- Weights


def quantized(width: int, k: int = 64, n: int = 10, **attributes: int) -> bytes:
    """A matrix in blocks of 32, which an embedding looks up too, and a norm."""
    blocks = -(-k // 32)
    numbers = {"K": k, "N": n, "bits": width, "block_size": 32, **attributes}
    said = b"".join(data(5, data(1, key), number(3, value), number(20, 2)) for key, value in numbers.items())
    inputs = b"".join(data(1, name) for name in ("x", "q", "scales", "zeros"))
    multiply = data(1, inputs, data(2, "y"), data(4, "MatMulNBits"), data(7, "com.microsoft"), said)
    reshape = data(1, data(1, "q"), data(1, "shape"), data(2, "rows"), data(4, "Reshape"))
    lookup = data(1, data(1, "rows"), data(1, "ids"), data(1, "scales"), data(2, "e"), data(4, "GatherBlockQuantized"),
                  data(7, "com.microsoft"), data(5, data(1, "bits"), number(3, width), number(20, 2)))  # fmt: skip
    raw = bytes(n * blocks * 4 * width)
    return model(
        multiply, reshape, lookup,
        data(5, tensor(data(9, raw), name="q", kind=2, dims=(n, blocks, 4 * width))),
        data(5, tensor(data(9, bytes(4 * n * blocks)), name="scales", dims=(n, blocks))),
        data(5, tensor(data(9, bytes(n * blocks)), name="zeros", kind=2, dims=(n, blocks))),
        data(5, tensor(data(9, bytes(4 * k)), name="norm", dims=(k,))),
        data(5, tensor(data(9, bytes(16)), name="shape", kind=7, dims=(2,))),
    )  # fmt: skip


@pytest.mark.parametrize(("bits", "k"), [(8, 64), (4, 64), (2, 64), (8, 40)])
def test_weights_of_a_quantized_graph(file: Callable[[bytes], Path], bits: int, k: int) -> None:
    path = file(quantized(bits, k))
    found = weights(read(path), path)
    assert found.tensors == {f"int{bits}": 1, "f32": 1}
    assert found.counts == {f"int{bits}": 10 * k, "f32": k} and found.total == 11 * k
    assert found.bytes == 10 * 2 * 4 * bits + 4 * 20 + 20 + 4 * k + 16
    assert found.bits_per_weight == 8 * found.bytes / (11 * k)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"bits": 3}, "com.microsoft.MatMulNBits of 'q' has 3 bits in a tensor of uint8"),
        ({"bits": 16}, "has 16 bits"),
        ({"N": 11}, "has 11 × 64 weights, but room for 640"),
        ({"K": 1 << 40}, f"has 10 × {1 << 40} weights, but room for 640"),
        ({"N": -1}, "has -1 × 64 weights"),
        ({"N": -1, "K": -1}, "has -1 × -1 weights"),
        ({"K": 0}, "has 10 × 0 weights"),
    ],
)
def test_weights_that_do_not_fit_their_node(file: Callable[[bytes], Path], change: dict[str, int], told: str) -> None:
    content = quantized(8, **change)
    path = file(content.replace(b"GatherBlockQuantized", b"GatherBlockUnknowns!"))
    with pytest.raises(ModelError, match=re.escape(told)):
        weights(read(path), path)


def test_what_tensors_share_counts_once(file: Callable[[bytes], Path]) -> None:
    both = [tensor(external(("location", "d")), name=name) for name in ("head", "embedding")]
    path = file(model(*(data(5, t) for t in both), data(5, tensor(external(("location", "d"), ("offset", "24"))))))
    found = weights(read(path), path)
    assert (found.tensors, found.counts, found.bytes) == ({"f32": 2}, {"f32": 12}, 48)
    assert found.bits_per_weight == 32.0


def test_what_a_lookup_reads_may_have_passed_others(file: Callable[[bytes], Path]) -> None:
    """An embedding of its own, packed in a shape that only a node on the way makes rows of."""
    passing = [
        data(1, data(1, a), data(2, b), data(4, operator))
        for a, b, operator in (("q", "p", "Identity"), ("p", "rows", "Reshape"))
    ]
    lookup = data(1, data(1, "rows"), data(1, "ids"), data(4, "GatherBlockQuantized"), data(7, "com.microsoft"))
    path = file(model(*passing, lookup, data(5, tensor(data(9, bytes(96)), name="q", kind=2, dims=(2, 3, 16)))))
    found = weights(read(path), path)
    assert (found.tensors, found.counts) == ({"int4": 1}, {"int4": 192})  # 4 bits where nothing is said


def test_tables_of_sines_and_integers_are_no_weights(file: Callable[[bytes], Path]) -> None:
    names = ("q", "k", "v", "pk", "pv", "len", "total", "cos", "sin")
    attention = data(1, *(data(1, n) for n in names), data(4, "GroupQueryAttention"), data(7, "com.microsoft"))
    tensors = [data(5, tensor(data(9, bytes(24)), name=name)) for name in ("cos", "sin", "w")]
    path = file(model(attention, *tensors, data(5, tensor(data(9, bytes(48)), name="shape", kind=7))))
    found = weights(read(path), path)
    assert (found.counts, found.bytes) == ({"f32": 6}, 24 + 48)
    path = file(model())
    assert weights(read(path), path).bits_per_weight == 0.0


def test_rings_of_names_end(file: Callable[[bytes], Path]) -> None:
    ring = [data(1, data(1, a), data(2, b), data(4, "Identity")) for a, b in (("a", "b"), ("b", "a"), ("c", "c"))]
    path = file(model(*ring, data(1, data(1, "x"), data(1, "a"), data(4, "MatMulNBits"), data(7, "com.microsoft"))))
    assert weights(read(path), path).total == 0


# --- What is no sound file

DEEP = b""
for _ in range(100):
    DEEP = node(attribute(data(6, DEEP)))
RAW = tensor(data(9, bytes(24)))
BAD: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "empty, not an ONNX file; fetch or convert it again"),
    "text": (b"Once upon a time", "damaged ONNX at byte 0: the file has a field of the unknown wire type 7"),
    "zip": (b"PK\3\4", "damaged ONNX at byte 2: the file has the invalid field number 0"),
    "gguf": (b"GGUF\3\0\0\0" + bytes(99), "at byte 0: the file has a field of the unknown wire type 7"),
    "flatbuffer": (b"\x20\0\0\0ORTM" + bytes(99), "in onnxruntime's own format, not ONNX"),
    "no graph": (number(1, 10) + OPSET, "not an ONNX file, or cut off: it has no graph"),
    "no operators": (number(1, 10) + data(7), "it has no version of its operators"),
    "no version": (data(7) + OPSET, "it has no IR version"),
    "half a number": (model() + b"\x08\x80", "a number is cut off"),
    "long number": (model() + b"\x08" + b"\x80" * 10 + b"\1", "a number of more than 10 bytes"),
    "field 0": (model() + b"\0\0", "the file has the invalid field number 0"),
    "field 2^29": (model() + number(1 << 29, 1), "the file has the invalid field number 536870912"),
    "group": (model() + b"\x9b\x06\x9c\x06", "the file has a field of the unknown wire type 3"),
    "beyond the file": (model() + b"\x72\x7f", "a field of the file needs 127 bytes, 0 are left"),
    "beyond the message": (model(b"\x2a\x05\x08"), "a field of the graph needs 5 bytes, 1 are left"),
    "huge length": (model(b"\x2a" + varint(2**64 - 1)), f"needs {2**64 - 1} bytes"),
    "cut float": (model(node(data(5, b"\x15\0\0"))), "a field of an attribute needs 4 bytes"),
    "deep": (model(DEEP), "more than 64 nested messages"),
    "two graphs": (model() + data(7), "the file has the graph in 2 pieces"),
    "two tensors in one": (model(node(attribute(data(5, RAW), data(5, RAW)))), "an attribute has a tensor in 2 pieces"),
    "unknown type": (model(data(5, tensor(kind=27))), "tensor 'w' has the unknown type 27"),
    "type 2^32 + 1": (model(data(5, tensor(kind=2**32 + 1))), "has the unknown type 4294967297"),
    "negative": (model(data(5, tensor(dims=(-1, 2)))), "tensor 'w' has an impossible shape of 2 dimensions"),
    "many dims": (model(data(5, tensor(dims=(1,) * 65))), "an impossible shape of 65 dimensions"),
    "many elements": (model(data(5, tensor(dims=(1 << 40, 1 << 40)))), "an impossible shape of 2 dimensions"),
    "packed dims": (model(data(5, data(1, varint(2**63)), tensor())), "an impossible shape of 3 dimensions"),
    "too little data": (model(data(5, tensor(data(9, bytes(23))))), "of shape (2, 3) needs 24 bytes, it has 23"),
    "too much data": (model(data(5, tensor(data(9, bytes(25))))), "needs 24 bytes, it has 25"),
    "two of a dimension": (
        model(data(11, data(1, "x"), data(2, data(1, number(1, 1), data(2, data(1, number(1, 4), data(2, "n"))))))),
        "a dimension has a size and a name",
    ),
    "input of 65": (
        model(data(11, data(2, data(1, data(2, *[data(1, number(1, 1))] * 65))))), "an input of 65 dimensions"
    ),
    "long name": (model(data(1, data(4, "x" * 65536))), "a name in a node of 65536 bytes, more than 65535"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "told"), BAD.values(), ids=BAD.keys())
def test_a_damaged_file(file: Callable[[bytes], Path], content: bytes, told: str) -> None:
    with pytest.raises(ModelError, match=re.escape(told)) as caught:
        read(file(content))
    assert "model.onnx: " in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 600


WHERE = ("location", "model.onnx.data")
REFERENCES: dict[str, tuple[bytes, str]] = {
    "no location": (external(("offset", "0")), "has external data without a valid location"),
    "nothing": (number(14, 1), "without a valid location"),
    "unknown place": (number(14, 7), "without a valid location"),
    "unknown place with a name": (
        data(13, data(1, "location"), data(2, "d")) + number(14, 7),
        "without a valid location",
    ),
    "twice": (external(WHERE, WHERE), "has its location twice"),
    "two offsets": (external(WHERE, ("offset", "0"), ("offset", "8")), "has its offset twice"),
    "unknown key": (
        external(WHERE, ("prepacked_0", "k|0;8;x")),
        "has the unknown key 'prepacked_0' in its external data",
    ),
    "negative offset": (external(WHERE, ("offset", "-8")), "has the offset '-8', which is not a number of bytes"),
    "offset in words": (external(WHERE, ("offset", "eight")), "has the offset 'eight'"),
    "offset with a blank": (external(WHERE, ("offset", " 8")), "has the offset ' 8'"),
    "offset of other digits": (external(WHERE, ("offset", "٨")), "has the offset"),
    "huge offset": (external(WHERE, ("offset", "9" * 30)), "has the offset"),
    "empty length": (external(WHERE, ("length", "")), "has the length ''"),
    "other length": (external(WHERE, ("length", "8")), "needs 24 bytes of external data, not 8"),
}


@pytest.mark.parametrize(("said", "told"), REFERENCES.values(), ids=REFERENCES.keys())
def test_a_reference_that_makes_no_sense(file: Callable[[bytes], Path], said: bytes, told: str) -> None:
    with pytest.raises(ModelError, match=re.escape(told)):
        read(file(model(data(5, tensor(said)))))
    with pytest.raises(ModelError, match="is of strings, which cannot be external data"):
        read(file(model(data(5, tensor(external(WHERE), kind=8)))))


def test_a_reference_counts_without_its_mark(file: Callable[[bytes], Path]) -> None:
    """Some readers take `external_data` alone for one, others the mark; what stands in two pieces is joined by both."""
    unmarked = tensor(data(13, data(1, "location"), data(2, "d")))
    assert read(file(model(data(5, unmarked)))).tensors[0].external == External("d", 0, 24)
    last = tensor(data(13, data(1, "location"), data(2, "a"), data(2, "b")), number(14, 1))
    assert read(file(model(data(5, last)))).tensors[0].external == External("b", 0, 24)


def test_what_is_written_otherwise_is_an_unknown_field(file: Callable[[bytes], Path]) -> None:
    """A tag's kind belongs to the field: a name as eight bytes is none, so no reader takes it for one."""
    key = data(1, "location") + varint(1 << 3 | 1) + b"checksum"
    value = data(2, "d") + varint(2 << 3 | 5) + b"x.go" + number(2, 7)
    path = file(model(data(5, tensor(data(13, key, value), number(14, 1)))))
    assert read(path).tensors[0].external == External("d", 0, 24)
    onnx = pytest.importorskip("onnx")
    (entry,) = theirs(onnx, path).graph.initializer[0].external_data
    assert (entry.key, entry.value) == ("location", "d")


def test_unknown_fields_are_passed_over(file: Callable[[bytes], Path]) -> None:
    floats = varint(1002 << 3 | 5) + bytes(4) + varint(1003 << 3 | 1) + bytes(8)
    unknown = number(1000, 5) + data(1001, b"\xff" * 9) + floats
    path = file(model(data(5, tensor(unknown, data(9, bytes(24)))), unknown, more=unknown))
    assert read(path).tensors == (Tensor("w", "f32", (2, 3), 24, None, True),)


def test_files_of_another_kind(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        read(tmp_path / "x.onnx")
    with pytest.raises(ModelError, match="not a regular file"):
        read(tmp_path)
    huge = tmp_path / "huge.onnx"
    with huge.open("wb") as stream:
        stream.truncate(1 << 31)
    with pytest.raises(ModelError, match="2,147,483,648 bytes, more than an ONNX file can have"):
        read(huge)
    with huge.open("r+b") as stream:  # nearly 2 GiB in one field that nobody asks for: a sparse file, never read
        head = model()
        stream.truncate((1 << 31) - 1)
        stream.write(head + varint(6 << 3 | 2) + varint((1 << 31) - 1 - len(head) - 6))
    assert read(huge).opsets == {"ai.onnx": 21}


def test_the_number_of_fields_has_a_limit(file: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protobuf, "_MAX_FIELDS", 1000)
    assert read(file(model(data(1) * 900))).operators == {"": 900}
    with pytest.raises(ModelError, match="more than 1000 fields"):
        read(file(model(data(1) * 1000)))
    with pytest.raises(ModelError, match="more than 1000 fields"):
        read(file(model(data(5, data(1, bytes(2000))))))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """A small sound model with a reference in many places."""
    t = tensor(external(WHERE, ("length", "24")))
    inner = node(attribute(data(6, data(5, t), node(attribute(data(5, t)))), data(10, t), data(22, data(1, t))))
    kind = data(1, number(1, 1), data(2, data(1, number(1, 4))))
    function = data(25, data(7, attribute(data(5, t))))
    content = model(data(5, t), inner, data(11, data(1, "x"), data(2, kind)), more=function)
    path = tmp_path_factory.mktemp("whole") / "model.onnx"
    path.write_bytes(content)
    assert len([t for t in read(path).tensors if t.external]) == 6
    return path.with_name("other.onnx"), content


def attempt(path: Path, content: bytes) -> onnx_graph.Graph | None:
    path.write_bytes(content)
    try:
        return read(path)
    except ModelError as error:
        assert "\n" not in str(error)
        return None


def test_every_truncation(whole: tuple[Path, bytes]) -> None:
    """A part that is a message by itself may pass, no other, and none with another graph."""
    path, content = whole
    graph = attempt(path, content)
    assert graph is not None
    passed = [n for n in range(len(content)) if attempt(path, content[:n])]
    assert len(passed) <= 1  # without the function at the end
    assert all(attempt(path, content[:n]).inputs == graph.inputs for n in passed)  # type: ignore[union-attr]


def references(onnx: Any, content: bytes) -> Counter[str] | None:
    """The files that onnx would look for; None where it cannot read the model either."""
    made = onnx.ModelProto()
    try:
        made.ParseFromString(content)
        found = [t for t in messages(made, onnx.TensorProto) if t.external_data]
        values = [entry.value for t in found for entry in t.external_data if entry.key == "location"]
        return Counter(v if isinstance(v, str) else v.decode(errors="replace") for v in values)  # bytes if no UTF-8
    except Exception:
        return None


def test_no_reference_is_overlooked(whole: tuple[Path, bytes]) -> None:
    """Whatever is changed: what onnx takes for a reference, and is not refused, is seen here too."""
    onnx = pytest.importorskip("onnx")
    path, content = whole
    rng = random.Random(0)
    alphabet = [0, 1, 2, 7, 8, 10, 13, 14, 18, 42, 58, 98, 106, 112, 127, 128, 200, 255]
    passed = both = 0
    for _ in range(2000):
        changed = bytearray(content)
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            at, kind = rng.randrange(len(changed)), rng.random()
            if kind < 0.6:
                changed[at] = rng.choice(alphabet) if rng.random() < 0.7 else rng.randrange(256)
            elif kind < 0.8:
                changed[at:at] = bytes(rng.choice(alphabet) for _ in range(rng.randint(1, 3)))
            elif kind < 0.9:
                del changed[at : at + rng.randint(1, 4)]
            else:
                start = rng.randrange(len(changed))
                changed[at:at] = changed[start : start + rng.randint(1, 60)]
        graph = attempt(path, bytes(changed))
        their = references(onnx, bytes(changed))
        if graph is None:
            continue
        passed += 1
        if their is not None:
            both += 1
            mine = Counter(t.external.location for t in graph.tensors if t.external)
            assert not their - mine, bytes(changed)
    assert passed > 200 and both > 200  # else the test would look at nothing


def fuzz(function: Any) -> Any:
    return settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])(
        function
    )


@fuzz
@given(content=st.binary(max_size=200), head=st.booleans())
def test_random_bytes(tmp_path: Path, content: bytes, head: bool) -> None:
    attempt(tmp_path / "m.onnx", (model() if head else b"") + content)


@fuzz
@given(at=st.integers(0, 200), value=st.sampled_from([0, 1, 2**31, 2**32, 2**61, 2**63 - 1, 2**63, 2**64 - 1]))
def test_hostile_numbers(whole: tuple[Path, bytes], at: int, value: int) -> None:
    path, content = whole
    attempt(path, content[:at] + varint(value) + content[at + 1 :])


# --- Once


def test_a_file_is_parsed_again_only_when_another_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_graph, "_PARSED", {})
    parsed: list[Path] = []
    graph = onnx_graph._Reader.graph

    def counted(reader: onnx_graph._Reader) -> onnx_graph.Graph:
        parsed.append(reader.file.path)
        return graph(reader)

    monkeypatch.setattr(onnx_graph._Reader, "graph", counted)
    one, same, other = tmp_path / "1.onnx", tmp_path / "same.onnx", tmp_path / "2.onnx"
    for path, name in ((one, "a"), (same, "a"), (other, "b")):
        path.write_bytes(model(data(5, tensor(name=name))))
    assert [read(path).tensors[0].name for path in (one, one, same, other, other, one)] == [*"aaabba"]
    assert parsed == [one, other, one] and len(onnx_graph._PARSED) == 1
    one.write_bytes(model(data(5, tensor(name="c"))))  # of the same length
    assert read(one).tensors[0].name == "c"


def test_damage_is_told_of_the_file_that_is_read_each_time(tmp_path: Path) -> None:
    for name in ("1.onnx", "2.onnx"):
        (tmp_path / name).write_bytes(model()[:-1])
        for _ in range(2):
            with pytest.raises(ModelError, match=re.escape(f"{tmp_path / name}: damaged ONNX")):
                read(tmp_path / name)
