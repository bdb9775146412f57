"""Every family's GGUF computes what transformers computes, from either spelling of config.json, or is refused."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader, GGUFWriter, TokenType

from bioner_edge.errors import ModelError
from bioner_edge.models import gguf_header

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import transformers

from bioner_edge.backends.llama_cpp import LlamaCpp
from bioner_edge.convert import architectures
from bioner_edge.convert.architectures import ARCHITECTURES
from bioner_edge.convert.architectures import llama as llama_module
from bioner_edge.convert.checkpoint import Checkpoint
from bioner_edge.convert.gguf.writer import write as write_gguf

transformers.utils.logging.disable_progress_bar()

Config = dict[str, Any]

_TOKENS = 96  # longer than every window and every length before scaling

LINEAR = {"rope_type": "linear", "factor": 4.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
LONGROPE = {
    "type": "longrope",  # what Phi-3 and OLMo 2 called it before transformers 5
    "short_factor": [1.0 + 0.1 * at for at in range(8)],
    "long_factor": [2.0 + 0.5 * at for at in range(8)],
}
PARTIAL = {**LONGROPE, "short_factor": LONGROPE["short_factor"][:6], "long_factor": LONGROPE["long_factor"][:6]}
BEYOND = {"max_position_embeddings": 512, "original_max_position_embeddings": 64}  # a context that needs the long ones
ALL_BIASES = {"attention_bias": True, "mlp_bias": True}


def stretched(scaling: Config, **more: Any) -> Config:
    return {"rope_theta": 1000.0, "rope_scaling": scaling, **more}


VARIANTS: dict[str, tuple[str, Config]] = {
    "llama, llama3": ("llama", stretched(LLAMA3)),
    "llama, linear": ("llama", stretched(LINEAR)),
    "llama, yarn": ("llama", stretched(YARN)),
    "llama, yarn with its factor": ("llama", stretched({**YARN, "attention_factor": 1.7})),
    "llama, yarn with two scales": ("llama", stretched({**YARN, "mscale": 0.7, "mscale_all_dim": 1.3})),
    "llama, longrope": ("llama", stretched(LONGROPE, **BEYOND)),
    "llama, biases": ("llama", {**ALL_BIASES, "head_dim": 32}),
    "mistral without a window": ("mistral", {"sliding_window": None, "head_dim": 32}),
    "smollm3, yarn": ("smollm3", stretched(YARN)),
    "granite, llama3 and biases": ("granite", stretched(LLAMA3, **ALL_BIASES)),
    "qwen2, yarn": ("qwen2", stretched(YARN)),
    "qwen2, linear": ("qwen2", stretched(LINEAR)),
    "qwen3, yarn": ("qwen3", stretched(YARN)),
    "gemma2, linear": ("gemma2", stretched(LINEAR)),
    "gemma2, yarn": ("gemma2", stretched(YARN)),
    "gemma2, other layers slide": (
        "gemma2",
        {"num_hidden_layers": 3, "layer_types": ["full_attention", "sliding_attention", "sliding_attention"]},
    ),
    "gemma2 as large as llama.cpp knows it": ("gemma2", {"num_hidden_layers": 46, "query_pre_attn_scalar": 16}),
    "gemma3, linear and capped": ("gemma3", {"rope_scaling": LINEAR, "final_logit_softcapping": 3.0}),
    "gemma3, no layer slides": ("gemma3", {"num_hidden_layers": 2, "layer_types": ["full_attention"] * 2}),
    "gemma3 as large as llama.cpp knows it": ("gemma3", {"num_hidden_layers": 62, "query_pre_attn_scalar": 16}),
    "phi3 before longrope": ("phi3", {"rope_scaling": None}),
    "phi3, long": ("phi3", {"rope_scaling": LONGROPE, **BEYOND}),
    "phi3, heads rotated in part": ("phi3", stretched(PARTIAL, partial_rotary_factor=0.75)),
    "olmo2, linear": ("olmo2", stretched({"type": "linear", "factor": 4.0})),
}


class Numbered:
    """A vocabulary that is only as large as the model says: logits are compared from ids."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def write(self, writer: GGUFWriter) -> None:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("gpt-2")
        writer.add_token_list([f"t{at}" for at in range(self.rows)])
        writer.add_token_types([TokenType.NORMAL] * self.rows)
        writer.add_token_merges(["t 0"])
        writer.add_eos_token_id(0)


