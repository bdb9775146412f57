"""Merging: every tensor is, bit for bit, the one that peft gives, and the merged model is the one that was trained."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bioner_edge.convert import shards
from bioner_edge.convert.checkpoint import Checkpoint
from bioner_edge.convert.merging import exact, nf4
from bioner_edge.convert.merging.adapter import Adapter
from bioner_edge.convert.merging.merge import Merged, save
from bioner_edge.errors import ModelError, UsageError
from bioner_edge.report import Advance, Report

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

pytestmark = pytest.mark.filterwarnings("ignore")

IDS = [[1, 5, 9, 2, 40, 7, 3, 3, 12]]
VOCABULARY = 64
SHAPE = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64, "initializer_range": 0.2,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A function (class name, **config) -> the folder of a random model, made once."""
    made: dict[str, Path] = {}

    def base(family: str = "Llama", dtype: str = "float32", **config: Any) -> Path:
        key = json.dumps([family, dtype, config])
        if key not in made:
            torch.manual_seed(len(made))
            kind = getattr(transformers, "Gemma3TextConfig" if family == "Gemma3" else f"{family}Config")
            model = getattr(transformers, f"{family}ForCausalLM")(kind(**{**SHAPE, **config}))
            for name, parameter in model.named_parameters():
                if name.endswith("bias"):
                    torch.nn.init.normal_(parameter)
            made[key] = tmp_path_factory.mktemp("bases") / str(len(made))
            model.to(getattr(torch, dtype)).save_pretrained(made[key])
        return made[key]

    return base


def trained(base: Path, folder: Path, *, rows: int | None = None, dtype: str | None = None, **config: Any) -> Path:
    """An adapter for `base`, all that it trains random, saved by peft; its logits lie beside it."""
    torch.manual_seed(11)
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if rows:
        model.resize_token_embeddings(rows)
    config = {"target_modules": ["q_proj", "v_proj", "down_proj"], "r": 4, "lora_alpha": 3, **config}
    model = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", lora_dropout=0.1, **config))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                around = parameter.abs().mean() if "magnitude" in name else 0.0
                parameter.copy_(torch.randn_like(parameter) * 0.2 + around)
        logits = model.eval()(torch.tensor(IDS)).logits[0].numpy()
    model.save_pretrained(folder)
    np.save(folder / "logits.npy", logits)
    if dtype:
        retype(folder / "adapter_model.safetensors", dtype)
    return folder


def retype(path: Path, dtype: str) -> None:
    from safetensors.torch import load_file, save_file

    save_file({name: tensor.to(getattr(torch, dtype)) for name, tensor in load_file(path).items()}, path)


def by_peft(base: Path, adapter: Path, *, rows: int | None = None, parted: bool = False) -> Mapping[str, Any]:
    """The state dict of merge_and_unload; of a base that was untied before if `parted`."""
    options = {"tie_word_embeddings": False} if parted else {}
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, **options)
    config = peft.PeftConfig.from_pretrained(adapter)
    if parted:
        model.lm_head.weight.data = model.get_input_embeddings().weight.data.clone()
        head = shards.Shards([adapter / "adapter_model.safetensors"]).shapes()
        if "base_model.model.lm_head.lora_A.weight" in head:  # an ensured tie, which peft adds twice otherwise
            config.target_modules, config.ensure_weight_tying = {*config.target_modules, "lm_head"}, False
    if rows:
        model.resize_token_embeddings(rows)
    model = peft.PeftModel.from_pretrained(model, adapter, config=config)
    if parted and rows and isinstance(model.lm_head, torch.nn.Linear) and not hasattr(model.lm_head, "base_layer"):
        beneath = getattr(model.get_input_embeddings(), "base_layer", None)
        if beneath is not None:  # new rows, which a tied output has from the embedding
            model.lm_head.weight.data = beneath.weight.data.clone()
    return model.merge_and_unload().state_dict()


