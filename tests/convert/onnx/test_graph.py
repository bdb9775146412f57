"""What an exporter wrote becomes the graph of the contract, and computes what it computed before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bioner_edge.errors import ModelError, UsageError

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnx
import onnxruntime
import transformers
from onnx import TensorProto, helper, numpy_helper

from bioner_edge.convert.onnx import child, export, graph, layout

transformers.utils.logging.disable_progress_bar()
transformers.utils.logging.set_verbosity_error()

Array = np.ndarray[Any, Any]
Exported = Callable[[str, str], Path]

FAMILIES = ("llama", "qwen2", "gemma2", "phi3")


# --- Graphs of the exporters

# Optimum traces a model, which takes seconds: one family stands for the others.
OTHERS = ("mistral", "smollm3", "granite", "qwen", "gemma", "phi3", "olmo2")
pytestmark = pytest.mark.thorough(
    only=["optimum", *(pattern for name in OTHERS for pattern in (f"*optimum*{name}*", f"*{name}*optimum*"))]
)


@pytest.fixture(scope="session")
def exported(make_family: Any, families: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A function (family, exporter) -> the graph that the exporter wrote, once."""
    made: dict[tuple[str, str], Path] = {}

    def exported(family: str, exporter: str) -> Path:
        try:
            export.require(exporter, families[family])
        except UsageError as error:
            pytest.skip(str(error))
        if (family, exporter) not in made:
            folder = tmp_path_factory.mktemp("exported")
            source = make_family(folder / "hf", family, gate=1.0 if family.startswith("gemma") else None)
            made[family, exporter] = child.export(exporter, source, folder)
        return made[family, exporter]

    return exported


def finished(source: Path, out: Path) -> Path:
    """The graph made of `source` in the folder `out`."""
    out.mkdir()
    graph.finish(source, out / "model.onnx")
    return out / "model.onnx"