def written(folder: Path, path: Path) -> Path:
    """The checkpoint in `folder` as an F32 file."""
    source = Checkpoint(folder)
    vocabulary: Any = Numbered(source.config["vocab_size"])
    write_gguf(path, source, architectures.of(source.config), vocabulary, name="m", license="MIT")
    return path


def distance(folder: Path, path: Path) -> float:
    """The largest |difference| of a logit from transformers, over the standard deviation of the latter's."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    ids = np.random.default_rng(0).integers(0, model.config.vocab_size, _TOKENS).tolist()
    with torch.inference_mode():
        expected = model.eval()(torch.tensor([ids])).logits[0].double().numpy()
    with LlamaCpp(path, cache="f32", threads=1) as ours:
        sequence = ours.new_sequence()
        got = np.stack([np.array(ours.eval(sequence, [token])) for token in ids])
    return float(np.abs(expected - got).max() / expected.std())


def config_of(folder: Path) -> Config:
    config: Config = json.loads((folder / "config.json").read_text("utf-8"))
    return config


@pytest.fixture(scope="session")
def folder_of(make_family: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A function family -> the folder of its checkpoint, made once. Tests that change it copy it first."""
    made: dict[str, Path] = {}

    def folder(family: str) -> Path:
        if family not in made:
            made[family] = make_family(tmp_path_factory.mktemp("families") / family, family)
        return made[family]

    return folder


# --- The same logits


def test_logits_equal_transformers(folder_of: Any, family: str, tmp_path: Path, record_property: Any) -> None:
    path = written(folder_of(family), tmp_path / "m.gguf")
    gguf_header.check(path)
    assert len(GGUFReader(path).tensors) == len(gguf_header.read(path).tensors)
    figure = distance(folder_of(family), path)
    record_property("distance", figure)
    assert figure <= 1e-3


@pytest.mark.parametrize(("family", "settings"), VARIANTS.values(), ids=VARIANTS.keys())
def test_logits_of_variants(
    make_family: Any, family: str, settings: Config, tmp_path: Path, record_property: Any
) -> None:
    folder = make_family(tmp_path / "hf", family, **settings)
    figure = distance(folder, written(folder, tmp_path / "m.gguf"))
    record_property("distance", figure)
    assert figure <= 1e-3


def test_logits_when_tied_the_other_way(
    make_family: Any, folder_of: Any, family: str, tmp_path: Path, record_property: Any
) -> None:
    tied = not _tied(config_of(folder_of(family)))
    folder = make_family(tmp_path / "hf", family, tie_word_embeddings=tied)
    if family == "gemma2":
        with pytest.raises(ModelError, match="tie_word_embeddings False cannot be converted, only True"):
            written(folder, tmp_path / "m.gguf")
        return
    path = written(folder, tmp_path / "m.gguf")
    names = {tensor.name for tensor in gguf_header.read(path).tensors}
    assert ("output.weight" in names) == (not tied or family == "olmo2")
    figure = distance(folder, path)
    record_property("distance", figure)
    assert figure <= 1e-3


def _tied(config: Config) -> bool:
    """transformers 4 leaves out what is its most general default."""
    return bool(config.get("tie_word_embeddings", True))


@pytest.mark.parametrize("family", ["gemma2", "gemma3"])
def test_logits_where_the_activation_is_rounded(
    make_family: Any, families: dict[str, str], family: str, tmp_path: Path, record_property: Any
) -> None:
    folder = make_family(tmp_path / "hf", family, gate=1.0)
    figure = distance(folder, written(folder, tmp_path / "m.gguf"))
    record_property("distance", figure)
    assert figure <= ARCHITECTURES[families[family]].tolerance == 1e-2


def test_the_order_of_heads_matters(folder_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama_module, "_pair", lambda tensor, count: tensor)
    assert distance(folder_of("llama"), written(folder_of("llama"), tmp_path / "m.gguf")) > 0.1


# --- The same facts


def test_every_row_has_a_family(families: dict[str, str]) -> None:
    assert set(families.values()) == set(ARCHITECTURES)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_defaults_are_those_of_transformers(name: str) -> None:
    row = ARCHITECTURES[name]
    theirs = getattr(transformers, name).config_class(use_sliding_window=True)
    told = {"tie_word_embeddings": False, "rms_norm_eps": 1e-6, **row.defaults}
    assert told == {key: getattr(theirs, key) for key in told}
    if "num_key_value_heads" not in told:
        assert theirs.num_key_value_heads == theirs.num_attention_heads
    for key, allowed in row.only.items():
        assert getattr(theirs, key, allowed[0]) in allowed
    rope = getattr(theirs, "rope_parameters", None) or {}
    rope = rope.get("full_attention", rope)
    assert row.base == rope.get("rope_theta", getattr(theirs, "rope_theta", None))