def check(base: Path, adapter: Path, *, rows: int | None = None, parted: bool = False, logits: bool = True) -> Merged:
    """Every merged tensor has peft's bits, and the saved model gives the logits of the adapter before merging."""
    merged = Merged(Checkpoint(base), Adapter(adapter))
    expected = by_peft(base, adapter, rows=rows, parted=parted)
    missing = set(expected) - set(merged.shapes())
    tied = {"lm_head.weight"} if merged.config.get("tie_word_embeddings", "lm_head.weight" in missing) else set()
    assert missing == tied and not set(merged.shapes()) - set(expected)
    for name, shape in merged.shapes().items():
        tensor = merged.tensor(name)
        assert tensor.shape == shape and tensor.dtype == np.float32
        assert tensor.tobytes() == expected[name].numpy().tobytes(), name
    if logits:
        out = adapter / "merged"
        save(merged, out)
        model = transformers.AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
        for name, tensor in model.state_dict().items():
            assert tensor.numpy().tobytes() == expected[name].numpy().tobytes(), name
        with torch.no_grad():
            got = model(torch.tensor(IDS)).logits[0].numpy()
        before = np.load(adapter / "logits.npy")
        assert np.abs(got - before).max() < 2e-5 * before.std()
    return merged


ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
VARIANTS: dict[str, dict[str, Any]] = {
    "LoRA": {"target_modules": ALL},
    "rank 1": {"r": 1},
    "rank 37": {"r": 37, "lora_alpha": 16},
    "rank 300": {"r": 300},
    "rsLoRA": {"r": 7, "lora_alpha": 5, "use_rslora": True},
    "rank pattern": {"rank_pattern": {"layers.1.self_attn.q_proj": 6, "v_proj": 2, r"layers\.\d+\.mlp\..*": 5}},
    "alpha pattern": {"alpha_pattern": {r".*\.1\..*v_proj": 7, "q_proj": 1.5}, "use_rslora": True},
    "first pattern that fits": {"alpha_pattern": {r"layers\.0\.self_attn\.q_proj": 2, "q_proj": 9}},
    "some layers": {"layers_to_transform": [1]},
    "layers by name": {"layers_to_transform": 0, "layers_pattern": "layers"},
    "excluded": {"exclude_modules": ["layers.0.mlp.down_proj"]},
    "regular expression": {"target_modules": r".*\.(0\.self_attn\.q_proj|1\.mlp\.up_proj)"},
    "all linear": {"target_modules": "all-linear"},
    "fan_in_fan_out without effect": {"fan_in_fan_out": True},
    "other inits": {"init_lora_weights": "orthogonal"},
    "MiCA": {"init_lora_weights": "mica"},
    "DoRA": {"use_dora": True, "target_modules": ALL},
    "DoRA and rsLoRA": {"use_dora": True, "use_rslora": True, "r": 3},
    "embedding": {"target_modules": ["embed_tokens", "q_proj"]},
    "output": {"target_modules": ["lm_head"]},
    "both": {"target_modules": ["lm_head", "embed_tokens", "k_proj"]},
    "DoRA on both": {"target_modules": ["lm_head", "embed_tokens"], "use_dora": True},
    "whole modules": {"modules_to_save": ["norm", "mlp"], "target_modules": ["q_proj"]},
    "whole embedding": {"modules_to_save": ["embed_tokens"]},
    "whole output": {"modules_to_save": ["lm_head"]},
    "whole both": {"modules_to_save": ["lm_head", "embed_tokens"]},
    "tokens": {"trainable_token_indices": [3, 60, 7]},
    "tokens by name": {"trainable_token_indices": {"embed_tokens": [3, 60, 7]}},
    "tokens of both": {"trainable_token_indices": {"embed_tokens": [3, 60], "lm_head": [3, 60]}},
    "other tokens of both": {"trainable_token_indices": {"embed_tokens": [3, 60], "lm_head": [7]}},
    "tokens of the output": {"trainable_token_indices": {"lm_head": [7, 9]}},
    "larger vocabulary": {"rows": VOCABULARY + 7},
    "larger vocabulary, tokens": {"rows": VOCABULARY + 7, "trainable_token_indices": [VOCABULARY + 1, 5]},
    "larger vocabulary, whole both": {"rows": VOCABULARY + 7, "modules_to_save": ["lm_head", "embed_tokens"]},
    "larger vocabulary, whole embedding": {"rows": VOCABULARY + 7, "modules_to_save": ["embed_tokens"]},
    "larger vocabulary, embedding": {"rows": VOCABULARY + 7, "target_modules": ["embed_tokens"]},
    "larger vocabulary, both": {"rows": VOCABULARY + 7, "target_modules": ["embed_tokens", "lm_head"]},
    "smaller vocabulary": {"rows": VOCABULARY - 10},
    "embeddings tied for sure": {"target_modules": ["embed_tokens", "q_proj"], "ensure_weight_tying": True},
    "both tied for sure": {"target_modules": ["embed_tokens", "lm_head"], "ensure_weight_tying": True},
    "DoRA tied for sure": {"target_modules": ["embed_tokens"], "ensure_weight_tying": True, "use_dora": True},
    "whole both tied for sure": {"modules_to_save": ["embed_tokens", "lm_head"], "ensure_weight_tying": True},
}
# Where the base is tied: those that part output and embedding.
PARTED = {
    "embedding", "output", "both", "DoRA on both", "whole embedding", "whole output", "whole both",
    "other tokens of both", "tokens of the output", "larger vocabulary, whole both",
    "larger vocabulary, whole embedding", "larger vocabulary, embedding", "larger vocabulary, both",
    "DoRA tied for sure",
}  # fmt: skip
# Where peft itself adds one change twice, or leaves half of it out.
ENSURED = {"embeddings tied for sure", "both tied for sure"}


