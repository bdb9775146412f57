"""A checkpoint is the same model whichever transformers wrote its config.json, and whichever reads it."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bioner_edge.errors import ModelError

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import transformers

from bioner_edge.convert import hf_config
from bioner_edge.convert.verification import reference

transformers.utils.logging.disable_progress_bar()

Config = dict[str, Any]

BASE, LOCAL = 700.0, 90.0  # rotary bases that no class has by default
LINEAR = {"factor": 4.0}
YARN = {"factor": 4.0, "original_max_position_embeddings": 64, "attention_factor": 1.7}
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
LONGROPE = {
    "short_factor": [1.0 + 0.1 * at for at in range(8)],
    "long_factor": [2.0 + 0.5 * at for at in range(8)],
    "original_max_position_embeddings": 48,  # some texts are longer
}
# Family -> the kinds of scaling that its class in both generations takes.
SCALINGS: dict[str, dict[str, Config]] = {
    "llama": {"default": {}, "linear": LINEAR, "yarn": YARN, "llama3": LLAMA3, "longrope": LONGROPE},
    "mistral": {"default": {}},
    "smollm3": {"default": {}, "yarn": YARN},
    "granite": {"default": {}, "llama3": LLAMA3},
    "qwen2": {"default": {}, "yarn": YARN, "linear": LINEAR},
    "qwen3": {"default": {}, "yarn": YARN},
    "gemma2": {"default": {}, "linear": LINEAR},
    "gemma3": {"default": {}, "linear": LINEAR},
    "phi3": {"default": {}, "longrope": LONGROPE},
    "olmo2": {"default": {}, "linear": LINEAR},
}
CASES = [(family, kind) for family, kinds in SCALINGS.items() for kind in kinds]


def to_v4(saved: Config, kind: str, settings: Config) -> Config:
    """As transformers 4 writes it: Phi-3 and OLMo 2 know the older name of a kind alone."""
    old = saved["model_type"] in ("phi3", "olmo2")
    inside = {key: value for key, value in settings.items() if not (kind == "longrope" and key.startswith("orig"))}
    config = bare(saved) | {"rope_theta": BASE, "torch_dtype": "float32"}
    config["rope_scaling"] = None if kind == "default" else {"type" if old else "rope_type": kind, **inside}
    if kind == "longrope":
        config["original_max_position_embeddings"] = settings["original_max_position_embeddings"]
    if saved["model_type"] == "gemma3_text":
        config["rope_local_base_freq"] = LOCAL
    return config


def to_v5(saved: Config, kind: str, settings: Config) -> Config:
    """As transformers 5 writes it."""
    everywhere = {"rope_type": kind, "rope_theta": BASE, **settings}
    config = bare(saved) | {"dtype": "float32"}
    if saved["model_type"] == "phi3":
        config["original_max_position_embeddings"] = settings.get("original_max_position_embeddings", 2048)
        everywhere |= {"partial_rotary_factor": 1.0}
    if saved["model_type"] == "gemma3_text":
        windows = {"rope_type": "default", "rope_theta": LOCAL}
        everywhere = {"full_attention": everywhere, "sliding_attention": windows}
    return config | {"rope_parameters": everywhere}


def bare(saved: Config) -> Config:
    silent = ("torch_dtype", "dtype", "partial_rotary_factor", "transformers_version")
    return {key: value for key, value in saved.items() if not key.startswith("rope_") and key not in silent}


def logits(folder: Path) -> np.ndarray[Any, Any]:
    model = reference.read(folder)
    ids = np.random.default_rng(0).integers(0, model.config.vocab_size, 40)
    with torch.inference_mode():
        short, long = (model(torch.tensor([ids[:length].tolist() * 2])).logits[0] for length in (20, 40))
    return np.concatenate([short.numpy(), long.numpy()])


@pytest.fixture(scope="session")
def spelled(make_family: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A function (family, spelling, kind) -> the folder of its checkpoint with config.json spelled so."""
    made: dict[str, Path] = {}

    def folder(family: str, spelling: Callable[..., Config], kind: str) -> Path:
        if family not in made:
            gate = 1.0 if family.startswith("gemma") else None
            made[family] = make_family(tmp_path_factory.mktemp("spelled") / family, family, gate=gate)
        saved = json.loads((made[family] / "config.json").read_text("utf-8"))
        copy = Path(shutil.copytree(made[family], tmp_path_factory.mktemp("spelled") / family))
        write(copy, spelling(saved, kind, SCALINGS[family][kind]))
        return copy

    return folder


def write(folder: Path, config: Config) -> None:
    (folder / "config.json").write_text(json.dumps(config), "utf-8")


def config_of(folder: Path) -> Config:
    config: Config = json.loads((folder / "config.json").read_text("utf-8"))
    return config


@pytest.mark.parametrize(("family", "kind"), CASES)
def test_both_spellings_are_the_same_model(spelled: Any, family: str, kind: str) -> None:
    four, five = (logits(spelled(family, spelling, kind)) for spelling in (to_v4, to_v5))
    assert np.array_equal(four, five)


@pytest.mark.parametrize(("family", "kind"), CASES)
def test_the_settings_arrive(spelled: Any, family: str, kind: str) -> None:
    """None of them is passed over: another base, and no scaling, are other models."""
    folder = spelled(family, to_v5, kind)
    expected, saved = logits(folder), config_of(folder)
    for change in (
        {"rope_theta": 2 * BASE},
        *([{"rope_type": "default", "factor": None}] if kind != "default" else []),
    ):
        parameters = saved["rope_parameters"]
        inner = {**parameters.get("full_attention", parameters), **change}
        inner = {key: value for key, value in inner.items() if value is not None}
        write(
            folder,
            saved | {"rope_parameters": {**parameters, "full_attention": inner} if family == "gemma3" else inner},
        )
        assert np.abs(logits(folder) - expected).max() > 1e-2 * expected.std()


