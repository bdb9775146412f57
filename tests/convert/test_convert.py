"""The whole way, from a saved checkpoint to verified files, on every shape of Llama that the table covers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bioner_edge.errors import ModelError, UsageError
from bioner_edge.models import gguf_header
from bioner_edge.models.registry import Manifest, find, manifest_path, sha256

pytest.importorskip("torch")
pytest.importorskip("transformers")

from bioner_edge.backends.llama_cpp import LlamaCpp
from bioner_edge.convert import About, convert
from bioner_edge.convert.architectures import llama
from bioner_edge.convert.verification import measure
from bioner_edge.convert.verification.samples import LINES as SAMPLES
from bioner_edge.convert.vocabulary import PRE_TOKENIZERS

LINES = (
    "Naloxone reverses the effect of clonidine.",
    "α-Synuclein 患者は高血圧を有し 🙂\u200d🧬 l’été x̂",
    "  runs   of    spaces\r\n\r\n\ttabs \n 1234567 3.14 don't I'LL ",
)
TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}"
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "untied": {"tie_word_embeddings": False},
    "biases and wide heads": {"attention_bias": True, "mlp_bias": True, "head_dim": 32},
    "llama3 rope": {"rope_theta": 50000.0, "rope_scaling": LLAMA3},
    "bfloat16, padded vocabulary": {"dtype": "bfloat16", "vocab_size": 416, "tie_word_embeddings": True},
    "one head for all": {"num_key_value_heads": 1, "rope_theta": 1000.0},
}


def run(source: Path, out: Path, *levels: str, verify_lines: Sequence[str] = LINES, **about: Any) -> list[Path]:
    told = {"labels": ["Chemical"], "formats": ["multi_tag"], "license": "Apache-2.0", **about}
    return convert(source, out, levels, About.of([source], **told), verify_lines=verify_lines, overwrite=True)


def test_files_and_manifests(checkpoint: Path, tmp_path: Path) -> None:
    paths = run(
        checkpoint,
        tmp_path / "out",
        "F32",
        "F16",
        "Q8_0",
        name="m",
        unit="sentence",
        formats=["multi_tag", "conv_term"],
        training={"seed": 1},
    )
    files = {f"m-{level}.{ending}" for level in ("F32", "F16", "Q8_0") for ending in ("gguf", "json")}
    assert {path.name for path in (tmp_path / "out").iterdir()} == files | {"models.toml"}
    mixes = []
    for path in paths:
        found, manifest = find(str(path))
        assert found == path and manifest is not None
        assert (manifest.formats, manifest.labels, manifest.unit) == (
            ("multi_tag", "conv_term"),
            ("Chemical",),
            "sentence",
        )
        assert manifest.sources["model.safetensors"] == sha256(checkpoint / "model.safetensors")
        assert "tokenizer.json" in manifest.sources and "llama-cpp-python" in manifest.versions
        assert manifest.training == {"seed": 1}
        mixes.append(manifest.tensor_mix)
    # 5 vectors (2 norms a layer and the last) stay float32; 7 matrices a layer and the embedding, tied, change
    assert mixes == [{"F32": 20}, {"F16": 15, "F32": 5}, {"Q8_0": 15, "F32": 5}]
    stages = Manifest.load(manifest_path(paths[2])).verification
    proved = ["weights", "token ids", "F32 logits", "greedy"]
    assert [s["stage"].split(":")[0] for s in stages] == [*proved, *["Q8_0"] * 4]
    assert stages[0]["figure"] == stages[1]["figure"] == 0
    assert 0 < stages[2]["figure"] <= stages[2]["at_most"] == 1e-3
    assert stages[3]["figure"] == stages[3]["at_most"] == 0
    assert 0 < stages[4]["figure"] <= stages[4]["at_most"]
    assert stages[5]["figure"] >= stages[5]["at_least"]
    metadata = gguf_header.check(paths[2])
    assert metadata["general.file_type"] == 7 and metadata["tokenizer.ggml.add_bos_token"] is False


@pytest.mark.parametrize("settings", VARIANTS.values(), ids=VARIANTS.keys())
def test_variants_equal_transformers(make_checkpoint: Any, tmp_path: Path, settings: dict[str, Any]) -> None:
    (path,) = run(make_checkpoint(tmp_path / "hf", **settings), tmp_path, "F32")
    names = {tensor.name for tensor in gguf_header.read(path).tensors}
    assert ("rope_freqs.weight" in names) == (settings == VARIANTS["llama3 rope"])
    assert ("output.weight" in names) == (not settings.get("tie_word_embeddings", False))


def test_transformers_4_spelling(checkpoint: Path, tmp_path: Path) -> None:
    source = copied(checkpoint, tmp_path)
    record = json.loads((source / "config.json").read_text("utf-8"))
    theta = record.pop("rope_parameters", record)["rope_theta"]  # transformers 4 itself has it at the top
    record |= {"rope_theta": theta, "rope_scaling": None}
    (source / "config.json").write_text(json.dumps(record), "utf-8")
    run(source, tmp_path / "out", "F32")


def test_shards(make_checkpoint: Any, checkpoint: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    source = copied(checkpoint, tmp_path)
    tensors = load_file(source / "model.safetensors")
    (source / "model.safetensors").unlink()
    names = sorted(tensors)
    index = {}
    for part, chosen in (("a.safetensors", names[:9]), ("b.safetensors", names[9:])):
        save_file({name: tensors[name] for name in chosen}, source / part)
        index |= dict.fromkeys(chosen, part)
    (source / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    run(source, tmp_path / "out", "F32")
    (source / "b.safetensors").unlink()
    with pytest.raises(ModelError, match=r"b.safetensors: this shard is in .* but not in the folder"):
        run(source, tmp_path / "out", "F32")


def _splits() -> dict[str, Any]:
    from tokenizers import Regex
    from tokenizers import pre_tokenizers as p

    plain = p.ByteLevel(add_prefix_space=False)
    bytes_only = p.ByteLevel(add_prefix_space=False, use_regex=False)
    made = {}
    for (steps, ignore_merges), name in PRE_TOKENIZERS.items():
        if steps[-1] != "ByteLevel":
            parts = [p.Digits(individual_digits=True), plain] if len(steps) == 2 else [plain]
        else:
            parts = [p.Split(Regex(steps[0]), "isolated"), bytes_only]
        made[name] = p.Sequence(parts) if len(parts) > 1 else parts[0], ignore_merges
    return made


@pytest.mark.parametrize("name", PRE_TOKENIZERS.values())
def test_every_pre_tokenizer_gives_equal_ids(
    make_checkpoint: Any, make_tokenizer: Any, tmp_path: Path, name: str
) -> None:
    tokenizer = make_tokenizer(*_splits()[name])
    source = make_checkpoint(tmp_path / "hf", tokenizer, num_hidden_layers=1)
    (path,) = run(source, tmp_path, "F32", verify_lines=(*SAMPLES, *LINES))
    assert gguf_header.check(path)["tokenizer.ggml.pre"] == name


def test_nfc_is_left_to_the_caller(checkpoint: Path, tmp_path: Path) -> None:
    source = copied(checkpoint, tmp_path)
    record = json.loads((source / "tokenizer.json").read_text("utf-8"))
    (source / "tokenizer.json").write_text(json.dumps({**record, "normalizer": {"type": "NFC"}}), "utf-8")
    (path,) = run(source, tmp_path / "out", "F32", verify_lines=("cafe\u0301",))
    with LlamaCpp(path, threads=1) as model:
        assert model.tokenize("cafe\u0301".encode(), special=False) != model.tokenize("café".encode(), special=False)


def test_what_the_back_end_learns_from_the_file(checkpoint: Path, tmp_path: Path) -> None:
    source = copied(checkpoint, tmp_path)
    (source / "generation_config.json").write_text('{"eos_token_id": [0, 1]}')
    (source / "chat_template.jinja").write_text(TEMPLATE, "utf-8")
    (path,) = run(source, tmp_path / "out", "Q8_0")
    with LlamaCpp(path, threads=1) as model:
        assert model.end_tokens >= {0, 1}
        assert model.bos is None and model.chat_template == TEMPLATE
        assert all(model.piece(token) is None for token in model.tokenize(b"<|end|><|pad|>", special=True))
        (tag,) = model.tokenize(b"<tag>", special=False)
        assert model.piece(tag) == b"<tag>"
        text = " x\r\n  ".join(LINES).encode()
        assert b"".join(model.piece(token) or b"" for token in model.tokenize(text, special=False)) == text


# --- What must be noticed


def test_wrong_logits_are_noticed(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("q_proj.weight", "k_proj.weight"):
        monkeypatch.setitem(llama.LLAMA.changes, name, lambda tensor, config: tensor)  # type: ignore[index]
    with pytest.raises(ModelError, match=r"F32 logits against transformers: .* at token 1 .*rotary"):
        run(checkpoint, tmp_path / "out", "F32")
    assert list((tmp_path / "out").iterdir()) == []


def test_wrong_token_ids_are_noticed(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRE_TOKENIZERS, (("ByteLevel(use_regex)",), False), "qwen2")
    with pytest.raises(ModelError, match=r"verify: token ids: 1 of 2 lines differ; line 1, token .* became"):
        run(checkpoint, tmp_path / "out", "F32", verify_lines=("the 2024 patient\r\n\r\n's x",))


def test_a_broken_quantization_is_noticed(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(measure.QUANTIZED, "Q8_0", (1e-12, 0.0))
    with pytest.raises(ModelError, match=r"verify: Q8_0: mean KL divergence from F32: .*must be at most 1e-12"):
        run(checkpoint, tmp_path / "out", "F32", "Q8_0")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"unit": "page"}, "unknown unit 'page'; known: sentence, document"),
        ({"formats": []}, "labels without formats: give both, or neither for a model that is not fine-tuned"),
        ({"formats": "multi_tag"}, "formats must be a list of names, not 'multi_tag'"),
        ({"name": "a/b"}, "the name 'a/b' must be a file name, not a path; choose the folder with --out"),
    ],
)
def test_bad_requests(checkpoint: Path, tmp_path: Path, more: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        run(checkpoint, tmp_path, "F32", **more)
    assert str(caught.value) == message


def test_unknown_level(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown level 'Q9'; known: F32, F16, BF16, Q8_0"):
        run(checkpoint, tmp_path, "Q9")


def copied(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "copy"))