# Of an untied base, peft saves the new rows of one matrix and forgets the other's.
HALF_SAVED = {"larger vocabulary, embedding"}


# What is not about the embedding or the output is the same on a tied base.
@pytest.mark.thorough(
    only=(
        *("MiCA", "DoRA and rsLoRA", "rsLoRA", "rank *", "alpha pattern", "first pattern*", "layers by name"),
        *("some layers", "regular expression", "excluded", "other inits", "fan_in_fan_out*"),
    )
)
@pytest.mark.parametrize("name", [name for name in VARIANTS if not name.endswith("tied for sure")])
def test_untied_base(bases: Callable[..., Path], tmp_path: Path, name: str) -> None:
    base = bases(tie_word_embeddings=False)
    adapter = trained(base, tmp_path, **VARIANTS[name])
    if name in HALF_SAVED:
        with pytest.raises(ModelError, match="the embedding gets 71 rows and the output 64"):
            Merged(Checkpoint(base), Adapter(adapter))
        return
    merged = check(base, adapter, rows=VARIANTS[name].get("rows"))
    assert not merged.untied and not merged.needs_untied_base and merged.config["tie_word_embeddings"] is False
    assert merged.config["vocab_size"] == VARIANTS[name].get("rows", VOCABULARY)


@pytest.mark.parametrize("name", VARIANTS)
def test_tied_base(bases: Callable[..., Path], tmp_path: Path, name: str) -> None:
    base = bases(tie_word_embeddings=True)
    adapter = trained(base, tmp_path, **VARIANTS[name])
    merged = check(base, adapter, rows=VARIANTS[name].get("rows"), parted=name in PARTED | ENSURED)
    assert merged.untied is (name in PARTED) and merged.needs_untied_base is (name in PARTED | ENSURED)
    assert merged.config["tie_word_embeddings"] is (name not in PARTED)


def test_equal_rows_of_other_tokens_part(bases: Callable[..., Path], tmp_path: Path) -> None:
    base, delta = bases(tie_word_embeddings=True), "token_adapter.trainable_tokens_delta"
    adapter = trained(base, tmp_path, trainable_token_indices={"embed_tokens": [3, 60], "lm_head": [7, 9]})
    same = np.ones((2, SHAPE["hidden_size"]), np.float32)
    rewrite(adapter, lambda tensors: {name: same if delta in name else tensor for name, tensor in tensors.items()})
    assert check(base, adapter, parted=True, logits=False).untied


FAMILIES: dict[str, dict[str, Any]] = {
    "Llama": {"tie_word_embeddings": False, "attention_bias": True, "mlp_bias": True},
    "Mistral": {},
    "SmolLM3": {"no_rope_layer_interval": 2},
    "Qwen2": {},
    "Qwen3": {"head_dim": 12},
    "Gemma2": {"head_dim": 8, "query_pre_attn_scalar": 8},
    "Gemma3": {"head_dim": 8, "query_pre_attn_scalar": 8},
    "Phi3": {},
    "Granite": {"embedding_multiplier": 3.0, "logits_scaling": 2.0},
    "Olmo2": {},
}


@pytest.mark.thorough(only=("*-bfloat16",), but=("Llama-*", "Gemma3-*", "Phi3-*"))
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_families(bases: Callable[..., Path], tmp_path: Path, family: str, dtype: str) -> None:
    """Both files in either type: in bfloat16 the numbers of what was trained are others than those in the file."""
    base = bases(family, dtype, **FAMILIES[family])
    reduced = dtype if dtype != "float32" else None
    adapter = trained(base, tmp_path, target_modules="all-linear", dtype=reduced)
    merged = check(base, adapter, logits=reduced is None)
    assert len(merged.adapter.targets) == (8 if family == "Phi3" else 14)


def test_float16_files(bases: Callable[..., Path], tmp_path: Path) -> None:
    base = bases("Qwen2", "float16")
    check(base, trained(base, tmp_path, use_dora=True, dtype="float16"), logits=False)