@pytest.mark.parametrize("scaling", [None, LINEAR, YARN, LLAMA3, LONGROPE], ids=lambda scaling: _kind(scaling))
def test_both_spellings_say_the_same(folder_of: Any, family: str, scaling: Config | None) -> None:
    if family == "phi3" and _kind(scaling) == "yarn":
        pytest.skip("in Phi-3's files yarn is a name of longrope")
    saved = config_of(folder_of(family))
    base = 5000.0 if family == "gemma3" else 1000.0
    four, five = _as_four(saved, base, scaling), _as_five(saved, base, scaling)
    row = ARCHITECTURES[saved["architectures"][0]]
    if _kind(scaling) not in row.ropes:
        for config in (four, five):
            with pytest.raises(ModelError, match=f"unknown rope scaling '{_kind(scaling)}'; known: default"):
                architectures.of(config)
        return
    assert row.metadata(five)["rope.freq_base"] == base
    assert_same(row, four, five)


def assert_same(row: architectures.Architecture, one: Config, other: Config) -> None:
    """Both give the same file."""
    assert row.metadata(one) == row.metadata(other)
    assert row.shapes(one) == row.shapes(other)
    assert row.duplicated(one) == row.duplicated(other)
    made = row.derived_tensors(one), row.derived_tensors(other)
    assert made[0].keys() == made[1].keys()
    assert all(np.array_equal(made[0][key], made[1][key]) for key in made[0])


def _kind(scaling: Config | None) -> str:
    return str((scaling or {}).get("rope_type") or (scaling or {}).get("type", "default"))


def _bare(config: Config) -> Config:
    return {key: value for key, value in config.items() if not key.startswith("rope_")}


def _as_four(config: Config, base: float, scaling: Config | None) -> Config:
    local = {"rope_local_base_freq": 500.0} if config["model_type"] == "gemma3_text" else {}
    return {**_bare(config), "rope_theta": base, "rope_scaling": scaling, **local}


def _as_five(config: Config, base: float, scaling: Config | None) -> Config:
    settings = {key: value for key, value in (scaling or {}).items() if key != "type"}
    settings |= {"rope_type": _kind(scaling), "rope_theta": base}
    if config["model_type"] == "gemma3_text":
        local = {"rope_type": "default", "rope_theta": 500.0}
        return {**_bare(config), "rope_parameters": {"full_attention": settings, "sliding_attention": local}}
    return {**_bare(config), "rope_parameters": settings}


SPELLED: dict[str, tuple[str, Config]] = {
    "gemma2 without types of layers": ("gemma2", {"layer_types": None}),
    "gemma3 with a pattern": ("gemma3", {"layer_types": None, "sliding_window_pattern": 6}),
    "gemma3 without types of layers": ("gemma3", {"layer_types": None, "sliding_window_pattern": None}),
    "smollm3 with an interval": ("smollm3", {"no_rope_layers": None, "no_rope_layer_interval": 4}),
    "smollm3 with more layers named": ("smollm3", {"no_rope_layers": [1, 1, 1, 0, 1, 1, 1, 0]}),
    "smollm3 with no window in use": ("smollm3", {"use_sliding_window": False, "sliding_window": 8}),
    "qwen2 with no window in use": ("qwen2", {"use_sliding_window": False, "sliding_window": 8}),
    "qwen3 without layer types": ("qwen3", {"layer_types": None}),
    "heads that share nothing": ("olmo2", {"head_dim": 16}),
    "longrope by its first name": ("phi3", {"rope_parameters": None, "rope_scaling": {**LONGROPE, "type": "su"}}),
    "longrope by its second name": ("phi3", {"rope_parameters": None, "rope_scaling": {**LONGROPE, "type": "yarn"}}),
    "silu by its other name": ("llama", {"hidden_act": "swish"}),
}


