"""The command line as a user meets it: from a base and an adapter to files, what is printed, what is refused."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from bioner_edge.backends.llama_cpp import LlamaCpp
from bioner_edge.cli import app
from bioner_edge.convert.gguf import calibration
from bioner_edge.convert.merging.merge import Merged
from bioner_edge.errors import BionerError
from bioner_edge.models import gguf_header
from bioner_edge.models.registry import Manifest, find, manifest_path

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

tokenizers = pytest.importorskip("tokenizers")

COMMAND = Path(sys.executable).with_name("bioner-edge")


def run(*arguments: object) -> Result:
    """The command's result; a user's mistake stands in `exception`."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refusal(*arguments: object) -> str:
    result = run(*arguments)
    assert isinstance(result.exception, BionerError), result.exception
    assert "\n" not in str(result.exception)
    return str(result.exception)


@pytest.fixture(scope="module")
def base(make_checkpoint: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tied Llama with room for the prompts of every format."""
    return make_checkpoint(
        tmp_path_factory.mktemp("base") / "tiny", tie_word_embeddings=True, max_position_embeddings=2048
    )


def tuned(base: Path, folder: Path, rows: int | None = None, **settings: Any) -> Path:
    """A saved adapter of random weights."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if rows:
        model.resize_token_embeddings(rows, mean_resizing=False)
    model = peft.get_peft_model(model, peft.LoraConfig(**{"r": 8, "lora_alpha": 16, **settings}))
    torch.manual_seed(3)
    for parameter in model.parameters():
        if parameter.requires_grad:
            with torch.no_grad():
                parameter += 0.2 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA adapter on the attention and the output of the feed-forward."""
    modules = ["q_proj", "k_proj", "v_proj", "o_proj", "down_proj"]
    return tuned(base, tmp_path_factory.mktemp("adapter") / "tuned", target_modules=modules)


@pytest.fixture(scope="module")
def converted(base: Path, adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    out = tmp_path_factory.mktemp("out")
    result = run(
        *("convert", "--base", base, "--adapter", adapter, "--out", out, "--quant", "Q8_0,F32", "--keep-merged"),
        *("--labels", "Chemical,Disease", "--format", "multi_code,multi_tag", "--license", "MIT"),
    )
    assert result.exit_code == 0, (result.exception, result.stderr)
    return out, result


def test_what_is_left(converted: tuple[Path, Result]) -> None:
    out, result = converted
    files = {f"tuned-{level}.{ending}" for level in ("F32", "Q8_0") for ending in ("gguf", "json")}
    assert {path.name for path in out.iterdir()} == files | {"tuned-merged", "models.toml"}
    assert result.stdout.split() == [str(out / "tuned-Q8_0.gguf"), str(out / "tuned-F32.gguf")]
    _, manifest = find(str(out / "tuned-Q8_0.gguf"))
    assert manifest is not None and manifest.labels == ("Chemical", "Disease") and manifest.license == "MIT"
    assert manifest.formats == ("multi_code", "multi_tag")
    assert {"base/model.safetensors", "adapter/adapter_model.safetensors"} <= manifest.sources.keys()
    stages = [str(stage["stage"]) for stage in manifest.verification]
    assert [stage.split(":")[0] for stage in stages] == [
        "weights", "token ids", "F32 logits", "greedy", "Q8_0", "Q8_0", "Q8_0", "Q8_0",
    ]  # fmt: skip
    assert "merge by peft" in stages[0]


def test_every_stage_is_printed(converted: tuple[Path, Result]) -> None:
    told = converted[1].stderr
    for part in (
        "merge by peft / largest weight: 0 (at most 1e-06)",
        "those that differ from Hugging Face: 0 (at most 0)",
        "(at most 0.001)",
    ):
        assert part in told
    assert "Q8_0: mean KL divergence from F32: " in told and "bits per weight (Q8_0 ×" in told


def test_the_merged_model_is_pefts(base: Path, adapter: Path, converted: tuple[Path, Result]) -> None:
    from transformers import AutoModelForCausalLM

    load = AutoModelForCausalLM.from_pretrained
    theirs = peft.PeftModel.from_pretrained(load(base, dtype=torch.float32), adapter).merge_and_unload().state_dict()
    ours = load(converted[0] / "tuned-merged", dtype=torch.float32).state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_verify_again(converted: tuple[Path, Result], tmp_path: Path) -> None:
    for name in ("tuned-Q8_0", "tuned-F32"):
        result = run("verify", converted[0] / f"{name}.gguf")
        assert result.exit_code == 0, result.exception
        assert "those that do not come back as they went in: 0 (at most 0)" in result.stderr
        assert "drift since conversion" in result.stderr and "entities in 3 documents" in result.stderr
    for ending in ("gguf", "json"):
        shutil.copy(converted[0] / f"tuned-Q8_0.{ending}", tmp_path / f"m.{ending}")
    path = tmp_path / "m.gguf"
    manifest = Manifest.load(manifest_path(path))
    record = json.loads(manifest_path(path).read_text("utf-8"))
    for key, value, message in (
        ("fingerprint", {**manifest.fingerprint, "mean_log_probability": -1.0}, "mean log-probability: drift"),
        ("fingerprint", {**manifest.fingerprint, "ids_sha256": "0" * 64}, "token ids: differ from those at conversion"),
        ("tensor_mix", {"F32": 1}, "types whose count is not the manifest's"),
    ):
        manifest_path(path).write_text(json.dumps({**record, key: value}), "utf-8")
        assert message in refusal("verify", path)
    with path.open("r+b") as stream:
        stream.seek(-1, 2)
        stream.write(b"\xff")
    assert "SHA-256" in refusal("verify", path)


def test_extract_with_what_was_converted(converted: tuple[Path, Result], tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("Naloxone reverses the effect of clonidine.", "utf-8")
    result = run("extract", tmp_path / "note.txt", "--model", converted[0] / "tuned-Q8_0.gguf", "--quiet")
    assert result.exit_code == 0, result.exception
    assert json.loads(result.stdout)["text"].startswith("Naloxone")


def test_runtime_adapter(base: Path, adapter: Path, converted: tuple[Path, Result], tmp_path: Path) -> None:
    asked = ("--labels", "Chemical", "--format", "multi_tag")
    assert run("convert", "--base", base, "--out", tmp_path, "--quant", "F32", "--name", "base").exit_code == 0
    result = run(
        "convert", "--base", base, "--adapter", adapter, "--out", tmp_path, "--runtime-adapter", "--name", "t", *asked
    )
    assert result.exit_code == 0, (result.exception, result.stderr)
    assert result.stdout.strip() == str(tmp_path / "t-adapter.gguf")
    assert "F32 logits" in result.stderr
    with (
        LlamaCpp(tmp_path / "base-F32.gguf", cache="f32", threads=1, adapter=tmp_path / "t-adapter.gguf") as added,
        LlamaCpp(converted[0] / "tuned-F32.gguf", cache="f32", threads=1) as merged,
        LlamaCpp(tmp_path / "base-F32.gguf", cache="f32", threads=1) as bare,
    ):
        ids = merged.tokenize(b"Naloxone reverses", special=False)
        a, b, c = (model.eval(model.new_sequence(), ids) for model in (added, merged, bare))
        assert np.abs(a - b).max() < 1e-3 * b.std() < np.abs(c - b).max()
    (tmp_path / "note.txt").write_text("Naloxone.", "utf-8")
    model = ("--model", tmp_path / "base-F32.gguf", "--adapter", tmp_path / "t-adapter.gguf")
    assert run("extract", tmp_path / "note.txt", *model, "--quiet").exit_code == 0


ADAPTERS: dict[str, dict[str, Any]] = {
    "DoRA": {"target_modules": ["q_proj", "down_proj"], "use_dora": True},
    "rsLoRA on the embedding": {"target_modules": ["embed_tokens", "k_proj"], "use_rslora": True},
    "whole output": {"target_modules": ["v_proj"], "modules_to_save": ["lm_head"]},
    "trained tokens": {"target_modules": ["v_proj"], "trainable_token_indices": [0, 5, 300]},
    "larger vocabulary": {"target_modules": ["embed_tokens", "q_proj"], "rows": 420},
    "patterns": {"target_modules": ["q_proj"], "rank_pattern": {"layers.1": 3}, "alpha_pattern": {"layers.0": 5}},
}


@pytest.mark.parametrize("name", ADAPTERS)
def test_every_kind_of_adapter_is_verified(base: Path, tmp_path: Path, name: str) -> None:
    adapter = tuned(base, tmp_path / "a", **ADAPTERS[name])
    result = run("convert", "--base", base, "--adapter", adapter, "--out", tmp_path / "out", "--quant", "F32")
    assert result.exit_code == 0, (result.exception, result.stderr)
    assert "merge by peft / largest weight: 0 (at most 1e-06)" in result.stderr and "F32 logits" in result.stderr


def test_the_tokenizer_of_the_adapter(base: Path, adapter: Path, tmp_path: Path) -> None:
    """It is the one of the training; what else ends an answer, the base knows."""
    shutil.copytree(base, tmp_path / "base")
    shutil.copytree(adapter, tmp_path / "a")
    (tmp_path / "base" / "generation_config.json").write_text('{"eos_token_id": [0, 7]}')
    shutil.copy(base / "tokenizer.json", tmp_path / "a")
    settings = json.loads((base / "tokenizer_config.json").read_text("utf-8"))
    template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    (tmp_path / "a" / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": template}))
    asked = ("--base", tmp_path / "base", "--adapter", tmp_path / "a", "--out", tmp_path / "out", "--quant", "F32")
    result = run("convert", *asked)
    assert result.exit_code == 0, result.exception
    with LlamaCpp(tmp_path / "out" / "a-F32.gguf", threads=1) as model:
        assert model.chat_template == template and model.end_tokens >= {0, 7}


def test_the_base_that_qlora_saw(base: Path, adapter: Path, tmp_path: Path) -> None:
    asked = ("convert", "--base", base, "--adapter", adapter, "--quant", "F32", "--qlora-base")
    for kind in ("original", "dequantized"):
        assert run(*asked, kind, "--out", tmp_path / kind).exit_code == 0
    one, other = (Manifest.load(tmp_path / kind / "tuned-F32.json") for kind in ("original", "dequantized"))
    assert one.sha256 != other.sha256 and one.base["qlora_base"] == "original"


def test_trimmed_vocabulary_and_importance(base: Path, adapter: Path, tmp_path: Path) -> None:
    text = tmp_path / "domain.txt"
    text.write_text("Naloxone reverses the antihypertensive effect of clonidine in rats.\n" * 8, "utf-8")
    result = run(
        *("convert", "--base", base, "--adapter", adapter, "--out", tmp_path / "out", "--quant", "F32,Q4_0"),
        *("--trim-vocab", text, "--importance", text, "--labels", "Chemical", "--format", "multi_tag", "--name", "t"),
    )
    assert result.exit_code == 0, (result.exception, result.stderr)
    path, manifest = find(str(tmp_path / "out" / "t-Q4_0.gguf"))
    assert manifest is not None and manifest.importance["tokens"] > 50
    shapes = {tensor.name: tensor.shape for tensor in gguf_header.read(path).tensors}
    assert 256 < shapes["token_embd.weight"][1] < 390


def test_what_importance_and_trimming_are_made_of(
    base: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The matrix changes the file; its tokens are the reference's, answers and all; answers stay whole when trimmed."""
    (tmp_path / "gold.jsonl").write_text(
        json.dumps({"id": "1", "text": "Naloxone helps.", "entities": [{"start": 0, "end": 8, "label": "Chemical"}]})
    )
    asked = ("convert", "--base", base, "--adapter", adapter, "--quant", "Q4_0", "--labels", "Chemical")
    asked = (*asked, "--format", "multi_code", "--name", "t", "--no-verify")
    fed: list[list[int]] = []
    whole = calibration.importance

    def spy(model: Any, names: Any, sequences: Any, progress: Any) -> Any:
        fed.extend(sequences)
        return whole(model, names, sequences, progress)

    monkeypatch.setattr(calibration, "importance", spy)
    gold = tmp_path / "gold.jsonl"
    assert run(*asked, "--out", tmp_path / "without", "--trim-vocab", gold).exit_code == 0
    assert run(*asked, "--out", tmp_path / "with", "--trim-vocab", gold, "--importance", gold).exit_code == 0
    one, other = (Manifest.load(tmp_path / out / "t-Q4_0.json") for out in ("without", "with"))
    assert one.sha256 != other.sha256 and other.importance["tokens"] == sum(map(len, fed))
    theirs = tokenizers.Tokenizer.from_file(str(base / "tokenizer.json"))
    answer = '[Chemical("Naloxone")]'
    assert fed[0][-len(theirs.encode(answer).ids) :] == theirs.encode(answer).ids
    with LlamaCpp(tmp_path / "with" / "t-Q4_0.gguf", threads=1) as model:
        assert len(model.tokenize(answer.encode(), special=False)) == len(theirs.encode(answer).ids)


def test_an_adapter_of_another_base(base: Path, adapter: Path, make_checkpoint: Any, tmp_path: Path) -> None:
    other = make_checkpoint(tmp_path / "other", tie_word_embeddings=True, max_position_embeddings=2048, rope_theta=7e3)
    path = other / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\0")
    assert run("convert", "--base", other, "--out", tmp_path, "--no-verify", "--quant", "F32").exit_code == 0
    made = run("convert", "--base", base, "--adapter", adapter, "--out", tmp_path, "--runtime-adapter", "--no-verify")
    assert made.exit_code == 0
    (tmp_path / "note.txt").write_text("Naloxone.")
    given = ("--model", tmp_path / "other-F32.gguf", "--adapter", tmp_path / "tuned-adapter.gguf")
    asked = ("--format", "multi_tag", "--labels", "Chemical")
    assert "was tuned on another model than" in refusal("extract", tmp_path / "note.txt", *given, *asked)
    result = run("verify", tmp_path / "tuned-adapter.gguf")
    assert result.exit_code == 0 and "its effect can be checked only on its base" in result.stderr


def test_code_in_a_model_folder_never_runs(base: Path, tmp_path: Path) -> None:
    shutil.copytree(base, tmp_path / "m")
    config = json.loads((base / "config.json").read_text("utf-8"))
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mod.C", "AutoModelForCausalLM": "mod.M"}}
    (tmp_path / "m" / "config.json").write_text(json.dumps(config))
    (tmp_path / "m" / "mod.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    told = refusal("convert", "--base", tmp_path / "m", "--out", tmp_path / "out")
    assert "transformers and peft cannot load it" in told and not (tmp_path / "ran").exists()


def test_more_ends_than_a_file_has_keys(make_tokenizer: Any, make_checkpoint: Any, tmp_path: Path) -> None:
    """llama.cpp ends at some tokens by their text alone."""
    tokenizer = make_tokenizer()
    names = ["<|im_end|>", "<|eot_id|>", "<|endoftext|>", "<stop>"]
    tokenizer.add_special_tokens({"additional_special_tokens": names})
    folder = make_checkpoint(tmp_path / "m", tokenizer, num_hidden_layers=1)
    ends = [tokenizer.eos_token_id, *tokenizer.convert_tokens_to_ids(names)]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
    assert run("convert", "--base", folder, "--out", tmp_path, "--quant", "F32", "--no-verify").exit_code == 0
    with LlamaCpp(tmp_path / "m-F32.gguf", threads=1) as model:
        assert model.end_tokens == set(ends)


def test_tensor_types(base: Path, tmp_path: Path) -> None:
    asked = ("convert", "--base", base, "--out", tmp_path, "--name", "t", "--quant", "Q4_0", "--no-verify")
    assert run(*asked, "--tensor-type", "ffn_down=Q8_0").exit_code == 0
    kinds = {tensor.name: tensor.type for tensor in gguf_header.read(tmp_path / "t-Q4_0.gguf").tensors}
    assert kinds["blk.0.ffn_down.weight"] == "Q8_0" and kinds["blk.0.ffn_up.weight"] == "Q4_0"
    assert Manifest.load(tmp_path / "t-Q4_0.json").verification == ()


@pytest.mark.parametrize(("factor", "holds"), [(1 + 2**-22, True), (1.001, False)])
def test_a_merge_that_differs(
    base: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, factor: float, holds: bool
) -> None:
    """The last bits may be another processor's; more is an error, which leaves nothing."""
    whole = Merged.tensor

    def off(self: Any, name: str) -> Any:
        tensor = whole(self, name)
        return tensor * np.float32(factor) if name == "model.layers.1.self_attn.k_proj.weight" else tensor

    monkeypatch.setattr(Merged, "tensor", off)
    asked = ("convert", "--base", base, "--adapter", adapter, "--out", tmp_path / "out")
    if holds:
        result = run(*asked)
        assert result.exit_code == 0
        assert re.search(r"merge by peft / largest weight: [\d.]+e-07 \(at most 1e-06\)", result.stderr)
        return
    told = refusal(*asked)
    assert re.search("merge by peft / largest weight: 0.001 in 'model.layers.1.self_attn.k_proj.weight'", told)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.thorough(but=("15-143",))
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_stopped_in_the_middle(
    base: Path, tmp_path: Path, interruptible: None, sent: signal.Signals, code: int
) -> None:
    command = [COMMAND, "convert", "--base", base, "--out", tmp_path, "--quant", "F32,Q8_0"]
    process = subprocess.Popen([str(part) for part in command], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("loading"):
            process.send_signal(sent)
            break
    err = process.stderr.read()
    assert process.wait() == code and "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_licenses_of_the_cards(base: Path, adapter: Path, tmp_path: Path) -> None:
    """The base's binds too."""
    for folder, license in ((base, "gemma"), (adapter, "mit")):
        shutil.copytree(folder, tmp_path / folder.name)
        (tmp_path / folder.name / "README.md").write_text(f"---\nlicense: {license}\ntags: []\n---\n# Card\n", "utf-8")
    asked = ("--base", tmp_path / base.name, "--adapter", tmp_path / adapter.name, "--out", tmp_path, "--no-verify")
    assert run("convert", *asked).exit_code == 0
    assert Manifest.load(tmp_path / "tuned-Q8_0.json").license == "mit AND gemma"


def test_a_folder_in_the_place_of_a_file(base: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny-F32.json").mkdir()
    asked = ("convert", "--base", base, "--out", tmp_path, "--no-verify", "--overwrite", "--quant", "Q8_0,F32")
    assert refusal(*asked).endswith("tiny-F32.json: is a folder, which --overwrite does not replace; remove it")
    assert [path.name for path in tmp_path.iterdir()] == ["tiny-F32.json"]


def test_existing_files_stay(base: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny-Q8_0.json").write_text("mine")
    assert refusal("convert", "--base", base, "--out", tmp_path, "--no-verify").endswith(
        "tiny-Q8_0.json: exists; give --overwrite to replace it"
    )
    assert run("convert", "--base", base, "--out", tmp_path, "--no-verify", "--overwrite").exit_code == 0
    assert Manifest.load(tmp_path / "tiny-Q8_0.json").level == "Q8_0"


def test_killed_in_the_middle(base: Path, tmp_path: Path) -> None:
    """Whatever is under a final name is whole: here nothing is."""
    command = [COMMAND, "convert", "--base", base, "--out", tmp_path, "--quant", "F32,Q8_0"]
    process = subprocess.Popen([str(part) for part in command], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("loading"):
            process.kill()
            break
    process.wait()
    (left,) = tmp_path.iterdir()
    assert left.name.startswith("tiny.partial-") and any(left.iterdir())
    assert run("convert", "--base", base, "--out", tmp_path, "--quant", "Q8_0", "--no-verify").exit_code == 0
    assert {path.name for path in tmp_path.iterdir()} == {"tiny-Q8_0.gguf", "tiny-Q8_0.json", "models.toml"}


REFUSED: dict[str, tuple[tuple[object, ...], str]] = {
    "level": (("--quant", "Q9"), "unknown level 'Q9'; known: F32, F16, BF16, Q8_0"),
    "labels alone": (("--labels", "Chemical"), "labels without formats: give both"),
    "formats alone": (("--format", "multi_tag"), "formats without labels: give both"),
    "format": (("--labels", "a", "--format", "xml"), "unknown format 'xml'"),
    "unit": (("--unit", "page"), "unknown unit 'page'; known: sentence, document"),
    "name": (("--name", "a/b"), "the name 'a/b' must be a file name, not a path"),
    "types of floats": (
        ("--quant", "F16", "--tensor-type", "x=Q8_0"),
        "tensor types are for quantized levels, not for F",
    ),
    "no adapter": (("--runtime-adapter",), "--runtime-adapter: give the adapter with --adapter"),
    "qlora base": (("--qlora-base", "nf5"), "unknown QLoRA base 'nf5'; known: original, dequantized"),
    "qlora without adapter": (("--qlora-base", "dequantized"), "needs an adapter to merge"),
    "no such base": (("--base", "nowhere"), "nowhere: it has no config.json"),
    "name of a base": (("--base", "qwen2.5-0.5b"), "models pull qwen2.5-0.5b, then --base models/qwen2.5-0.5b"),
    "repository": (("--base", "Qwen/Qwen2.5-0.5B"), "models pull qwen2.5-0.5b, then --base models/qwen2.5-0.5b"),
    "name of two lines": (("--name", "a\nb"), "cannot be a model's: the name must be printable, without slashes"),
    "nothing to quantize to": (("--quant", ""), "--quant '': must be distinct names, separated by commas"),
    "text": (("--trim-vocab", "nothing.txt"), "nothing.txt"),
    "verify text": (("--verify-text", "nothing.txt"), "--verify-text nothing.txt: No such file"),
}


@pytest.mark.parametrize(("arguments", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_refusals(base: Path, adapter: Path, tmp_path: Path, arguments: tuple[object, ...], message: str) -> None:
    given = ["--adapter", adapter] if arguments == ("--qlora-base", "nf5") else []
    told = refusal("convert", "--base", base, "--out", tmp_path / "out", *given, *arguments)
    assert message in told
    assert not (tmp_path / "out").exists() or list((tmp_path / "out").iterdir()) == []


def test_the_disk_is_full(base: Path, tmp_path: Path, cli: Any) -> None:
    """A limit on the size of files stands for a full disk: the same path, EFBIG for ENOSPC."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, before[1]))  # Python ignores the signal for it
    try:
        code, _, told = cli("convert", "--base", str(base), "--out", str(tmp_path / "out"), "--quiet")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert code == 2 and len(told) == 1
    assert "is the disk full?; no file has its final name" in told[0]
    assert list((tmp_path / "out").iterdir()) == []