BIASES: dict[str, dict[str, Any]] = {
    "all": {"bias": "all"},
    "of LoRA's layers": {"bias": "lora_only"},
    "added": {"lora_bias": True, "target_modules": ["q_proj", "k_proj"]},
    "all and added": {"bias": "all", "lora_bias": True, "target_modules": ["q_proj"]},
    "all, DoRA": {"bias": "all", "use_dora": True},
}


@pytest.mark.parametrize("name", BIASES)
def test_biases(bases: Callable[..., Path], tmp_path: Path, name: str) -> None:
    base = bases("Qwen2")
    check(base, trained(base, tmp_path, **BIASES[name]))


@pytest.mark.parametrize(
    "settings",
    [{}, {"use_dora": True}, {"fan_in_fan_out": False}, {"target_modules": ["wte"]}, {"target_modules": ["lm_head"]}],
)
def test_layers_that_store_their_outputs_as_columns(
    bases: Callable[..., Path], tmp_path: Path, settings: dict[str, Any]
) -> None:
    """GPT-2's c_proj of the attention is square: its shape does not tell."""
    shape = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
    base = tmp_path / "base"
    torch.manual_seed(5)
    gpt2 = transformers.GPT2Config(vocab_size=VOCABULARY, **shape, bos_token_id=1, eos_token_id=2)
    transformers.GPT2LMHeadModel(gpt2).save_pretrained(base)
    adapter = trained(
        base, tmp_path / "a", **{"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True, **settings}
    )
    if "fan_in_fan_out" in settings:
        edit(adapter, fan_in_fan_out=False)
    check(base, adapter, parted="target_modules" in settings)


def edit(adapter: Path, **changes: Any) -> None:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **changes}), "utf-8")


def test_early_name_of_the_magnitudes(bases: Callable[..., Path], tmp_path: Path) -> None:
    base = bases()
    adapter = trained(base, tmp_path, use_dora=True)
    rewrite(adapter, lambda tensors: {f"{k}.weight" if k.endswith("vector") else k: v for k, v in tensors.items()})
    check(base, adapter)