@pytest.mark.parametrize(("family", "change"), SPELLED.values(), ids=SPELLED.keys())
def test_other_spellings_say_the_same(folder_of: Any, family: str, change: Config) -> None:
    config = config_of(folder_of(family))
    assert_same(architectures.of(config), {**config, **change}, config)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_what_config_json_may_leave_out(name: str) -> None:
    row = ARCHITECTURES[name]
    shape = {"vocab_size": 400, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 8}
    own = getattr(transformers, name).config_class(**shape, num_attention_heads=32, max_position_embeddings=8192)
    whole = own.to_dict()
    silent = {"rope_theta", "rope_parameters", "rope_scaling", "rope_local_base_freq", "layer_types", "no_rope_layers"}
    silent = silent.union(row.only, *(other.defaults for other in ARCHITECTURES.values()))
    short = {key: value for key, value in whole.items() if key not in silent}
    assert_same(row, short, whole)


@pytest.mark.parametrize(
    ("family", "change", "length"),
    [
        ("mistral", {}, 256),
        ("mistral", {"sliding_window": None}, 512),
        ("mistral", {"sliding_window": 4096}, 512),
        ("phi3", {"sliding_window": 100}, 100),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 100}, 100),
        ("qwen3", {"use_sliding_window": True, "sliding_window": 100}, 100),
        ("smollm3", {"use_sliding_window": True, "sliding_window": 100}, 100),
        ("gemma3", {}, 512),
    ],
)
def test_the_context_ends_where_a_window_would_be_missed(
    folder_of: Any, family: str, change: Config, length: int
) -> None:
    config = config_of(folder_of(family)) | change
    assert architectures.of(config).metadata(config)["context_length"] == length


# --- What is refused


def rope(**settings: Any) -> Config:
    elsewhere = dict.fromkeys(("rope_theta", "rope_scaling", "partial_rotary_factor"))
    return {**elsewhere, "rope_parameters": {"rope_theta": 1e4, **settings}}


def layered(sliding: Config, **full: Any) -> Config:
    return {
        "rope_theta": None,
        "rope_scaling": None,
        "rope_local_base_freq": None,
        "rope_parameters": {"full_attention": {"rope_theta": 1e6, **full}, "sliding_attention": sliding},
    }


