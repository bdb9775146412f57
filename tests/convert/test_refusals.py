"""What cannot be converted is refused in one line, before anything is written under a final name."""

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

from bioner_edge.convert import About, convert

Change = Callable[[Path], object]


def config(**values: Any) -> Change:
    return lambda folder: _edit(folder / "config.json", lambda record: record.update(values))


def tokenizer(change: Callable[[dict[str, Any]], object]) -> Change:
    return lambda folder: _edit(folder / "tokenizer.json", change)


def settings(**values: Any) -> Change:
    return lambda folder: _edit(folder / "tokenizer_config.json", lambda record: record.update(values))


def weights(change: Callable[[dict[str, Any]], object]) -> Change:
    """Change the tensors, by name, as numpy arrays."""

    def apply(folder: Path) -> None:
        from safetensors.numpy import load_file, save_file

        tensors = {name: tensor.copy() for name, tensor in load_file(folder / "model.safetensors").items()}
        change(tensors)
        save_file(tensors, folder / "model.safetensors")

    return apply


def _edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    record = json.loads(path.read_text("utf-8"))
    change(record)
    path.write_text(json.dumps(record), "utf-8")


def _cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


def _pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _adapter(folder: Path) -> None:
    (folder / "config.json").rename(folder / "adapter_config.json")


def _without_ends(folder: Path) -> None:
    for name in ("config.json", "tokenizer_config.json", "generation_config.json"):
        _edit(folder / name, lambda record: [record.pop(key, None) for key in ("eos_token", "eos_token_id")])


NORM = "model.norm.weight"
EMBEDDING = "model.embed_tokens.weight"
SPLIT = {"type": "Split", "pattern": {"Regex": r"\w+"}, "behavior": "Isolated", "invert": False}