def rewrite(adapter: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Change the tensors, by name, as numpy arrays."""
    from safetensors.numpy import load_file, save_file

    save_file(change(load_file(adapter / "adapter_model.safetensors")), adapter / "adapter_model.safetensors")


def test_untrained_adapter_changes_nothing(bases: Callable[..., Path], tmp_path: Path) -> None:
    base = bases()
    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    peft.get_peft_model(model, peft.LoraConfig(target_modules=ALL)).save_pretrained(tmp_path)
    merged, before = check(base, tmp_path, logits=False), Checkpoint(base)
    for name in before.shapes():
        assert np.array_equal(merged.tensor(name), before.tensor(name))


def as_in_the_model(name: str) -> str:
    """A name with that of the adapter, as in a checkpoint that was not saved by peft."""
    return re.sub(
        r"(lora_[AB]|lora_magnitude_vector)(\.weight|\.bias)?$|(lora_embedding_[AB])$",
        lambda m: f"{m[3]}.default" if m[3] else f"{m[1]}.default{m[2] or '.weight'}",
        name,
    )


@pytest.mark.parametrize("name", ["LoRA", "DoRA", "embedding", "rank pattern", "whole modules"])
def test_names_with_the_adapters(bases: Callable[..., Path], tmp_path: Path, name: str) -> None:
    """peft merges those of "default" as they are."""
    base = bases(tie_word_embeddings=False)
    adapter = trained(base, tmp_path, **VARIANTS[name])
    rewrite(adapter, lambda before: {as_in_the_model(key): tensor for key, tensor in before.items()})
    merged = check(base, adapter)
    assert all(".default" in name for target in merged.adapter.targets.values() for name in (target.a, target.b))


def test_names_of_biases_with_the_adapters(bases: Callable[..., Path], tmp_path: Path) -> None:
    base = bases("Qwen2")
    adapter = trained(base, tmp_path, target_modules=["q_proj"], lora_bias=True)
    rewrite(adapter, lambda before: {as_in_the_model(key): tensor for key, tensor in before.items()})
    assert any(target.added_bias for target in check(base, adapter).adapter.targets.values())


def test_real_widths(tmp_path: Path) -> None:
    """One layer of 896 x 4864 and an embedding of 5,000 tokens, whose norms run down the columns."""
    shape = {"hidden_size": 896, "intermediate_size": 4864, "num_attention_heads": 14, "num_hidden_layers": 1}
    config = transformers.Qwen2Config(**{**SHAPE, **shape, "vocab_size": 5000, "tie_word_embeddings": False})
    torch.manual_seed(3)
    transformers.Qwen2ForCausalLM(config).save_pretrained(tmp_path / "base")
    targets = ["down_proj", "gate_proj", "embed_tokens"]
    adapter = trained(tmp_path / "base", tmp_path / "a", r=16, use_dora=True, target_modules=targets)
    check(tmp_path / "base", adapter, logits=False)


# --- What is refused

Change = Callable[[Path], object]


def config(**changes: Any) -> Change:
    return lambda adapter: edit(adapter, **changes)


def tensors(change: Callable[[dict[str, Any]], Any]) -> Change:
    """Change the tensors, by name, in place or by giving others."""

    def apply(adapter: Path) -> None:
        rewrite(adapter, lambda before: change(copied := {k: v.copy() for k, v in before.items()}) or copied)

    return apply


def _pickled(adapter: Path) -> None:
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")


def _two_tokens(adapter: Path) -> None:
    name = "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta"
    tensors(lambda t: t.update({name: np.ones((2, 32), "f4")}))(adapter)


def _renamed(start: str, to: str) -> Change:
    return tensors(lambda t: {re.sub(f"^{re.escape(start)}", to, name): tensor for name, tensor in t.items()})


def _rename(start: str) -> str:
    """What is said of the first name of an adapter whose names begin so."""
    layer = "layers.0.mlp.down_proj.lora_A.weight"
    told = "does not have the name that peft gives it, so peft would not merge it; rename it to"
    return f"tensor '{start}{layer}' {told} 'base_model.model.model.{layer}', and the others likewise"


LAYER = "base_model.model.model.layers.0.self_attn.q_proj"
COPIES = ("", ".modules_to_save", ".original_module")
REFUSED: dict[str, tuple[Change, str]] = {
    "another rank": (config(r=5), "lora_A.weight' has shape (4, 48), but adapter_config.json has rank 5"),
    "no DoRA": (config(use_dora=True), "'model.layers.0.mlp.down_proj' has no magnitude, but use_dora is True"),
    "no bias to add": (config(lora_bias=True), "down_proj' has no added bias, but lora_bias is True"),
    "config of no JSON": (lambda a: (a / "adapter_config.json").write_text("{"), "adapter_config.json: not JSON"),
    "pickle": (_pickled, "adapter_model.bin is pickled, which can run code when it is read"),
    "no weights": (lambda a: (a / "adapter_model.safetensors").unlink(), "it has no adapter_model.safetensors"),
    "no adapter": (lambda a: (a / "adapter_config.json").unlink(), "it has no adapter_config.json"),
    "a model": (
        lambda a: (a / "adapter_config.json").rename(a / "config.json"),
        "a whole model, not an adapter: give it as the base",
    ),
    "cut file": (
        lambda a: (a / "adapter_model.safetensors").write_bytes((a / "adapter_model.safetensors").read_bytes()[:-9]),
        "adapter_model.safetensors: ends inside tensor",
    ),
    "NaN": (
        tensors(lambda t: t[f"{LAYER}.lora_A.weight"].__setitem__((0, 3), np.nan)),
        f"tensor '{LAYER}.lora_A.weight' holds NaN or infinity",
    ),
    "merged to infinity": (
        tensors(lambda t: {name: tensor * 1e25 if LAYER in name else tensor for name, tensor in t.items()}),
        "merging it gives NaN or infinity in 'model.layers.0.self_attn.q_proj.weight'",
    ),
    "half a pair": (
        tensors(lambda t: t.pop(f"{LAYER}.lora_B.weight") is None or None),
        f"tensor '{LAYER}.lora_A.weight' does not belong in a LoRA adapter with these settings",
    ),
    "unknown part": (
        tensors(lambda t: t.update({f"{LAYER}.lora_C.weights": np.ones(4, "f4")})),
        f"tensor '{LAYER}.lora_C.weights' does not belong",
    ),
    "no prefix": (
        tensors(lambda t: {name.removeprefix("base_model.model."): tensor for name, tensor in t.items()}),
        "tensor 'model.layers.0.mlp.down_proj.lora_A.weight' does not have the name that peft gives it, so peft would "
        "not merge it; rename it to 'base_model.model.model.layers.0.mlp.down_proj.lora_A.weight', and the others "
        "likewise",
    ),
    "prefix of torch.compile": (_renamed("", "_orig_mod."), _rename("_orig_mod.base_model.model.model.")),
    "torch.compile inside": (
        _renamed("base_model.model.", "base_model.model._orig_mod."), _rename("base_model.model._orig_mod.model."),
    ),
    "a layer compiled alone": (
        _renamed("base_model.model.model.layers.0.", "base_model.model.model.layers.0._orig_mod."),
        "rename it to 'base_model.model.model.layers.0.mlp.down_proj.lora_A.weight'",
    ),
    "prefix of FSDP": (_renamed("", "_fsdp_wrapped_module."), _rename("_fsdp_wrapped_module.base_model.model.model.")),
    "FSDP around each layer, without a prefix": (
        _renamed("base_model.model.model.layers.0.", "model.layers.0._fsdp_wrapped_module."),
        "rename it to 'base_model.model.model.layers.0.mlp.down_proj.lora_A.weight'",
    ),
    "prefix of data parallelism": (_renamed("", "module."), _rename("module.base_model.model.model.")),
    "the name of another adapter": (
        tensors(lambda t: {re.sub("(lora_[AB])", r"\1.drugs", name): tensor for name, tensor in t.items()}),
        "down_proj.lora_A.drugs.weight' does not have the name that peft gives it, so peft would not merge it; "
        "rename it to 'base_model.model.model.layers.0.mlp.down_proj.lora_A.weight'",
    ),
    "both names": (
        tensors(lambda t: t.update({f"{LAYER}.lora_A.default.weight": t[f"{LAYER}.lora_A.weight"]})),
        "does not belong in a LoRA adapter with these settings",
    ),
    "a bias beside, which peft drops": (
        tensors(lambda t: t.update({f"{LAYER}.bias": np.ones(32, "f4")})),
        f"tensor '{LAYER}.bias' does not belong",
    ),
    "magnitudes without DoRA": (
        tensors(lambda t: t.update({f"{LAYER}.lora_magnitude_vector": np.ones(32, "f4")})),
        "'model.layers.0.self_attn.q_proj' has a magnitude, but use_dora is False",
    ),
    "two magnitudes": (
        tensors(lambda t: t.update({f"{LAYER}.lora_magnitude_vector{e}": np.ones(32, "f4") for e in ("", ".weight")})),
        "does not belong",
    ),
    "copies that differ": (
        tensors(
            lambda t: t.update(
                {f"base_model.model.lm_head{part}.weight": np.full((64, 32), i, "f4") for i, part in enumerate(COPIES)}
            )
        ),
        "'base_model.model.lm_head.modules_to_save.weight' differs from 'base_model.model.lm_head.weight'",
    ),
    "fewer layers than the base": (
        tensors(lambda t: {name: tensor for name, tensor in t.items() if "layers.1" not in name}),
        "target_modules includes 'model.layers.1.mlp.down_proj', but it has no tensors for it; this adapter was",
    ),
    "more layers than the base": (
        tensors(lambda t: t.update({k.replace("layers.1", "layers.2"): v for k, v in t.items() if "layers.1" in k})),
        "it changes 'model.layers.2.mlp.down_proj.weight', but the base has no such tensor; this adapter was",
    ),
    "wider than the base": (
        tensors(lambda t: t.update({f"{LAYER}.lora_A.weight": np.ones((4, 48), "f4")})),
        "has shape (4, 48), but the base's 'model.layers.0.self_attn.q_proj.weight' of (32, 32) needs (4, 32)",
    ),
    "higher than the base": (
        tensors(lambda t: t.update({f"{LAYER}.lora_B.weight": np.ones((48, 4), "f4")})),
        f"'{LAYER}.lora_B.weight' has shape (48, 4), but the base's",
    ),
    "a norm of another size": (
        tensors(lambda t: t.update({"base_model.model.model.norm.weight": np.ones(48, "f4")})),
        "'base_model.model.model.norm.weight' has shape (48,), but (32,) in the base's 'model.norm.weight'",
    ),
    "a bias that the base has not": (
        tensors(lambda t: t.update({f"{LAYER}.base_layer.bias": np.ones(32, "f4")})),
        "it changes 'model.layers.0.self_attn.q_proj.bias', but the base has no such bias",
    ),
    "one resized matrix": (
        tensors(lambda t: t.update({"base_model.model.lm_head.weight": np.ones((70, 32), "f4")})),
        "the embedding gets 64 rows and the output 70: the vocabulary was resized and only one of them saved",
    ),
    "tokens without ids": (
        lambda adapter: _two_tokens(adapter),
        "has 2 rows, but trainable_token_indices names another number of tokens",
    ),
    "a token beyond the vocabulary": (
        lambda adapter: (_two_tokens(adapter), edit(adapter, trainable_token_indices=[5, 64])),
        "token 64 was trained, but the base's 'model.embed_tokens.weight' has 64 rows",
    ),
    "one token twice": (
        lambda adapter: (_two_tokens(adapter), edit(adapter, trainable_token_indices=[5, 5])),
        "trainable_token_indices names another number of tokens",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def plain(bases: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(bases(tie_word_embeddings=False), tmp_path_factory.mktemp("adapters") / "plain")


@pytest.mark.parametrize(("change", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_refused_with_one_line(
    bases: Callable[..., Path], plain: Path, tmp_path: Path, change: Change, message: str
) -> None:
    adapter = tmp_path / "adapter"
    shutil.copytree(plain, adapter)
    change(adapter)
    with pytest.raises(ModelError, match=re.escape(message)) as caught:
        save(Merged(Checkpoint(bases(tie_word_embeddings=False)), Adapter(adapter)), tmp_path / "out")
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def test_an_adapter_for_another_base_says_which_it_was_trained_on(
    bases: Callable[..., Path], plain: Path, tmp_path: Path
) -> None:
    edit(shutil.copytree(plain, tmp_path / "a"), base_model_name_or_path="Qwen/Qwen2.5-0.5B")
    with pytest.raises(ModelError, match=r"no such tensor|asks for|has nothing") as caught:
        Merged(Checkpoint(bases("Phi3")), Adapter(tmp_path / "a"))
    assert "trained on 'Qwen/Qwen2.5-0.5B', not on" in str(caught.value)


def test_a_tied_base_whose_output_differs(bases: Callable[..., Path], plain: Path, tmp_path: Path) -> None:
    """As in the conversion without an adapter."""
    base = shutil.copytree(bases(tie_word_embeddings=False), tmp_path / "base")
    settings = json.loads((base / "config.json").read_text("utf-8"))
    (base / "config.json").write_text(json.dumps({**settings, "tie_word_embeddings": True}))
    with pytest.raises(ModelError, match="differs; set tie_word_embeddings to false"):
        Merged(Checkpoint(base), Adapter(plain))


# --- QLoRA's base


def test_merging_into_what_qlora_saw(bases: Callable[..., Path], tmp_path: Path) -> None:
    base = bases(tie_word_embeddings=True)
    adapter = Adapter(trained(base, tmp_path))
    merged, original = (Merged(Checkpoint(base), adapter, qlora_base=kind) for kind in ("dequantized", "original"))
    rounded = {
        name for name in merged.shapes() if not np.array_equal(merged.base.tensor(name), original.base.tensor(name))
    }
    assert rounded == {name for name in merged.shapes() if "_proj.weight" in name} and len(rounded) == 14
    name = "model.layers.1.mlp.down_proj.weight"
    a, b = adapter.factors(name)
    added = exact.Product(b, a).rows(slice(0, len(b))) * np.float32(3 / 4)
    expected = nf4.round_values(Checkpoint(base).tensor(name)) + added
    assert merged.rounded and not original.rounded and np.array_equal(merged.tensor(name), expected)
    with pytest.raises(UsageError, match="unknown QLoRA base 'nf4'; known: original, dequantized"):
        Merged(Checkpoint(base), adapter, qlora_base="nf4")


# --- Saving


class Heard(Report):
    def __init__(self) -> None:
        self.begun: list[tuple[str, int | None, str]] = []
        self.done = 0

    @contextmanager
    def progress(self, what: str, total: int | None = None, unit: str = "", done: int = 0) -> Iterator[Advance]:
        def advance(steps: int = 1, note: str = "") -> None:
            self.done += steps

        self.begun.append((what, total, unit))
        yield advance


def test_shards_with_an_index(bases: Callable[..., Path], tmp_path: Path) -> None:
    base = bases("Llama", "bfloat16", tie_word_embeddings=True)
    (base / "generation_config.json").write_text("{}")
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "tokenizer.json").write_text("{}")
    (tmp_path / "t" / "other.json").write_text("{}")
    merged, heard = Merged(Checkpoint(base), Adapter(trained(base, tmp_path / "a"))), Heard()
    out = tmp_path / "deep" / "out"
    save(merged, out, tokenizer=tmp_path / "t", report=heard, shard_bytes=20_000)
    again = Checkpoint(out)
    assert len(again.files) > 3 and max(file.stat().st_size for file in again.files) < 22_000
    assert again.shapes() == merged.shapes() and again.config["dtype"] == "float32"
    state = transformers.AutoModelForCausalLM.from_pretrained(out).state_dict()
    for name in merged.shapes():
        assert again.tensor(name).tobytes() == merged.tensor(name).tobytes() == state[name].numpy().tobytes()
    names = {path.name for path in out.iterdir()} - {file.name for file in again.files}
    assert names == {"config.json", "generation_config.json", "tokenizer.json", "model.safetensors.index.json"}
    assert heard.begun == [("writing", len(merged.shapes()), "tensors")] and heard.done == len(merged.shapes())
    with pytest.raises(UsageError, match="out: exists; choose another folder, or remove it"):
        save(merged, out)


def test_a_full_disk_leaves_nothing(
    bases: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, *rest: Any) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(shards, "write", full)
    out = tmp_path / "out"
    with pytest.raises(ModelError, match=r"out: No space left on device; the model needs 0.00 GB there; nothing"):
        save(Checkpoint(bases()), out)
    assert not list(tmp_path.iterdir())


KILLED = """
import os, signal, sys
from pathlib import Path
from bioner_edge.convert.checkpoint import Checkpoint
from bioner_edge.convert.merging.merge import save
from contextlib import contextmanager
from bioner_edge.report import Report

class Stop(Report):
    @contextmanager
    def progress(self, what, total=None, unit="", done=0):
        left = [None] * (total // 2)

        def advance(steps=1, note=""):
            left.pop()
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)

        yield advance

save(Checkpoint(Path(sys.argv[1])), Path(sys.argv[2]), report=Stop())
"""


def test_killed_in_the_middle_no_final_name_is_there(bases: Callable[..., Path], tmp_path: Path) -> None:
    run = subprocess.run([sys.executable, "-c", KILLED, bases(), tmp_path / "out"], check=False)
    assert run.returncode < 0 and not (tmp_path / "out").exists()
    save(Checkpoint(bases()), tmp_path / "out")  # what is left is in nobody's way
    assert Checkpoint(tmp_path / "out").shapes() == Checkpoint(bases()).shapes()


MEASURED = """
import sys, threading, time
from pathlib import Path
from bioner_edge.convert.merging.adapter import Adapter
from bioner_edge.convert.checkpoint import Checkpoint
from bioner_edge.convert.merging.merge import Merged, save

def anonymous():
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) * 1024