def test_the_base_of_layers_with_a_window_arrives(spelled: Any) -> None:
    folder = spelled("gemma3", to_v5, "default")
    expected, saved = logits(folder), config_of(folder)
    saved["rope_parameters"]["sliding_attention"]["rope_theta"] = 2 * LOCAL
    write(folder, saved)
    assert np.abs(logits(folder) - expected).max() > 1e-2 * expected.std()


def test_heads_rotated_in_part(make_family: Any, tmp_path: Path) -> None:
    factors = {f"{length}_factor": LONGROPE[f"{length}_factor"][:6] for length in ("short", "long")}
    scaling = {"type": "longrope", **factors}
    folder = make_family(tmp_path / "hf", "phi3", rope_scaling=scaling, partial_rotary_factor=0.75)
    saved, settings = config_of(folder), {**factors, "original_max_position_embeddings": 2048}
    write(folder, to_v4(saved, "longrope", settings) | {"partial_rotary_factor": 0.75})
    four = logits(folder)
    config = to_v5(saved, "longrope", settings)
    config["rope_parameters"]["partial_rotary_factor"] = 0.75
    write(folder, config)
    assert np.array_equal(four, logits(folder))


@pytest.mark.parametrize("name", ["su", "yarn"])
def test_longrope_by_its_old_names(spelled: Any, name: str) -> None:
    folder = spelled("phi3", to_v4, "longrope")
    expected, config = logits(folder), config_of(folder)
    config["rope_scaling"]["type"] = name
    write(folder, config)
    assert np.array_equal(logits(folder), expected)


@pytest.mark.parametrize("tied", [True, False])
def test_output_and_embedding_are_tied_as_said(make_family: Any, family: str, tied: bool, tmp_path: Path) -> None:
    model = reference.read(make_family(tmp_path / "hf", family, tie_word_embeddings=tied))
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == tied
    assert not reference.read(tmp_path / "hf", tie_word_embeddings=False).config.tie_word_embeddings


@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_what_is_spelled_so_stays_so(spelled: Any, family: str) -> None:
    four, five = (config_of(spelled(family, spelling, "linear")) for spelling in (to_v4, to_v5))
    assert hf_config.to_v4(four) == four
    assert hf_config.to_v5(five) == five


# What 4 is told of what 5 wrote -> it.
TOLD: dict[str, tuple[Config, Config]] = {
    "nothing": ({}, {}),
    "none": ({"rope_parameters": None}, {}),
    "a base": ({"rope_parameters": {"rope_theta": 7.0}}, {"rope_theta": 7.0, "rope_scaling": None}),
    "kinds in both words": (
        {"rope_parameters": {"rope_type": "linear", "type": "linear", "factor": 2.0}},
        {"rope_scaling": {"rope_type": "linear", "factor": 2.0}},
    ),
    "layers of one type": (
        {"rope_parameters": {"sliding_attention": {"rope_type": "default", "rope_theta": 7.0}}},
        {"rope_local_base_freq": 7.0},
    ),
    "both said": (
        {"rope_theta": 1.0, "rope_scaling": {"type": "old"}, "rope_parameters": {"rope_theta": 7.0}},
        {"rope_theta": 7.0, "rope_scaling": None},
    ),
}


@pytest.mark.parametrize(("config", "told"), TOLD.values(), ids=TOLD.keys())
def test_what_4_is_told(config: Config, told: Config) -> None:
    assert hf_config.to_v4({"model_type": "llama", **config}) == {"model_type": "llama", **told}


REFUSED: dict[str, tuple[Any, str]] = {
    "scaled windows": (
        {"sliding_attention": {"rope_type": "linear", "factor": 2.0}},
        "rope_parameters scale sliding_attention, which transformers 4 does not support: pip install 'transformers>=5'",
    ),
    "a list": (["linear"], "'rope_parameters' must be an object, not ['linear']"),
    "a word": ({"full_attention": "default"}, "'full_attention' must be an object, not 'default'"),
}


@pytest.mark.parametrize(("settings", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_4_has_no_words_for(settings: Any, message: str) -> None:
    with pytest.raises(ModelError, match=re.escape(message)) as caught:
        hf_config.to_v4({"rope_parameters": settings})
    assert "\n" not in str(caught.value)


def test_what_4_cannot_read_is_refused_early(checkpoint: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("transformers.__version__", "4.57.6")  # by its name: loading models puts another object there
    folder = Path(shutil.copytree(checkpoint, tmp_path / "hf"))
    reference.require(folder)
    write(folder, config_of(folder) | {"rope_parameters": REFUSED["scaled windows"][0]})
    with pytest.raises(ModelError, match="pip install 'transformers>=5'"):
        reference.require(folder)
    with pytest.raises(ModelError, match="pip install 'transformers>=5'"):
        reference.read(folder)


@pytest.mark.parametrize("kind", [None, 3, "warp"])
def test_an_unknown_kind_of_model(checkpoint: Path, kind: Any, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(checkpoint, tmp_path / "hf"))
    write(folder, config_of(folder) | {"model_type": kind})
    with pytest.raises(ModelError, match=f"cannot load it: ValueError: model_type {kind!r} is unknown to transformers"):
        reference.read(folder)