REFUSED: dict[str, tuple[Change, str]] = {
    "architecture": (config(architectures=["BertModel"]), "unknown architecture 'BertModel'; known: LlamaForCausalLM"),
    "no architecture": (config(architectures=None), "unknown architecture 'none given'"),
    "rope scaling": (config(rope_parameters={"rope_type": "warp", "rope_theta": 1e4}), "unknown rope scaling 'warp'"),
    "two thetas": (config(rope_theta=5e5, rope_parameters={"rope_theta": 1e4}), "500000.0 at the top and 10000.0 in"),
    "llama3 numbers": (
        config(rope_parameters={"rope_type": "llama3", "rope_theta": 1e4, "factor": 8}),
        "'low_freq_factor' must be a positive number, not None",
    ),
    "partial rotary": (config(partial_rotary_factor=0.5), "8 of 16 dimensions of a head are rotated"),
    "activation": (config(hidden_act="gelu"), "hidden_act 'gelu' cannot be converted"),
    "heads": (config(num_key_value_heads=3), "4 attention heads cannot share 3 key/value heads evenly"),
    "layers": (config(num_hidden_layers="2"), "'num_hidden_layers' must be a positive integer, not '2'"),
    "layers beyond measure": (config(num_hidden_layers=10**9), "'num_hidden_layers' must be at most 512"),
    "context beyond measure": (config(max_position_embeddings=2**70), "'max_position_embeddings' must be at most 2147"),
    "more layers": (config(num_hidden_layers=3), "tensor 'model.layers.2.self_attn.q_proj.weight' is missing"),
    "fewer layers": (config(num_hidden_layers=1), "does not belong to its architecture (9 such)"),
    "shape": (config(intermediate_size=128), "gate_proj.weight' has shape (96, 64), config.json asks for (128, 64)"),
    "NaN": (weights(lambda t: t[NORM].__setitem__(3, np.nan)), f"tensor '{NORM}' holds NaN or infinity"),
    "infinity": (weights(lambda t: t[NORM].__setitem__(3, np.inf)), f"tensor '{NORM}' holds NaN or infinity"),
    "integers": (weights(lambda t: t.update({NORM: t[NORM].astype("i4")})), "has type I32; only F32, F16, BF16"),
    "untied in truth": (
        weights(lambda t: t.update({"lm_head.weight": t[EMBEDDING] + 1})),
        "config.json ties output and embedding, but lm_head.weight differs; set tie_word_embeddings to false",
    ),
    "cut shard": (_cut, "ends inside tensor"),
    "shard of zeros": (
        lambda folder: (folder / "model.safetensors").write_bytes(bytes(64)),
        "damaged safetensors header (0 bytes in a file of 64)",
    ),
    "shard of text": (
        lambda folder: (folder / "model.safetensors").write_bytes(b"\5" + bytes(7) + b"hello"),
        "model.safetensors: damaged safetensors header; fetch it again",
    ),
    "pickle": (_pickled, "pytorch_model.bin: pickled weights can run code when they are read"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "contains neither model.safetensors nor"),
    "adapter": (_adapter, "an adapter, not a model: merge it into its base; give the folder of a whole model"),
    "config of no JSON": (lambda folder: (folder / "config.json").write_text("{"), "config.json: not JSON"),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer.json: missing; save the"),
    "model type": (tokenizer(lambda r: r["model"].update(type="Unigram")), "model type 'Unigram' cannot be converted"),
    "byte fallback": (tokenizer(lambda r: r["model"].update(byte_fallback=True)), "byte_fallback True"),
    "normalizer": (tokenizer(lambda r: r.update(normalizer={"type": "Lowercase"})), 'normalizer {"type": "Lowercase"}'),
    "decoder": (tokenizer(lambda r: r.update(decoder=None)), "decoder null cannot be converted"),
    "stripping": (tokenizer(lambda r: r["added_tokens"][0].update(lstrip=True)), "lstrip of '<|end|>'"),
    "pre-tokenizer": (
        tokenizer(lambda r: r.update(pre_tokenizer=SPLIT)),
        r"unknown pre-tokenizer \w+ (ignore_merges False); known: gpt-2, smollm, llama-bpe, smaug-bpe, qwen2",
    ),
    "prefix space": (
        tokenizer(lambda r: r["pre_tokenizer"].update(add_prefix_space=True)),
        'unknown pre-tokenizer {"type": "ByteLevel", "add_prefix_space": true',
    ),
    "bytes": (
        tokenizer(lambda r: r["model"]["vocab"].update({"??": r["model"]["vocab"].pop("Ġ")})),
        "no token for 1 of the bytes ('Ġ'); train with all 256",
    ),
    "merges": (tokenizer(lambda r: r["model"].update(merges=[])), "no merges, which llama.cpp cannot load"),
    "no model": (tokenizer(lambda r: r.pop("model")), "cannot be read as a tokenizer (KeyError('model'))"),
    "vocabulary": (config(vocab_size=300), "is outside the embedding of 300 rows; resize it"),
    "unknown bos": (settings(bos_token="<s>"), "the bos token '<s>' is not in tokenizer.json"),
    "no end": (_without_ends, "no eos_token in tokenizer_config.json or config.json, so no answer would end"),
    "five ends": (config(eos_token_id=[1, 2, 3, 4]), "end tokens [0, 1, 2, 3, 4]: at most 3"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_refused_with_one_line(checkpoint: Path, tmp_path: Path, change: Change, message: str) -> None:
    source = tmp_path / "hf"
    shutil.copytree(checkpoint, source)
    change(source)
    with pytest.raises(ModelError, match=re.escape(message)) as caught:
        convert(source, tmp_path / "out", ["F32"], About(name="m"), verify_lines=["a"])
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_values_that_float16_cannot_hold(checkpoint: Path, tmp_path: Path) -> None:
    source = tmp_path / "hf"
    shutil.copytree(checkpoint, source)
    weights(lambda t: t["model.layers.0.mlp.up_proj.weight"].__setitem__((0, 0), 1e5))(source)
    with pytest.raises(ModelError, match=r"up_proj.weight' has values beyond the range of float16"):
        convert(source, tmp_path / "out", ["F16"], About(name="m"), verify_lines=["a"])