peak, before = 0, anonymous()
def watch():
    global peak
    while True:
        peak = max(peak, anonymous())
        time.sleep(0.002)

threading.Thread(target=watch, daemon=True).start()
save(Merged(Checkpoint(Path(sys.argv[1])), Adapter(Path(sys.argv[2]))), Path(sys.argv[3]))
assert "torch" not in sys.modules
print(before, peak)
"""


@pytest.mark.thorough(but=("True",))
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc, which is Linux's")
@pytest.mark.parametrize("dora", [False, True])
def test_memory(tmp_path: Path, dora: bool) -> None:
    """A bfloat16 embedding of 200 MB in float32 with an adapter at it: not much more than itself at any time."""
    rows, columns, rank = 51_200, 1024, 8
    embedding = {"model.embed_tokens.weight": (rows, columns)}
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text('{"tie_word_embeddings": true}')
    shards.write(tmp_path / "base" / "model.safetensors", embedding, lambda name: np.zeros(embedding[name], np.float32))
    retype(tmp_path / "base" / "model.safetensors", "bfloat16")
    prefix = "base_model.model.model.embed_tokens"
    factors: dict[str, tuple[int, ...]] = {
        f"{prefix}.lora_embedding_A": (rank, rows),
        f"{prefix}.lora_embedding_B": (columns, rank),
        **({f"{prefix}.lora_magnitude_vector": (columns,)} if dora else {}),
    }
    (tmp_path / "a").mkdir()
    shards.write(
        tmp_path / "a" / "adapter_model.safetensors",
        factors,
        lambda name: np.random.default_rng(0).standard_normal(factors[name]).astype(np.float32),
    )
    (tmp_path / "a" / "adapter_config.json").write_text(
        json.dumps(
            {"peft_type": "LORA", "r": rank, "lora_alpha": 1, "target_modules": ["embed_tokens"], "use_dora": dora}
        )
    )
    paths = [tmp_path / "base", tmp_path / "a", tmp_path / "out"]
    run = subprocess.run([sys.executable, "-c", MEASURED, *paths], capture_output=True, text=True, check=True)
    before, peak = map(int, run.stdout.split())
    assert peak - before < 1.3 * 4 * rows * columns