REFUSED: dict[str, tuple[str, Config, str]] = {
    "unknown architecture": (
        "llama",
        {"architectures": ["BertModel"]},
        f"unknown architecture 'BertModel'; known: {', '.join(ARCHITECTURES)}; use a model of one of these",
    ),
    "no architecture": ("llama", {"architectures": None}, "unknown architecture 'none given'"),
    "architecture of another kind": ("llama", {"architectures": "LlamaForCausalLM"}, "unknown architecture 'none"),
    "gemma3 with images": (
        "gemma3",
        {"architectures": ["Gemma3ForConditionalGeneration"]},
        "it is multimodal: save its language_model as Gemma3ForCausalLM and use that",
    ),
    "activation": ("qwen3", {"hidden_act": "gelu"}, "hidden_act 'gelu' cannot be converted, only 'silu' or 'swish'"),
    "gemma's activation": (
        "gemma2",
        {"hidden_activation": "gelu"},
        "hidden_activation 'gelu' cannot be converted, only 'gelu_pytorch_tanh'",
    ),
    "biases of qwen3": ("qwen3", {"attention_bias": True}, "attention_bias True cannot be converted, only False"),
    "biases of gemma": ("gemma3", {"attention_bias": True}, "attention_bias True cannot be converted, only False"),
    "biases of smollm3": ("smollm3", {"mlp_bias": True}, "mlp_bias True cannot be converted, only False"),
    "biases of olmo2": ("olmo2", {"attention_bias": True}, "attention_bias True cannot be converted, only False"),
    "both directions": (
        "gemma3",
        {"use_bidirectional_attention": True},
        "use_bidirectional_attention True cannot be converted, only None or False",
    ),
    "gemma3 with capped attention": (
        "gemma3",
        {"attn_logit_softcapping": 50.0},
        "attn_logit_softcapping 50.0 cannot be converted, only None",
    ),
    "gemma2 without caps": (
        "gemma2",
        {"final_logit_softcapping": None},
        "'final_logit_softcapping' must be a positive number, not None",
    ),
    "scale of gemma's attention": (
        "gemma2",
        {"query_pre_attn_scalar": 100},
        "query_pre_attn_scalar 100 cannot be converted, only 32: llama.cpp supports no other at this size",
    ),
    "scale of the largest gemma": (
        "gemma3",
        {"num_hidden_layers": 62, "layer_types": None},
        "query_pre_attn_scalar 32 cannot be converted, only 16",
    ),
    "types of layers": ("gemma3", {"layer_types": ["full_attention"]}, "layer_types must hold sliding_attention or"),
    "other types of layers": ("gemma2", {"layer_types": ["chunked_attention"] * 4}, "layer_types must hold sliding_"),
    "no width of a window": ("gemma2", {"sliding_window": None}, "'sliding_window' must be a positive integer"),
    "window of 0": ("mistral", {"sliding_window": 0}, "'sliding_window' must be a positive integer, not 0"),
    "layers without rope": (
        "smollm3",
        {"no_rope_layers": [1, 0, 1, 0, 1]},
        "layers [1, 3] have no rotary embedding; in llama.cpp it is every 4th layer",
    ),
    "interval without rope": ("smollm3", {"no_rope_layers": None, "no_rope_layer_interval": 2}, "layers [1, 3] have"),
    "too few layers named": ("smollm3", {"no_rope_layers": [1, 1]}, "no_rope_layers must be a list of 5 numbers"),
    "scale of 0": ("granite", {"residual_multiplier": 0.0}, "'residual_multiplier' must be a positive number, not 0.0"),
    "scale of no number": ("granite", {"logits_scaling": "8"}, "'logits_scaling' must be a positive number, not '8'"),
    "heads of their own width": (
        "qwen2",
        {"head_dim": 32},
        "4 heads of width 32 and hidden_size 64 cannot be converted: llama.cpp assumes that their product",
    ),
    "wide heads of olmo2": ("olmo2", {"head_dim": 32}, "4 heads of width 32 and hidden_size 64"),
    "wide heads of phi3": ("phi3", {"head_dim": 32}, "4 heads of width 32 and hidden_size 64"),
    "odd heads": ("llama", {"head_dim": 15}, "heads of width 15 cannot be rotated in halves"),
    "epsilon": ("llama", {"rms_norm_eps": "small"}, "'rms_norm_eps' must be a positive number, not 'small'"),
    "no size": ("qwen3", {"hidden_size": None}, "'hidden_size' must be a positive integer, not None"),
    "dynamic rope": (
        "llama",
        rope(rope_type="dynamic", factor=2.0),
        "unknown rope scaling 'dynamic'; known: default, linear, yarn, llama3, longrope; only these can be converted",
    ),
    "llama3 where it is not read": (
        "qwen2",
        rope(**LLAMA3),
        "unknown rope scaling 'llama3'; known: default, linear, yarn; only these can be converted",
    ),
    "yarn in gemma3": (
        "gemma3",
        layered({"rope_theta": 1e4}, rope_type="yarn", factor=2.0),
        "unknown rope scaling 'yarn'; known: default, linear",
    ),
    "scaling in a window": (
        "gemma3",
        layered({"rope_theta": 1e4, "rope_type": "linear", "factor": 2.0}),
        "unknown rope scaling 'linear'; known: default;",
    ),
    "one rope for gemma3": ("gemma3", rope(), "rope_parameters must hold full_attention and sliding_attention in"),
    "two ropes for others": ("qwen3", layered({}), "rope_parameters must be the same for all layers in this"),
    "rope of another kind": ("llama", {"rope_scaling": ["yarn"]}, "'rope_scaling' must be an object, not ['yarn']"),
    "two bases": ("llama", {**rope(), "rope_theta": 5e5}, "rope_theta is 500000.0 at the top and 10000.0 in rope_par"),
    "two local bases": (
        "gemma3",
        {**layered({"rope_theta": 1e4}), "rope_local_base_freq": 2e4},
        "rope_local_base_freq is 20000.0 at the top and 10000.0 in rope_parameters",
    ),
    "two kinds": (
        "llama",
        {**rope(rope_type="yarn", factor=2.0), "rope_scaling": {"type": "linear", "factor": 2.0}},
        "'rope_type' is 'linear' in rope_scaling and 'yarn' in rope_parameters; keep one of the two",
    ),
    "two lengths": (
        "llama",
        {**rope(**YARN), "original_max_position_embeddings": 128},
        "original_max_position_embeddings is 128 at the top and 64 in rope_parameters",
    ),
    "heads rotated in part": (
        "llama",
        {"partial_rotary_factor": 0.5},
        "partial_rotary_factor: 8 of 16 dimensions of a head are rotated; only full rotation can be converted",
    ),
    "an odd part": ("phi3", rope(partial_rotary_factor=0.7), "11 of a head's 16 dimensions cannot be rotated in pairs"),
    "more than all": ("phi3", rope(partial_rotary_factor=2), "32 of a head's 16 dimensions cannot be rotated in pairs"),
    "linear without factor": ("llama", rope(rope_type="linear"), "'factor' must be a positive number, not None"),
    "yarn that shrinks": ("llama", rope(rope_type="yarn", factor=0.5), "a yarn factor of 0.5 cannot be converted"),
    "yarn with another ramp": (
        "qwen3",
        rope(**{**YARN, "beta_fast": 16}),
        "beta_fast 16 cannot be converted, only 32 or None",
    ),
    "yarn not truncated": (
        "llama",
        rope(**{**YARN, "truncate": False}),
        "truncate False cannot be converted, only True",
    ),
    "llama3 without a number": (
        "llama",
        rope(rope_type="llama3", factor=8),
        "'low_freq_factor' must be a positive number, not None",
    ),
    "llama3 the wrong way round": (
        "llama",
        rope(**{**LLAMA3, "low_freq_factor": 4.0}),
        "high_freq_factor 4.0 must be larger than low_freq_factor 4.0",
    ),
    "longrope with too few": (
        "phi3",
        rope(**{**PARTIAL, "rope_type": "longrope"}),
        "'long_factor' must hold 8 positive numbers, one per frequency",
    ),
    "longrope with a word": (
        "llama",
        rope(**{**LONGROPE, "rope_type": "longrope", "long_factor": ["a"] * 8}),
        "'long_factor' must hold 8 positive numbers",
    ),
    "longrope with two factors": (
        "phi3",
        rope(**{**LONGROPE, "rope_type": "longrope", "factor": 4.0}),
        "factor 4.0 in the rotary settings, but a context 2.0 times that of training; give attention_factor",
    ),
}