def session(path: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def logits(path: Path, ids: Array, pieces: Sequence[int]) -> Array:
    """The logits after each of some pieces of ids, with the cache as it comes. Shape: (batch, pieces, vocabulary)"""
    model = session(path)
    inputs = {one.name: one.shape for one in model.get_inputs()}
    outputs = [one.name for one in model.get_outputs()]
    past = {n: np.zeros((len(ids), s[1], 0, s[3]), np.float32) for n, s in inputs.items() if n.startswith("past")}
    found, done = [], 0
    for size in pieces:
        end = done + size
        fed = {
            "input_ids": ids[:, done:end],
            "attention_mask": np.ones((len(ids), end), np.int64),
            "position_ids": np.tile(np.arange(done, end), (len(ids), 1)),
        }
        fed = {name: values for name, values in fed.items() if name in inputs}
        got = dict(zip(outputs, model.run(None, {**fed, **past}), strict=True))
        past = {name: got[name.replace("past_key_values", "present")] for name in past}
        found.append(got["logits"][:, -1])
        done = end
    return np.stack(found, axis=1)


def assert_alike(ours: Array, theirs: Array) -> None:
    """One row is multiplied by other code than several: it adds up in another order."""
    assert np.abs(ours - theirs).max() <= 1e-6 * theirs.std()


@pytest.mark.parametrize("exporter", export.EXPORTERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_last_logits_stay_as_they_were(exported: Exported, family: str, exporter: str, tmp_path: Path) -> None:
    source = exported(family, exporter)
    path = finished(source, tmp_path / "out")
    ids = np.random.default_rng(0).integers(0, 400, (2, 60))
    for fed, pieces in ((ids[:1], (20, 1, 9, 30)), (ids, (20, 1, 1))):
        assert_alike(logits(path, fed, pieces), logits(source, fed, pieces))


@pytest.mark.parametrize("exporter", export.EXPORTERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_inputs_and_outputs_are_the_contract(exported: Exported, family: str, exporter: str, tmp_path: Path) -> None:
    model = session(finished(exported(family, exporter), tmp_path / "out"))
    layers = 4 if family == "gemma2" else 2
    cached = [f"{layer}.{part}" for layer in range(layers) for part in ("key", "value")]
    inputs = [one.name for one in model.get_inputs()]
    inputs = [name for name in inputs if name != "position_ids"]
    assert inputs == ["input_ids", "attention_mask", *(f"past_key_values.{name}" for name in cached)]
    assert [one.name for one in model.get_outputs()] == ["logits", *(f"present.{name}" for name in cached)]
    assert model.get_outputs()[0].shape[1:] == [1, 401]
    assert all(isinstance(size, int) for one in model.get_inputs()[-2:] for size in (one.shape[1], one.shape[3]))


@pytest.mark.parametrize("exporter", export.EXPORTERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_tensors_lie_as_the_contract_says(exported: Exported, family: str, exporter: str, tmp_path: Path) -> None:
    path = finished(exported(family, exporter), tmp_path / "out")
    assert sorted(file.name for file in path.parent.iterdir()) == ["model.onnx", "model.onnx.data"]
    end = 0
    for tensor in onnx.load(path, load_external_data=False).graph.initializer:
        size = int(np.prod(tensor.dims)) * np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type)).itemsize
        if size < 1024:
            assert tensor.HasField("raw_data")
            continue
        where = {entry.key: entry.value for entry in tensor.external_data}
        assert where["location"] == "model.onnx.data" and int(where["length"]) == size
        assert int(where["offset"]) % 4096 == 0
        end = max(end, int(where["offset"]) + size)
    assert path.with_suffix(".onnx.data").stat().st_size == end


@pytest.mark.parametrize("exporter", export.EXPORTERS)
def test_the_same_source_gives_the_same_bytes(exported: Exported, exporter: str, tmp_path: Path) -> None:
    source = exported("qwen2", exporter)
    one, other = (finished(source, tmp_path / name) for name in ("one", "other"))
    for name in ("model.onnx", "model.onnx.data"):
        assert (one.parent / name).read_bytes() == (other.parent / name).read_bytes()


@pytest.mark.parametrize("exporter", export.EXPORTERS)
@pytest.mark.parametrize("family", ("qwen2", "gemma2"))
def test_a_tied_matrix_is_there_once(exported: Exported, family: str, exporter: str, tmp_path: Path) -> None:
    made = onnx.load(finished(exported(family, exporter), tmp_path / "out"), load_external_data=False).graph
    (name,) = [tensor.name for tensor in made.initializer if 401 in tensor.dims]
    assert [list(tensor.dims) for tensor in made.initializer if tensor.name == name] == [[401, 64]]
    assert sorted(node.op_type for node in made.node if name in node.input) == ["FusedMatMul", "Gather"]


@pytest.mark.parametrize("exporter", export.EXPORTERS)
def test_the_cut_is_before_the_projection_not_after_the_caps(exported: Exported, exporter: str, tmp_path: Path) -> None:
    made = layout.Graph(finished(exported("gemma2", exporter), tmp_path / "out"))
    hidden = graph.head(made).input[0]
    makers = {name: node for node in made.top.node for name in node.output}
    if makers[hidden].op_type == "Unsqueeze":  # the builder takes one position, and gives back the axis
        hidden = makers[hidden].input[0]
    assert makers[hidden].op_type == "Gather"
    assert layout.attributes(makers[hidden])["axis"] == 1
    assert makers["logits"].op_type == "Mul"


# --- Graphs made here: the smallest that fulfil the contract


WIDTH, VOCABULARY = 32, 50
Change = Callable[[Any], None]


def small(folder: Path, change: Change | None = None) -> Path:
    """A graph of one layer that only appends to its cache, after a change."""
    random = np.random.default_rng(0)

    def weights(name: str, *shape: int) -> Any:
        return numpy_helper.from_array(random.standard_normal(shape).astype(np.float32), name)

    def value(name: str, dtype: int, *shape: int | str) -> Any:
        return helper.make_tensor_value_info(name, dtype, shape)

    def cache(when: str, length: str) -> list[Any]:
        return [value(f"{when}.0.{part}", TensorProto.FLOAT, "batch", 2, length, 16) for part in ("key", "value")]

    nodes = [
        helper.make_node("Gather", ["embedding", "input_ids"], ["hidden"]),
        helper.make_node("Reshape", ["hidden", "heads"], ["split"]),
        helper.make_node("Transpose", ["split"], ["fresh"], perm=[0, 2, 1, 3]),
        helper.make_node("Concat", ["past_key_values.0.key", "fresh"], ["present.0.key"], axis=2),
        helper.make_node("Concat", ["past_key_values.0.value", "fresh"], ["present.0.value"], axis=2),
        helper.make_node("MatMul", ["hidden", "output"], ["raw"]),
        helper.make_node("Div", ["raw", "cap"], ["logits"]),
    ]
    made = helper.make_graph(
        nodes,
        "main",
        [
            value("attention_mask", TensorProto.INT64, "batch", "total"),
            *cache("past_key_values", "past"),
            value("input_ids", TensorProto.INT64, "batch", "positions"),
        ],
        [value("logits", TensorProto.FLOAT, "batch", "positions", VOCABULARY), *cache("present", "total")],
        [
            weights("embedding", VOCABULARY, WIDTH),
            weights("output", WIDTH, VOCABULARY),
            numpy_helper.from_array(np.array([0, 0, 2, 16], np.int64), "heads"),
            numpy_helper.from_array(np.float32(3.0), "cap"),
        ],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    if change:
        change(model)
    folder.mkdir(exist_ok=True)
    onnx.save(model, folder / "source.onnx")
    return folder / "source.onnx"


IDS = np.random.default_rng(1).integers(0, VOCABULARY, (2, 12))


def changed_alike(tmp_path: Path, change: Change | None = None) -> Any:
    """The finished graph of a changed small one, which must give the same logits."""
    source = small(tmp_path / "source", change)
    path = finished(source, tmp_path / "out")
    assert_alike(logits(path, IDS, (5, 1, 6)), logits(source, IDS, (5, 1, 6)))
    return onnx.load(path, load_external_data=False)


def test_a_small_graph_is_put_in_order(tmp_path: Path) -> None:
    made = changed_alike(tmp_path).graph
    assert [one.name for one in made.input][:2] == ["input_ids", "attention_mask"]
    assert made.output[0].type.tensor_type.shape.dim[1].dim_value == 1


def test_what_no_output_needs_is_dropped(tmp_path: Path) -> None:
    def change(model: Any) -> None:
        model.graph.initializer.append(numpy_helper.from_array(np.ones(5000, np.float32), "lost"))
        model.graph.node.insert(0, helper.make_node("Exp", ["lost"], ["found"]))

    made = changed_alike(tmp_path, change).graph
    assert "lost" not in {tensor.name for tensor in made.initializer}
    assert "Exp" not in {node.op_type for node in made.node}


def test_where_and_how_it_was_made_is_dropped(tmp_path: Path) -> None:
    secret = "/home/somebody/models"

    def change(model: Any) -> None:
        node, tensor = model.graph.node[0], model.graph.initializer[0]
        for message in (model, model.graph, node, tensor, model.graph.input[0], model.graph.output[0]):
            message.doc_string = secret
            message.metadata_props.add(key="path", value=secret)
        model.graph.value_info.append(helper.make_tensor_value_info("raw", TensorProto.FLOAT, [secret]))

    changed_alike(tmp_path, change)
    assert secret.encode() not in (tmp_path / "out" / "model.onnx").read_bytes()


def test_what_two_tensors_share_lies_there_once(tmp_path: Path) -> None:
    def change(model: Any) -> None:
        for at, name in ((3, "one"), (4, "other")):
            model.graph.initializer.append(numpy_helper.from_array(np.ones((1, 2, 300, 16), np.float32), name))
            model.graph.node[at].op_type = "Sum"
            model.graph.node[at].ClearField("attribute")
            model.graph.node[at].input.append(name)

    source = small(tmp_path / "source", change)
    made = onnx.load(finished(source, tmp_path / "out"), load_external_data=False).graph
    where = {tensor.name: [(e.key, e.value) for e in tensor.external_data] for tensor in made.initializer}
    assert where["one"] == where["other"] != where["embedding"]
    assert (tmp_path / "out" / "model.onnx.data").stat().st_size < 2 * 4 * 2 * 300 * 16


def test_a_kibibyte_leaves_the_graph(tmp_path: Path) -> None:
    def change(model: Any) -> None:
        """hidden = embedding + 0 · the size of each of two tensors"""
        for name, length in (("less", 255), ("more", 256)):
            model.graph.initializer.append(numpy_helper.from_array(np.zeros(length, np.float32), name))
            model.graph.node.insert(0, helper.make_node("ReduceSum", [name], [f"{name} in all"], keepdims=0))
        model.graph.node.insert(2, helper.make_node("Sum", ["embedding", "less in all", "more in all"], ["sum"]))
        model.graph.node[3].input[0] = "sum"

    inline = {tensor.name: tensor.HasField("raw_data") for tensor in changed_alike(tmp_path, change).graph.initializer}
    assert inline["less"] and not inline["more"]


def test_large_constants_leave_the_graph_and_its_branches(tmp_path: Path) -> None:
    def table(name: str, value: float) -> Any:
        values = numpy_helper.from_array(np.full((VOCABULARY, WIDTH), value, np.float32))
        return helper.make_node("Constant", [], [name], value=values)

    def branch(name: str, value: float) -> Any:
        output = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        return helper.make_graph([table(name, value)], name, [], [output])

    def change(model: Any) -> None:
        """hidden = embedding + a table of ones or twos, by the length, + a table of threes"""
        ends = numpy_helper.from_array(np.array([8], np.int64), "far")
        model.graph.initializer.append(ends)
        first = [
            helper.make_node("Shape", ["attention_mask"], ["length"], start=1),
            helper.make_node("Greater", ["length", "far"], ["is_far"]),
            helper.make_node("If", ["is_far"], ["some"], then_branch=branch("a", 1), else_branch=branch("b", 2)),
            table("always", 3),
            helper.make_node("Sum", ["embedding", "some", "always"], ["sum"]),
        ]
        model.graph.node[0].input[0] = "sum"
        for node in reversed(first):
            model.graph.node.insert(0, node)

    made = changed_alike(tmp_path, change).graph
    assert (tmp_path / "out" / "model.onnx").stat().st_size < 4000
    assert "Constant" not in {node.op_type for node in made.node}
    assert {tensor.name for tensor in made.initializer} >= {"always", "embedding"}


def turned(model: Any) -> None:
    """The output matrix is the embedding, read transposed."""
    del model.graph.initializer[1]
    model.graph.node.insert(0, helper.make_node("Transpose", ["embedding"], ["output"], perm=[1, 0]))


def turned_otherwise(model: Any) -> None:
    """The embedding is the output matrix, read transposed."""
    del model.graph.initializer[0]
    model.graph.node.insert(0, helper.make_node("Transpose", ["output"], ["embedding"]))


@pytest.mark.parametrize("change", [turned, turned_otherwise])
def test_what_is_read_transposed_is_not_transposed_at_every_start(change: Change, tmp_path: Path) -> None:
    made = changed_alike(tmp_path, change).graph
    assert [node.op_type for node in made.node if node.op_type == "Transpose"] == ["Transpose"]  # of the cache
    (matrix,) = [tensor for tensor in made.initializer if len(tensor.dims) == 2]
    assert list(matrix.dims) == [VOCABULARY, WIDTH]


def test_a_transpose_that_has_other_readers_stays(tmp_path: Path) -> None:
    def change(model: Any) -> None:
        turned(model)
        model.graph.node.insert(1, helper.make_node("ReduceSum", ["output"], ["sums"], keepdims=0))
        hidden = helper.make_node("Mul", ["raw_hidden", "sums"], ["hidden"])
        model.graph.node[2].output[0] = "raw_hidden"
        model.graph.node.insert(3, hidden)

    assert [node.op_type for node in changed_alike(tmp_path, change).graph.node].count("Transpose") == 2


def test_a_transpose_that_turns_nothing_turns_nothing(tmp_path: Path) -> None:
    def change(model: Any) -> None:
        model.graph.node[0].input[0] = "same"
        model.graph.node.insert(0, helper.make_node("Transpose", ["embedding"], ["same"], perm=[0, 1]))

    changed_alike(tmp_path, change)


def test_what_a_branch_reads_from_outside_stays(tmp_path: Path) -> None:
    def branch(name: str) -> Any:
        output = helper.make_tensor_value_info(f"of {name}", TensorProto.FLOAT, None)
        return helper.make_graph([helper.make_node("Identity", [name], [f"of {name}"])], name, [], [output])

    def change(model: Any) -> None:
        for name in ("one", "other"):
            values = np.random.default_rng(len(name)).standard_normal((VOCABULARY, WIDTH)).astype(np.float32)
            model.graph.initializer.append(numpy_helper.from_array(values, name))
        model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
        model.graph.node[0].input[0] = "either"
        either = helper.make_node("If", ["yes"], ["either"], then_branch=branch("one"), else_branch=branch("other"))
        model.graph.node.insert(0, either)

    changed_alike(tmp_path, change)


def test_an_exporter_that_cuts_is_left_alone(tmp_path: Path) -> None:
    def change(model: Any) -> None:
        model.graph.initializer.append(numpy_helper.from_array(np.array([-1], np.int64), "minus"))
        model.graph.node[-2].input[0] = "cut"
        model.graph.node.insert(5, helper.make_node("Gather", ["hidden", "minus"], ["cut"], axis=1))
        model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 1

    made = changed_alike(tmp_path, change).graph
    assert [node.op_type for node in made.node].count("Gather") == 2


def test_weights_among_the_inputs_are_not_inputs(tmp_path: Path) -> None:
    def change(model: Any) -> None:
        value = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [VOCABULARY, WIDTH])
        model.graph.input.insert(0, value)

    source = small(tmp_path / "source", change)
    made = onnx.load(finished(source, tmp_path / "out"), load_external_data=False).graph
    assert made.input[0].name == "input_ids" and len(made.input) == 4


def external(tmp_path: Path) -> Path:
    """A small graph whose tensors lie in two files, as optimum leaves them."""
    source = small(tmp_path / "source")
    model = onnx.load(source)
    for at, tensor in enumerate(model.graph.initializer[:2]):
        onnx.external_data_helper.set_external_data(tensor, f"weights{at}")
        (source.parent / f"weights{at}").write_bytes(tensor.raw_data)
        tensor.ClearField("raw_data")
    (source.parent / "other.onnx").write_bytes(model.SerializeToString())
    return source.parent / "other.onnx"


def test_tensors_are_read_from_other_files(tmp_path: Path) -> None:
    source = external(tmp_path)
    path = finished(source, tmp_path / "out")
    assert_alike(logits(path, IDS, (12,)), logits(source.parent / "source.onnx", IDS, (12,)))


@pytest.mark.parametrize(("lost", "told"), [(True, "No such file"), (False, "greater than file size")])
def test_tensors_whose_file_is_not_whole_are_refused(lost: bool, told: str, tmp_path: Path) -> None:
    source = external(tmp_path)
    file = source.parent / "weights1"
    if lost:
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ModelError, match=rf"weights1: output cannot be read: .*{told}.*; export it again"):
        finished(source, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def renamed(model: Any) -> None:
    model.graph.input[3].name = "tokens"
    model.graph.node[0].input[1] = "tokens"


def without_cache(model: Any) -> None:
    del model.graph.output[1:]


def halved(model: Any) -> None:
    model.graph.input[1].type.tensor_type.elem_type = TensorProto.FLOAT16


def flat(model: Any) -> None:
    del model.graph.output[0].type.tensor_type.shape.dim[0]


def unsized(model: Any) -> None:
    model.graph.output[0].type.tensor_type.shape.dim[2].dim_param = "vocabulary"


def mixing(model: Any) -> None:
    model.graph.node[-1].op_type = "Softmax"
    del model.graph.node[-1].input[1]


def unprojected(model: Any) -> None:
    model.graph.node[-2].input[1] = "hidden"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (renamed, "its inputs lack input_ids and have tokens in addition; export it as text generation with past"),
        (without_cache, r"its outputs lack present\.0\.key, present\.0\.value and have nothing in addition; .*"),
        (halved, r"past_key_values\.0\.key is FLOAT16, not FLOAT; export it in float32"),
        (flat, "its logits are not .batch, positions, vocabulary.; export it again"),
        (unsized, "its logits are not .batch, positions, vocabulary.; export it again"),
        (mixing, "its logits come from Softmax, not a projection; export it again"),
        (unprojected, "its logits come from MatMul, not a projection; export it again"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_another_graph_is_refused(change: Change, told: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=f"^[^\n]*source.onnx: {told}$"):
        finished(small(tmp_path / "source", change), tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_what_is_no_graph_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no graph at all")
    with pytest.raises(ModelError, match=r"model\.onnx: is not an ONNX graph: .*; export it again"):
        finished(tmp_path / "model.onnx", tmp_path / "out")
    with pytest.raises(ModelError, match=r"none\.onnx: cannot be read: No such file"):
        finished(tmp_path / "none.onnx", tmp_path / "other")
