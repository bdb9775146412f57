"""Each exporter's graph computes what transformers computes, in plain onnxruntime, or the checkpoint is refused."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bioner_edge.errors import BionerError, ModelError, UsageError
from bioner_edge.report import Report

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("onnxruntime")

import onnxruntime
import torch
import transformers

from bioner_edge.convert.architectures import ARCHITECTURES
from bioner_edge.convert.onnx import child, export, torch_model

transformers.utils.logging.disable_progress_bar()
transformers.utils.logging.set_verbosity_error()

Config = dict[str, Any]
Array = np.ndarray[Any, Any]

_CLOSE = 1e-4  # standard deviations of the reference's logits; what was measured is at most 1e-5
SIX = ("llama", "qwen2", "qwen3", "gemma2", "gemma3", "phi3")

# Optimum traces a model, which takes seconds: one family stands for the others.
OTHERS = ("mistral", "smollm3", "granite", "qwen", "gemma", "phi3", "olmo2")
pytestmark = pytest.mark.thorough(
    only=["optimum", *(pattern for name in OTHERS for pattern in (f"*optimum*{name}*", f"*{name}*optimum*"))]
)


class Graph:
    """An exported graph, run as a user of onnxruntime would: every input fed, every output fetched."""

    def __init__(self, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 4
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.inputs = {one.name: one for one in self.session.get_inputs()}
        self.outputs = {one.name: one for one in self.session.get_outputs()}

    def logits(self, ids: Array, pieces: Sequence[int]) -> Array:
        """The logits after each of some pieces of the ids. Shape: ids (batch, n) to (batch, pieces, vocabulary)"""
        past = {
            name: np.zeros((len(ids), one.shape[1], 0, one.shape[3]), np.float32)
            for name, one in self.inputs.items()
            if name.startswith("past_key_values.")
        }
        found, done = [], 0
        for size in pieces:
            end = done + size
            fed = {
                "input_ids": ids[:, done:end],
                "attention_mask": np.ones((len(ids), end), np.int64),
                "position_ids": np.tile(np.arange(done, end), (len(ids), 1)),
            }
            fed = {name: values for name, values in fed.items() if name in self.inputs}
            got = dict(zip(self.outputs, self.session.run(None, {**fed, **past}), strict=True))
            past = {name: got[name.replace("past_key_values", "present")] for name in past}
            found.append(got["logits"][:, -1])
            done = end
        return np.stack(found, axis=1)


class Exported:
    """A checkpoint, its graph, and the model that it must equal."""

    def __init__(self, folder: Path, exporter: str, out: Path) -> None:
        self.folder = folder
        _, self.context = torch_model.check(folder)
        self.path = child.export(exporter, folder, out)
        self.graph = Graph(self.path)
        read: Any = transformers.AutoModelForCausalLM.from_pretrained  # what it saved itself
        self.model = read(folder, dtype=torch.float32, attn_implementation="eager").eval()

    def ids(self, length: int, batch: int = 1) -> Array:
        return np.random.default_rng(0).integers(0, self.model.config.vocab_size, (batch, length))

    def expected(self, ids: Array) -> Array:
        with torch.inference_mode():
            found: Array = self.model(torch.tensor(ids)).logits.numpy()
        return found

    def distance(self, length: int) -> float:
        """The largest |difference| of a logit over the deviation of the reference's: of a text fed token by token, at
        once, and in two pieces; and of two texts together."""
        ids, half = self.ids(length, batch=2), length // 2
        expected = self.expected(ids)
        found = [
            (self.graph.logits(ids[:1], [1] * length), expected[:1]),
            (self.graph.logits(ids[1:], [length]), expected[1:, -1:]),
            (self.graph.logits(ids[1:], [half, length - half]), expected[1:, [half - 1, -1]]),
            (self.graph.logits(ids, [half, 1, 1]), expected[:, half - 1 : half + 2]),
        ]
        return float(max(np.abs(ours - theirs).max() for ours, theirs in found) / expected.std())


Make = Callable[..., Exported]


@pytest.fixture(params=export.EXPORTERS)
def exporter(request: pytest.FixtureRequest) -> str:
    """Each exporter in turn."""
    export_or_skip(request.param)
    return str(request.param)


@pytest.fixture(scope="session")
def exported(make_family: Any, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """A function (family, exporter, **config) -> what was exported, once."""
    made: dict[str, Exported] = {}

    def exported(family: str, exporter: str, **settings: Any) -> Exported:
        key = json.dumps([family, exporter, settings])
        if key not in made:
            folder = tmp_path_factory.mktemp("exported")
            gate = 1.0 if family.startswith("gemma") else None
            (folder / "out").mkdir()
            made[key] = Exported(make_family(folder / "hf", family, gate=gate, **settings), exporter, folder / "out")
        return made[key]

    return exported


def export_or_skip(exporter: str) -> None:
    """Skips where it is not installed, with the reason that a user would read."""
    try:
        export.require(exporter, "LlamaForCausalLM")
    except UsageError as error:
        pytest.skip(str(error))


def able(family: str, exporter: str, families: dict[str, str]) -> None:
    """Skips what `auto` gives to the other exporter, because this one has it not."""
    if families[family] not in export.EXPORTERS[exporter].architectures:
        pytest.skip(f"{exporter} has no {families[family]}")


# --- The same logits


def test_logits_equal_transformers(
    exported: Make, exporter: str, family: str, families: dict[str, str], record_property: Any
) -> None:
    able(family, exporter, families)
    figure = exported(family, exporter).distance(120)
    record_property("distance", figure)
    assert figure <= _CLOSE


@pytest.mark.parametrize("family", SIX)
def test_40_greedy_tokens_equal_transformers(exported: Make, exporter: str, family: str) -> None:
    made = exported(family, exporter)
    start = made.ids(20)
    made.model.generation_config = transformers.GenerationConfig(do_sample=False, max_new_tokens=40, pad_token_id=0)
    with torch.inference_mode():
        expected = made.model.generate(torch.tensor(start), attention_mask=torch.ones(1, 20, dtype=torch.int64))
    assert expected.shape == (1, 60)
    # After each of the tokens that transformers chose the graph chooses the next: so it would have written the same.
    chosen = made.graph.logits(expected[:, :-1].numpy(), [20] + [1] * 39).argmax(-1)
    assert chosen.tolist() == expected[:, 20:].tolist()


LINEAR = {"rope_type": "linear", "factor": 4.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
SHORT, LONG = [1.0 + 0.1 * at for at in range(8)], [2.0 + 0.5 * at for at in range(8)]
LONGROPE = {"type": "longrope", "short_factor": SHORT, "long_factor": LONG}
FULL, SLIDING = "full_attention", "sliding_attention"


def stretched(scaling: Config, **more: Any) -> Config:
    return {"rope_theta": 1000.0, "rope_scaling": scaling, **more}


# What -> family, tokens that are fed, configuration.
VARIANTS: dict[str, tuple[str, int, Config]] = {
    "llama, llama3": ("llama", 300, stretched(LLAMA3)),
    "llama, linear": ("llama", 300, stretched(LINEAR)),
    "llama, yarn": ("llama", 300, stretched(YARN)),
    "llama, yarn with its factor": ("llama", 96, stretched({**YARN, "attention_factor": 1.7})),
    "llama, yarn with two scales": ("llama", 96, stretched({**YARN, "mscale": 0.7, "mscale_all_dim": 1.3})),
    "llama, biases": ("llama", 96, {"attention_bias": True, "mlp_bias": True, "head_dim": 32}),
    "llama, a matrix with as many rows as tokens": ("llama", 40, {"intermediate_size": 401}),
    "llama, all heads alike": ("llama", 40, {"num_key_value_heads": 4, "tie_word_embeddings": True}),
    "llama, bfloat16": ("llama", 40, {"dtype": "bfloat16"}),
    "mistral, windows": ("mistral", 300, {"sliding_window": 40}),
    "mistral, none": ("mistral", 300, {"sliding_window": None, "head_dim": 32}),
    "smollm3, windows": ("smollm3", 96, {"use_sliding_window": True, "sliding_window": 20}),
    "smollm3, others without rope": ("smollm3", 96, {"no_rope_layers": [1, 0, 0, 1, 1], "rope_scaling": YARN}),
    "granite, llama3 and biases": ("granite", 96, stretched(LLAMA3, attention_bias=True)),
    "qwen2, untied and padded": ("qwen2", 96, {"tie_word_embeddings": False, "vocab_size": 437}),
    "qwen2, wide heads": ("qwen2", 96, {"head_dim": 32}),
    "qwen2, some windows": ("qwen2", 96, {"use_sliding_window": True, "sliding_window": 20, "max_window_layers": 1}),
    "qwen3, yarn, tied": ("qwen3", 96, stretched(YARN, tie_word_embeddings=True)),
    "gemma2, a width without a root": ("gemma2", 40, {"hidden_size": 104, "num_hidden_layers": 2}),
    "gemma2, longer windows": ("gemma2", 400, {"num_hidden_layers": 2, "sliding_window": 300}),
    "gemma2, other layers": ("gemma2", 96, {"num_hidden_layers": 3, "layer_types": [FULL, SLIDING, SLIDING]}),
    "gemma2, bfloat16, untied": (
        "gemma2",
        40,
        {"dtype": "bfloat16", "num_hidden_layers": 2, "tie_word_embeddings": False, "query_pre_attn_scalar": 100},
    ),
    "gemma3, linear and capped": (
        "gemma3",
        96,
        {
            "rope_scaling": LINEAR,
            "final_logit_softcapping": 3.0,
            "num_hidden_layers": 2,
            "layer_types": [FULL, SLIDING],
        },
    ),
    "gemma3, a cap that transformers passes over": (
        "gemma3",
        40,
        {"attn_logit_softcapping": 2.0, "num_hidden_layers": 2},
    ),
    "phi3 before longrope": (
        "phi3",
        300,
        {"rope_scaling": None, "max_position_embeddings": 512, "original_max_position_embeddings": 512},
    ),
    "phi3, as long as trained": (
        "phi3",
        300,
        {"max_position_embeddings": 512, "original_max_position_embeddings": 512},
    ),
    "phi3, windows": ("phi3", 300, {"sliding_window": 40}),
    "phi3, rotated in part": ("phi3", 96, {"hidden_size": 128, "partial_rotary_factor": 0.5}),
}


# Those of them in which tracing could go wrong: what depends on positions, and on lengths that are not the example's.
TRACED = (
    "llama, llama3",
    "llama, yarn",
    "llama, biases",
    "mistral, windows",
    "smollm3, windows",
    "qwen2, some windows",
    "gemma2, longer windows",
    "gemma2, other layers",
    "gemma3, linear and capped",
    "phi3 before longrope",
    "phi3, windows",
)
CASES = [
    (exporter, name) for exporter in export.EXPORTERS for name in VARIANTS if exporter == "builder" or name in TRACED
]


@pytest.mark.thorough(but=("builder-*",))
@pytest.mark.parametrize(("exporter", "name"), CASES)
def test_logits_of_variants(exported: Make, exporter: str, name: str, record_property: Any) -> None:
    export_or_skip(exporter)
    family, length, settings = VARIANTS[name]
    figure = exported(family, exporter, **settings).distance(length)
    record_property("distance", figure)
    assert figure <= _CLOSE


@pytest.mark.parametrize("family", ["llama", "phi3"])
def test_longrope_up_to_the_length_that_it_was_trained_for(exported: Make, exporter: str, family: str) -> None:
    stretch = {"max_position_embeddings": 512, "original_max_position_embeddings": 64}
    made = exported(family, exporter, **stretched(LONGROPE, **stretch))
    assert made.context == 64
    assert made.distance(64) <= _CLOSE
    beyond = made.expected(made.ids(65))[0, 40]
    assert np.abs(beyond - made.expected(made.ids(64))[0, 40]).max() > 0.1 * beyond.std()  # why it ends there


# Keys that mean something in the configuration of some model, and nothing in Llama's.
FOREIGN = {
    "sliding_window": 4,
    "seq_length": 8,
    "ffn_hidden_size": 7,
    "multi_query_group_num": 1,
    "rope_position_scale": 2,
    "hidden_activation": "gelu",
    "attn_logit_softcapping": 0.1,
    "final_logit_softcapping": 0.1,
    "dummy_token_indices": [1, 2, 3],
    "peft_type": "LORA",
    "num_local_experts": 4,
}


def test_keys_that_transformers_passes_over(exported: Make, exporter: str, tmp_path: Path) -> None:
    made = exported("llama", exporter)
    folder = Path(shutil.copytree(made.folder, tmp_path / "hf"))
    change(folder, FOREIGN)
    ids = made.ids(30)
    got, expected = Graph(child.export(exporter, folder, tmp_path)).logits(ids, [30]), made.expected(ids)[:, -1:]
    assert np.abs(got - expected).max() <= _CLOSE * expected.std()


# --- The graph


def test_inputs_and_outputs_are_the_contract(
    exported: Make, exporter: str, family: str, families: dict[str, str]
) -> None:
    able(family, exporter, families)
    made = exported(family, exporter)
    config, inputs, outputs = made.model.config, made.graph.inputs, made.graph.outputs
    width = made.model.model.layers[0].self_attn.head_dim
    parts = [f"{layer}.{part}" for layer in range(config.num_hidden_layers) for part in ("key", "value")]
    past = [f"past_key_values.{part}" for part in parts]
    assert set(inputs) - {"position_ids"} == {"input_ids", "attention_mask", *past}
    assert set(outputs) == {"logits", *(f"present.{part}" for part in parts)}
    for name in set(inputs) & {"input_ids", "attention_mask", "position_ids"}:
        assert inputs[name].type == "tensor(int64)" and len(inputs[name].shape) == 2
    for name, one in (*((name, inputs[name]) for name in past), *outputs.items()):
        assert one.type == "tensor(float)"
        assert isinstance(one.shape[0], str), name
        if name != "logits":
            assert one.shape[1::2] == [config.num_key_value_heads, width] and isinstance(one.shape[2], str)
    assert outputs["logits"].shape[2] == config.vocab_size


def test_the_cache_of_the_builder_may_be_one_buffer(exported: Make) -> None:
    export_or_skip("builder")
    made = exported("qwen2", "builder")
    ids, session = made.ids(30), made.graph.session
    buffers = {
        name: onnxruntime.OrtValue.ortvalue_from_numpy(np.full((1, one.shape[1], 50, one.shape[3]), 9.0, np.float32))
        for name, one in made.graph.inputs.items()
        if name.startswith("past")
    }
    got, done = [], 0
    for size in (10, 1, 19):
        binding = session.io_binding()
        binding.bind_cpu_input("input_ids", ids[:, done : done + size])
        binding.bind_cpu_input("attention_mask", np.ones((1, done + size), np.int64))
        binding.bind_output("logits")
        for name, buffer in buffers.items():
            binding.bind_ortvalue_input(name, buffer)
            binding.bind_ortvalue_output(name.replace("past_key_values", "present"), buffer)
        session.run_with_iobinding(binding)
        got.append(binding.get_outputs()[0].numpy()[:, -1])
        done += size
    expected = made.expected(ids)[:, [9, 10, 29]]
    assert np.abs(np.stack(got, axis=1) - expected).max() <= _CLOSE * expected.std()


@pytest.mark.parametrize("tied", [True, False])
def test_a_tied_matrix_is_written_once(exported: Make, exporter: str, tied: bool) -> None:
    onnx = pytest.importorskip("onnx")
    made = exported("qwen2", exporter, tie_word_embeddings=tied)
    shape = [made.model.config.vocab_size, made.model.config.hidden_size]
    tensors = onnx.load(made.path, load_external_data=False).graph.initializer
    assert sum(sorted(tensor.dims, reverse=True) == shape for tensor in tensors) == (1 if tied else 2)


def test_no_position_beyond_the_context(exported: Make) -> None:
    export_or_skip("builder")
    made = exported("llama", "builder", max_position_embeddings=16)
    assert made.context == 16 and made.distance(16) <= _CLOSE
    with pytest.raises(Exception, match="cos_cache"):
        made.graph.logits(made.ids(17), [17])


# --- What is refused


def change(folder: Path, settings: Config) -> None:
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config = {key: value for key, value in {**config, **settings}.items() if value is not ...}
    (folder / "config.json").write_text(json.dumps(config), "utf-8")


REFUSED: dict[str, tuple[str, Config, str]] = {
    "unknown architecture": ("llama", {"architectures": ["BertModel"]}, "unknown architecture 'BertModel'; known: "),
    "no architecture": ("llama", {"architectures": None}, "unknown architecture 'none given'; known: LlamaFor"),
    "already quantized": ("llama", {"quantization_config": {"quant_method": "gptq"}}, "already quantized with gptq"),
    "a tensor too many": ("llama", {"num_hidden_layers": 1}, "tensor 'model.layers.1."),
    "a tensor too few": (
        "llama",
        {"num_hidden_layers": 3},
        "tensor 'model.layers.2.self_attn.q_proj.weight' is missing",
    ),
    "another shape": ("llama", {"head_dim": 32}, "has shape (64, 64), config.json asks for (128, 64)"),
    "both directions": (
        "gemma3",
        {"use_bidirectional_attention": True},
        "True: a model with bidirectional attention cannot",
    ),
    "not causal": (
        "llama",
        {"is_causal": False},
        "is_causal False: a model with bidirectional attention cannot generate",
    ),
    "dynamic rope": (
        "llama",
        {"rope_parameters": ..., "rope_theta": 1e4, "rope_scaling": {"rope_type": "dynamic", "factor": 2.0}},
        "unknown rope scaling 'dynamic'",
    ),
    "two bases": (
        "llama",
        {"rope_theta": 5e5, "rope_parameters": {"rope_theta": 1e4}},
        "500000.0 at the top and 10000",
    ),
    "heads rotated in part": (
        "llama",
        {"partial_rotary_factor": 0.5},
        "partial_rotary_factor: 8 of 16 dimensions of a head are rotated; this architecture rotates all of them",
    ),
    "longrope with too few": (
        "phi3",
        {
            "rope_parameters": ...,
            "rope_theta": 1e4,
            "rope_scaling": {"type": "longrope", "short_factor": [1.0], "long_factor": [1.0]},
        },
        "must hold 8 positive numbers",
    ),
    "two kinds": (
        "llama",
        {"model_type": "mistral"},
        "architectures names LlamaForCausalLM, but model_type 'mistral' is ",
    ),
    "no such kind": ("llama", {"model_type": "warp"}, "model_type 'warp' is unknown to transformers"),
}


@pytest.mark.parametrize(("family", "settings", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_refused_with_one_line(exported: Make, family: str, settings: Config, message: str, tmp_path: Path) -> None:
    export_or_skip("builder")
    folder = Path(shutil.copytree(exported(family, "builder").folder, tmp_path / "hf"))
    change(folder, settings)
    with pytest.raises(ModelError, match=re.escape(message)) as caught:
        torch_model.stage(folder)
    assert "\n" not in str(caught.value)


def test_an_output_that_is_tied_and_differs(checkpoint: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    folder = Path(shutil.copytree(checkpoint, tmp_path / "hf"))
    tensors = dict(load_file(folder / "model.safetensors"))
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].copy()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    torch_model.check(folder)
    tensors["lm_head.weight"][0, 0] += 1
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="differs; set tie_word_embeddings to false"):
        torch_model.check(folder)


NOT_BUILT: dict[str, tuple[str, Config, str]] = {
    "narrow heads": (
        "llama",
        {"head_dim": 24},
        "heads of 24 dimensions need the exporter optimum; the builder supports only multiples of 16",
    ),
    "a narrow part of them": (
        "phi3",
        {
            "rope_scaling": {**LONGROPE, "short_factor": SHORT[:6], "long_factor": LONG[:6]},
            "partial_rotary_factor": 0.75,
        },
        "heads rotated in 12 dimensions need the exporter optimum; the builder supports only multiples of 16",
    ),
    "a window of no width": (
        "mistral",
        {"sliding_window": 0},
        "'sliding_window' must be a positive integer, not 0",
    ),
}


@pytest.mark.parametrize(("family", "settings", "message"), NOT_BUILT.values(), ids=NOT_BUILT.keys())
def test_what_the_builder_cannot_write(
    make_family: Any, family: str, settings: Config, message: str, tmp_path: Path
) -> None:
    export_or_skip("builder")
    with pytest.raises(ModelError, match=message):
        child.export("builder", make_family(tmp_path / "hf", family, **settings), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["hf"]


@pytest.mark.thorough
def test_optimum_writes_what_the_builder_cannot(exported: Make) -> None:
    export_or_skip("optimum")
    for family, settings, _ in (NOT_BUILT["narrow heads"], NOT_BUILT["a narrow part of them"]):
        assert exported(family, "optimum", **settings).distance(96) <= _CLOSE


# --- Which exporter, and what it needs


def test_every_architecture_has_a_default_that_can_write_it() -> None:
    assert set(export.DEFAULTS) == set(ARCHITECTURES)
    for architecture, chosen in export.DEFAULTS.items():
        assert architecture in export.EXPORTERS[chosen].architectures
    assert export.EXPORTERS.keys() == child.MODULES.keys()


VERSIONS = {
    "torch": "2.13.0+cpu",
    "transformers": "4.57.6",
    "onnx": "1.23.2",
    "onnx-ir": "1.1.0",
    "tqdm": "4.70",
    "onnxruntime-genai": "0.12.2",
    "optimum-onnx": "0.1.0",
}
NEEDS: dict[str, tuple[str, str, Config, str]] = {
    "an unknown one": ("dynamo", "LlamaForCausalLM", {}, "unknown exporter 'dynamo'; known: auto, builder, optimum"),
    "an unknown architecture": ("auto", "BertModel", {}, "config.json: unknown architecture 'BertModel'; known: Llama"),
    "not by this one": (
        "builder",
        "Olmo2ForCausalLM",
        {},
        "the exporter builder cannot write Olmo2ForCausalLM; use optimum",
    ),
    "no builder": (
        "auto",
        "LlamaForCausalLM",
        {"onnxruntime-genai": None},
        "the exporter builder needs onnxruntime-genai: pip install 'bioner-edge[onnx]'",
    ),
    "no library of the builder": (
        "builder",
        "LlamaForCausalLM",
        {"tqdm": None},
        "the exporter builder needs tqdm: pip",
    ),
    "a later builder": (
        "builder",
        "LlamaForCausalLM",
        {"onnxruntime-genai": "0.18.0"},
        "the exporter builder needs onnxruntime-genai ==0.12.2, but 0.18.0 is installed: "
        "pip install 'bioner-edge[onnx]'",
    ),
    "no optimum": (
        "auto",
        "Olmo2ForCausalLM",
        {"optimum-onnx": None},
        "the exporter optimum needs optimum-onnx: pip install 'bioner-edge[optimum]'",
    ),
    "transformers 5": (
        "optimum",
        "LlamaForCausalLM",
        {"transformers": "5.23.0"},
        "the exporter optimum needs transformers <4.58, but 5.23.0 is installed: pip install 'bioner-edge[optimum]'",
    ),
    "transformers 4.58": ("optimum", "LlamaForCausalLM", {"transformers": "4.58.0"}, "but 4.58.0 is installed"),
}


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Config:
    """The versions that are found, to be changed; None for a library that is not installed."""
    versions: Config = dict(VERSIONS)

    def version(library: str) -> str:
        if versions[library] is None:
            raise PackageNotFoundError(library)
        return str(versions[library])

    monkeypatch.setattr(export, "version", version)
    return versions


@pytest.mark.parametrize(("exporter", "architecture", "versions", "message"), NEEDS.values(), ids=NEEDS.keys())
def test_what_is_missing_is_said_early(
    installed: Config, exporter: str, architecture: str, versions: Config, message: str
) -> None:
    installed.update(versions)
    with pytest.raises(BionerError, match=re.escape(message)) as caught:
        export.require(exporter, architecture)
    assert "\n" not in str(caught.value)


def test_what_is_chosen(installed: Config) -> None:
    assert export.require("auto", "Qwen2ForCausalLM") == "builder"
    assert export.require("auto", "Olmo2ForCausalLM") == "optimum"
    assert export.require("optimum", "Qwen2ForCausalLM") == "optimum"
    installed.update({"transformers": "5.23.0", "optimum-onnx": None})
    assert export.require("auto", "Qwen2ForCausalLM") == "builder"


# --- The process


class Steps(Report):
    def __init__(self) -> None:
        self.told: list[str] = []

    def step(self, text: str) -> None:
        self.told.append(text)


def test_a_process_of_its_own(exported: Make, exporter: str, tmp_path: Path, capfd: Any, monkeypatch: Any) -> None:
    made, steps = exported("qwen2", exporter), Steps()
    (tmp_path / "onnx.py").write_text("raise SystemExit('the wrong onnx')")
    monkeypatch.chdir(tmp_path)
    found = export.export(made.folder, tmp_path / "a" / "out", exporter, steps)
    cache = {"builder": "shared", "optimum": "grown"}[exporter]
    assert (found.cache, found.context, found.exporter) == (cache, 512, exporter)
    assert found.versions["transformers"] == version("transformers")
    assert steps.told == [f"exporting Qwen2ForCausalLM with {exporter}, a graph for 512 positions"]
    assert capfd.readouterr() == ("", "")
    assert {path.name for path in (tmp_path / "a" / "out").iterdir()} == {
        path.name for path in made.path.parent.glob("model*")
    }
    ids = made.ids(30)
    ours, theirs = (graph.logits(ids, [30]) for graph in (Graph(tmp_path / "a" / "out" / "model.onnx"), made.graph))
    assert np.array_equal(ours, theirs)


# What stands in for Python -> what is said.
ENDS = {
    "an exit": ("echo first; echo ' its \x1b[31m end' >&2; exit 3", "ended with exit code 3; its last output: its "),
    "silence": ("exit 0", "ended with exit code 0; its last output: none"),
    "a crash": ("echo hm; kill -SEGV $$", "was ended by SIGSEGV; its last output: hm"),
    "no memory": (
        "kill -KILL $$",
        "was ended by SIGKILL; it needs about 7 bytes of memory per parameter; its last output: none",
    ),
}


def stand_in(path: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n", "utf-8")
    path.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(path))


@pytest.mark.skipif(os.name != "posix", reason="a shell script stands in for Python")
@pytest.mark.parametrize(("script", "message"), ENDS.values(), ids=ENDS.keys())
def test_how_a_process_ended_is_one_line(
    checkpoint: Path, installed: Config, script: str, message: str, tmp_path: Path, monkeypatch: Any
) -> None:
    stand_in(tmp_path / "python", script, monkeypatch)
    with pytest.raises(ModelError, match=re.escape(f"{checkpoint}: the exporter builder {message}")) as caught:
        export.export(checkpoint, tmp_path / "out")
    assert str(caught.value).isprintable()
    assert not any((tmp_path / "out").iterdir())


@pytest.mark.skipif(os.name != "posix", reason="a shell script stands in for Python")
def test_what_the_process_refuses(checkpoint: Path, installed: Config, tmp_path: Path, monkeypatch: Any) -> None:
    folder, child_of = Path(shutil.copytree(checkpoint, tmp_path / "hf")), f"{sys.executable} -P -m $3 $4 $5 $6"
    stand_in(tmp_path / "python", f"exec {child_of} many", monkeypatch)
    message = (
        f"{folder}: the exporter builder cannot write it: ValueError: invalid literal for int() with base 10: 'many'"
    )
    with pytest.raises(ModelError, match=f"^{re.escape(message)}$"):
        export.export(folder, tmp_path / "out")
    stand_in(tmp_path / "python", f"rm {folder}/config.json; exec {child_of} 1", monkeypatch)
    with pytest.raises(
        ModelError, match=rf"^{re.escape(str(folder))}: it has no config.json; give the folder of a whole"
    ):
        export.export(folder, tmp_path / "out")
    assert not any((tmp_path / "out").iterdir())


@pytest.mark.skipif(os.name != "posix", reason="a shell script stands in for Python")
@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_ends_the_process(checkpoint: Path, installed: Config, tmp_path: Path, monkeypatch: Any) -> None:
    stand_in(tmp_path / "python", f"echo $$ > {tmp_path}/pid; trap '' INT; exec sleep 60", monkeypatch)
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        export.export(checkpoint, tmp_path / "out")
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
    assert not any((tmp_path / "out").iterdir())


@pytest.mark.skipif(os.name != "posix", reason="a shell script stands in for Python")
def test_the_process_hears_of_no_network(checkpoint: Path, installed: Config, tmp_path: Path, monkeypatch: Any) -> None:
    stand_in(tmp_path / "python", f"env > {tmp_path}/env; echo $@ > {tmp_path}/arguments", monkeypatch)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    with pytest.raises(ModelError, match="exit code 0"):
        export.export(checkpoint, tmp_path / "out", threads=3)
    told = (tmp_path / "env").read_text().splitlines()
    assert {"HF_HUB_OFFLINE=1", "TRANSFORMERS_OFFLINE=1", "HF_HUB_DISABLE_TELEMETRY=1"} <= set(told)
    assert (tmp_path / "arguments").read_text().split()[-1] == "3"


def test_a_process_whose_conversion_is_gone(checkpoint: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bioner_edge.convert.onnx.child", "builder", str(checkpoint), str(tmp_path), "1"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert process.stdin is not None
    process.stdin.close()
    started = time.monotonic()
    assert process.wait(60) == 1 and time.monotonic() - started < 60
    assert not any(tmp_path.iterdir())