@pytest.mark.parametrize(("family", "change", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_refused_with_one_line(folder_of: Any, family: str, change: Config, message: str) -> None:
    with pytest.raises(ModelError, match=re.escape(message)) as caught:
        architectures.of(config_of(folder_of(family)) | change)
    assert "\n" not in str(caught.value) and str(caught.value).startswith("config.json: ")


LAYER = "model.layers.0."
TENSORS: dict[str, tuple[str, Callable[[dict[str, Any]], object], str]] = {
    "qwen2 without a bias": (
        "qwen2",
        lambda t: t.pop(f"{LAYER}self_attn.v_proj.bias"),
        f"tensor '{LAYER}self_attn.v_proj.bias' is missing",
    ),
    "qwen3 without its norm": (
        "qwen3",
        lambda t: t.pop(f"{LAYER}self_attn.q_norm.weight"),
        f"tensor '{LAYER}self_attn.q_norm.weight' is missing",
    ),
    "gemma3 without its norm": (
        "gemma3",
        lambda t: t.pop(f"{LAYER}post_feedforward_layernorm.weight"),
        f"tensor '{LAYER}post_feedforward_layernorm.weight' is missing",
    ),
    "llama with a norm": (
        "llama",
        lambda t: t.update({f"{LAYER}self_attn.q_norm.weight": np.ones(16, "f4")}),
        f"tensor '{LAYER}self_attn.q_norm.weight' does not belong to its architecture (1 such)",
    ),
    "olmo2 with qwen3's norm": (
        "olmo2",
        lambda t: t.update({f"{LAYER}self_attn.k_norm.weight": np.ones(16, "f4")}),
        f"tensor '{LAYER}self_attn.k_norm.weight' has shape (16,), config.json asks for (32,)",
    ),
    "phi3 with half a projection": (
        "phi3",
        lambda t: t.update({f"{LAYER}mlp.gate_up_proj.weight": np.ones((96, 64), "f4")}),
        f"tensor '{LAYER}mlp.gate_up_proj.weight' has shape (96, 64), config.json asks for (192, 64)",
    ),
}


@pytest.mark.parametrize(("family", "change", "message"), TENSORS.values(), ids=TENSORS.keys())
def test_tensors_that_do_not_fit(
    folder_of: Any, family: str, change: Callable[[dict[str, Any]], object], message: str, tmp_path: Path
) -> None:
    from safetensors.numpy import load_file, save_file

    folder = Path(shutil.copytree(folder_of(family), tmp_path / "hf"))
    tensors = dict(load_file(folder / "model.safetensors"))
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ModelError, match=re.escape(message)):
        written(folder, tmp_path / "m.gguf")
