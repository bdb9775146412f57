"""adapter_config.json is understood as peft understands it; what cannot be followed is refused in one line."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from bioner_edge.convert.merging import adapter_config
from bioner_edge.convert.merging.adapter_config import AdapterSettings
from bioner_edge.errors import ModelError

peft = pytest.importorskip("peft")


def saved(folder: Path, **changes: Any) -> Path:
    """The folder of an adapter_config.json as peft writes it, with some settings changed."""
    peft.LoraConfig(r=4, lora_alpha=3, target_modules=["q_proj"], task_type="CAUSAL_LM").save_pretrained(folder)
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **changes}), "utf-8")
    return folder


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "another method": (dict(peft_type="IA3"), "unknown adapter 'IA3'; known: LORA; merge it with peft"),
    "no method": (dict(peft_type=None), "unknown adapter 'None'; known: LORA"),
    "another task": (dict(task_type="SEQ_CLS"), "task_type 'SEQ_CLS' is not supported"),
    "layer replication": (dict(layer_replication=[[0, 2], [1, 2]]), "layer_replication repeats layers of the base"),
    "parameters": (dict(target_parameters=["experts.down_proj"]), "target_parameters adapts parameters of mixtures"),
    "aLoRA": (dict(alora_invocation_tokens=[5]), "alora_invocation_tokens acts only after its invocation tokens"),
    "QALoRA": (dict(use_qalora=True), "use_qalora belongs to a GPTQ base"),
    "Monteclora": (dict(monteclora_config={"num_samples": 8}), "monteclora_config draws its weights at random"),
    "BD-LoRA": (dict(use_bdlora={"nblocks": 2}), "use_bdlora has block-diagonal factors: merge it with peft"),
    "Arrow": (dict(arrow_config={"top_k": 1}), "arrow_config chooses among adapters for each token"),
    "KaSA": (dict(kasa_config={"beta": 1e-4}), "kasa_config truncates the base before adding to it"),
    "PiSSA": (dict(init_lora_weights="pissa_niter_16"), "init_lora_weights 'pissa_niter_16' trains on a modified base"),
    "CorDA": (dict(init_lora_weights="corda"), "save the adapter with path_initial_model_for_weight_conversion"),
    "OLoRA": (dict(init_lora_weights="OLoRA"), "init_lora_weights 'OLoRA' trains on a modified base"),
    "LoRA-GA": (dict(init_lora_weights="lora_ga"), "init_lora_weights 'lora_ga' trains on a modified base"),
    "LoftQ": (dict(init_lora_weights="loftq"), "init_lora_weights 'loftq' belongs to a base that it quantized"),
    "unknown setting": (dict(use_novelty=1), "unknown setting 'use_novelty'; if it does not affect the merge"),
    "rank 0": (dict(r=0), "r cannot be 0; save the adapter again"),
    "alpha of text": (dict(lora_alpha="16"), "lora_alpha cannot be '16'"),
    "rank of text": (dict(rank_pattern={"q_proj": "4"}), "rank_pattern cannot be {'q_proj': '4'}"),
    "no expression": (
        dict(alpha_pattern={"q_(proj": 4}),
        "alpha_pattern: 'q_(proj' is neither a name nor a regular expre",
    ),
    "layers of text": (dict(layers_to_transform=["1"]), "layers_to_transform cannot be ['1']"),
}


@pytest.mark.parametrize(("changes", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_refused_with_one_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=re.escape(message)) as caught:
        AdapterSettings(saved(tmp_path, **changes))
    assert "\n" not in str(caught.value) and str(tmp_path / "adapter_config.json: ") in str(caught.value)


MODULES = [
    *(f"model.layers.{layer}.{name}" for layer in (0, 1, 10) for name in ("self_attn.q_proj", "mlp.down_proj", "mlp")),
    "model.layers.1.self_attn.eq_proj",
    "model.embed_tokens",
    "lm_head",
    "q_proj",
]
TARGETS: list[dict[str, Any]] = [
    {},
    {"target_modules": ["q_proj", "lm_head"], "exclude_modules": ["layers.1.self_attn.q_proj"]},
    {"target_modules": r".*\.1\.(self_attn\.q|mlp\.down)_proj", "exclude_modules": r".*mlp.*"},
    {"target_modules": ["q_proj", "down_proj", "embed_tokens"], "modules_to_save": ["mlp", "embed_tokens"]},
    {"target_modules": ["q_proj"], "layers_to_transform": [1, 10]},
    {"target_modules": ["q_proj", "model.layers.0.mlp.down_proj"], "layers_to_transform": 1},
    {"target_modules": ["q_proj"], "layers_to_transform": [0], "layers_pattern": ["layers", "h"]},
    {"target_modules": ["q_proj"], "layers_to_transform": [0], "layers_pattern": "blocks"},
    {"target_modules": ["q_proj"], "layers_to_transform": []},
    {"target_modules": ["proj", "eq_proj"]},
    {"target_modules": []},
]


@pytest.mark.parametrize("changes", TARGETS)
def test_targets_are_those_of_peft(tmp_path: Path, changes: dict[str, Any]) -> None:
    from peft.tuners.tuners_utils import check_target_module_exists

    settings = AdapterSettings(saved(tmp_path, **changes))
    theirs = peft.PeftConfig.from_pretrained(tmp_path)
    for module in MODULES:
        assert settings.targets(module) == bool(check_target_module_exists(theirs, module)), module


PATTERNS: list[dict[str, float]] = [
    {},
    {"q_proj": 8},
    {"eq_proj": 8, "q_proj": 2},
    {r"layers\.1\..*": 5, "q_proj": 2},
    {r"model\.layers\.\d\.mlp": 6, "mlp.down_proj": 7},
    {"proj": 9, "layers": 9, "1": 9},
    {"^model.layers.10.self_attn.q_proj": 3, "lm_head$": 2},
]


@pytest.mark.parametrize("patterns", PATTERNS)
@pytest.mark.parametrize("rslora", [False, True])
def test_ranks_and_scalings_are_those_of_peft(tmp_path: Path, patterns: dict[str, float], rslora: bool) -> None:
    from peft.utils.other import get_pattern_key

    settings = AdapterSettings(saved(tmp_path, rank_pattern=patterns, alpha_pattern=patterns, use_rslora=rslora))
    for module in MODULES:
        rank, alpha = (patterns.get(get_pattern_key(patterns, module), default) for default in (4, 3))
        assert settings.rank(module) == rank
        assert settings.scaling(module) == alpha / (rank**0.5 if rslora else rank)


def test_every_setting_that_peft_knows_has_its_place() -> None:
    """A new version of peft with a new setting must be looked at."""
    known = adapter_config._FOLLOWED | adapter_config._WITHOUT_EFFECT | adapter_config._REFUSED.keys()
    fields = {field.name for field in dataclasses.fields(peft.LoraConfig)}
    assert not fields - known
