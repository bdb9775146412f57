"""The whole way to onnxruntime: from a base and an adapter to verified folders, and documents read with them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from bioner_edge import load
from bioner_edge.benchmarks.baselines import LLAMA_GBNF
from bioner_edge.cli import app
from bioner_edge.errors import BionerError, ModelError, UsageError
from bioner_edge.models import registry
from bioner_edge.models.manifest import Manifest, digest, manifest_path

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime_genai")

from bioner_edge.backends.llama_cpp import LlamaCpp
from bioner_edge.backends.loading import load_backend
from bioner_edge.backends.onnx.backend import OnnxRuntime
from bioner_edge.convert import About, convert
from bioner_edge.convert.verification import measure
from bioner_edge.convert.verification.samples import DOCUMENTS
from bioner_edge.extract import Extractor

ABOUT = {"labels": ["Chemical", "Disease"], "formats": ["multi_tag"], "license": "Apache-2.0", "unit": "sentence"}
LEVELS = ("F32", "int8", "int4")


def run(*arguments: object) -> Result:
    """The command's result; a user's mistake stands in `exception`."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refusal(*arguments: object) -> str:
    result = run(*arguments)
    assert isinstance(result.exception, BionerError), result.exception
    assert "\n" not in str(result.exception)
    return str(result.exception)


@pytest.fixture(autouse=True)
def in_process(request: pytest.FixtureRequest) -> None:
    """Exporters run here, but where it is tested that they run in processes of their own."""
    if "own processes" not in request.node.name:
        request.getfixturevalue("exporters_here")


def exact(path: Path, format: str) -> Extractor:
    """With a cache in float32 on llama.cpp too."""
    backend = load_backend(path, threads=1, exact=True)
    return Extractor(backend, format=format, labels=["Chemical", "Disease"], unit="sentence")


@pytest.fixture(scope="session")
def base(make_checkpoint: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(
        tmp_path_factory.mktemp("base") / "tiny", tie_word_embeddings=True, max_position_embeddings=2048
    )


@pytest.fixture(scope="session")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA adapter of random weights that change every answer."""
    import peft
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = peft.get_peft_model(model, peft.LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "down_proj"]))
    torch.manual_seed(3)
    for parameter in model.parameters():
        if parameter.requires_grad:
            with torch.no_grad():
                parameter += 0.2 * torch.randn_like(parameter)
    folder = tmp_path_factory.mktemp("adapter") / "tuned"
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def folders(base: Path, adapter: Path, made_once: Any) -> dict[str, Path]:
    """Level -> the model, the adapter merged into it; the GGUF file at F32 beside them. No test changes them."""

    def make(out: Path) -> None:
        about = About.of([adapter, base], **ABOUT)
        convert(base, out, LEVELS, about, to="onnx", adapter=adapter)
        convert(base, out, ["F32"], about, adapter=adapter)

    out = made_once("tuned", make)
    return {level: out / f"tuned-{level}-onnx" for level in LEVELS} | {"gguf": out / "tuned-F32.gguf"}


def test_folders_and_manifests(folders: dict[str, Path], base: Path, adapter: Path) -> None:
    for level in LEVELS:
        path = folders[level]
        assert path.name == f"tuned-{level}-onnx"
        manifest = Manifest.load(manifest_path(path))
        assert (manifest.level, manifest.formats, manifest.labels) == (level, ("multi_tag",), ("Chemical", "Disease"))
        assert manifest.sha256 == digest(path)
        assert set(manifest.files) <= {file.name for file in path.iterdir()} - {"manifest.json"}
        assert {"model.onnx", "tokenizer.json", "runtime.json"} <= set(manifest.files)
        assert set(manifest.sources) >= {"base/model.safetensors", "adapter/adapter_model.safetensors"}
        assert manifest.base["exporter"] == "builder"
        assert {"onnxruntime", "onnx", "onnxruntime-genai"} <= set(manifest.versions)
        stages = [figure["stage"] for figure in manifest.verification]
        for word in ("merge by peft", "token ids", "F32 logits", "greedy", "unreadable"):
            assert any(word in stage for stage in stages), (word, stages)
        assert any("KL" in stage for stage in stages) == (level != "F32")
        assert manifest.fingerprint["ids_sha256"]
    bits = [Manifest.load(manifest_path(folders[level])).bits_per_weight for level in LEVELS]
    assert bits[0] == 32 and 8 < bits[1] < 10 and 4 < bits[2] < 7
    assert not any("exported" in p.name or "checkpoint" in p.name for p in folders["F32"].parent.iterdir())


def test_listed_and_found_by_name(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIONER_MODELS", str(folders["F32"].parent))
    path, manifest = registry.find("tuned-int8-onnx")
    assert path == folders["int8"] and manifest and manifest.level == "int8"
    result = run("models", "verify", folders["F32"].parent)
    assert result.exit_code == 0, result.output
    assert "tuned-int4-onnx" in run("models").output


@pytest.mark.parametrize("format", ["multi_tag", "multi_code"])
def test_extraction_is_that_of_llama_cpp(folders: dict[str, Path], format: str) -> None:
    """Same model in float32, same entities at the same offsets; scores differ by what float32 does.

    A random model means no mention that it could tag, and lists some all the same.
    """
    with exact(folders["F32"], format) as ours, exact(folders["gguf"], format) as theirs:
        for text in DOCUMENTS:
            found, expected = ours(text), theirs(text)
            assert found.entities or format == "multi_tag"
            assert all(problem.kind == "cut" for _, problem in found.problems)
            assert [e.key for e in found.entities] == [e.key for e in expected.entities]
            scores = [[e.score for e in extraction.entities] for extraction in (found, expected)]
            np.testing.assert_allclose(*scores, rtol=0.02)
            assert (found.calls, found.fed) == (expected.calls, expected.fed)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("format", ["multi_tag", "multi_code", "single_span", "multi_bio"])
def test_every_answer_parses(folders: dict[str, Path], level: str, format: str) -> None:
    with pytest.warns(UserWarning) if format != "multi_tag" else pytest.MonkeyPatch.context():
        extractor = load(folders[level], format=format, threads=1)
    with extractor:
        for text in DOCUMENTS:
            extraction = extractor(text)
            assert all(problem.kind == "cut" for _, problem in extraction.problems)
            assert all(text[e.start : e.end] for e in extraction.entities)


def test_no_torch_nor_llama_cpp_at_run_time(folders: dict[str, Path]) -> None:
    """On a machine without a compiler: neither llama.cpp, nor anything that conversion needs."""
    script = """
import sys
for name in ("llama_cpp", "gguf", "torch", "transformers", "onnx", "onnx_ir", "onnxruntime_genai", "optimum", "peft"):
    sys.modules[name] = None
import bioner_edge
with bioner_edge.load(sys.argv[1], threads=1) as extractor:
    print(len(extractor("Naloxone reverses the effect of clonidine.").entities))
try:
    bioner_edge.load(sys.argv[2])
except bioner_edge.ModelError as error:
    print(error)
"""
    command = [sys.executable, "-c", script, str(folders["int8"]), str(folders["gguf"])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    count, told = done.stdout.splitlines()
    assert int(count) >= 0 and done.stderr == ""
    assert "a GGUF model needs llama.cpp: pip install 'bioner-edge[llama]'" in told


@pytest.mark.thorough(but=("here",))
@pytest.mark.parametrize("where", ["here", "own processes"])
def test_from_the_command_line(base: Path, tmp_path: Path, where: str) -> None:
    out = tmp_path / "dist"
    made = run(
        "convert", "--base", base, "--to", "onnx", "--quant", "int8,int4", "--out", out, "--labels", "Chemical",
        "--format", "multi_tag",
    )  # fmt: skip
    assert made.exit_code == 0, made.output
    paths = made.stdout.split()
    assert [Path(path).name for path in paths] == ["tiny-int8-onnx", "tiny-int4-onnx"]
    assert sorted(p.name for p in out.iterdir()) == ["models.toml", "tiny-int4-onnx", "tiny-int8-onnx"]
    assert "greedy: of 40 tokens after each of 3 prompts" in made.stderr
    assert run("verify", *paths).exit_code == 0
    note = tmp_path / "note.txt"
    note.write_text("Naloxone reverses the effect of clonidine.", "utf-8")
    found = run("extract", note, "--model", paths[1] + "/", "--quiet")
    assert found.exit_code == 0 and json.loads(found.stdout)["id"] == "note.txt"
    before = digest(out / "tiny-int8-onnx")
    again = ("convert", "--base", base, "--to", "onnx", "--out", out, "--no-verify", "--quiet")
    assert "tiny-int8-onnx: exists; give --overwrite to replace it" in refusal(*again)
    assert run(*again, "--overwrite").exit_code == 0
    assert digest(out / "tiny-int8-onnx") == before, "the default level is int8, and its bytes are the same again"


@pytest.mark.thorough
def test_keep_merged(base: Path, adapter: Path, folders: dict[str, Path], tmp_path: Path) -> None:
    """The merged model is left, exported from there, and proven as one that is merged on the way."""
    about = About.of([adapter, base], **ABOUT)
    (path,) = convert(base, tmp_path / "out", ["int8"], about, to="onnx", adapter=adapter, keep_merged=True)
    left = {p.name for p in (tmp_path / "out").iterdir()}
    assert left == {"tuned-int8-onnx", "tuned-merged", "models.toml"}
    assert (tmp_path / "out" / "tuned-merged" / "model.safetensors").is_file()
    assert any("merge by peft" in row["stage"] for row in Manifest.load(manifest_path(path)).verification)
    assert (path / "model.onnx.data").read_bytes() == (folders["int8"] / "model.onnx.data").read_bytes()


def test_trimmed(base: Path, tmp_path: Path) -> None:
    """A vocabulary of the tokens that a text needs: the exporter reads the trimmed model."""
    text = tmp_path / "domain.txt"
    text.write_text("Naloxone reverses the antihypertensive effect of clonidine in rats.", "utf-8")
    about = About.of([base], **ABOUT)
    (path,) = convert(base, tmp_path / "out", ["F32"], about, to="onnx", trim_vocab=[text])
    with OnnxRuntime(path, threads=1) as model, measure.open_exact(_gguf(base, tmp_path, text)) as other:
        assert (
            model.vocabulary_size
            == other.vocabulary_size
            < json.loads((base / "config.json").read_text())["vocab_size"]
        )
        ids = model.tokenize(text.read_bytes(), False)
        assert ids == other.tokenize(text.read_bytes(), False)
        ours, theirs = measure.logits(model, ids), measure.logits(other, ids)
        assert np.abs(ours - theirs).max() / theirs.std() < 1e-4


def _gguf(base: Path, tmp_path: Path, text: Path) -> Path:
    (path,) = convert(base, tmp_path / "out", ["F32"], About.of([base], **ABOUT), trim_vocab=[text], check=False)
    return path


@pytest.mark.thorough(but=("gemma3",))
@pytest.mark.parametrize("asked", ["llama", "qwen2", "qwen3", "gemma2", "gemma3", "phi3"])
def test_families_against_transformers(make_family: Any, asked: str, tmp_path: Path) -> None:
    """The conversion's own proof holds for the six families that are asked for."""
    source = make_family(tmp_path / asked, asked, gate=1.0)
    (path,) = convert(source, tmp_path / "out", ["F32"], About.of([source]), to="onnx")
    figures = {f["stage"].split(":")[0]: f["figure"] for f in Manifest.load(manifest_path(path)).verification}
    assert figures["F32 logits"] < 1e-4 and figures["greedy"] == 0, figures


@pytest.mark.thorough
def test_optimum(base: Path, adapter: Path, folders: dict[str, Path], tmp_path: Path) -> None:
    """The other exporter, whose cache grows: the same model, the same entities."""
    pytest.importorskip("optimum.exporters.onnx", reason="optimum-onnx is not installed beside this transformers")
    about = About.of([adapter, base], **ABOUT)
    paths = convert(base, tmp_path, LEVELS, about, to="onnx", exporter="optimum", adapter=adapter)
    assert Manifest.load(manifest_path(paths[0])).base["exporter"] == "optimum"
    assert json.loads((paths[0] / "runtime.json").read_text())["cache"] == "grown"
    with exact(paths[0], "multi_code") as ours, exact(folders["F32"], "multi_code") as theirs:
        for text in DOCUMENTS:
            assert [e.key for e in ours(text).entities] == [e.key for e in theirs(text).entities]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--to", "tflite"], "unknown target 'tflite'; known: gguf, onnx"),
        (["--to", "onnx", "--quant", "Q8_0"], "unknown level 'Q8_0'; known: F32, int8, int4"),
        (["--quant", "int8"], "unknown level 'int8'"),
        (["--to", "onnx", "--tensor-type", "x=Q8_0"], "tensor types cannot be used with onnx"),
        (["--to", "onnx", "--importance", "here"], "an importance matrix cannot be used with onnx"),
        (["--exporter", "builder"], "the exporter 'builder' is for ONNX"),
        (["--to", "onnx", "--exporter", "torch"], "unknown exporter 'torch'"),
        (["--to", "onnx", "--runtime-adapter", "--adapter", "here"], "--runtime-adapter with --to"),
    ],
)
def test_refused(base: Path, tmp_path: Path, options: list[str], told: str) -> None:
    assert told in refusal("convert", "--base", base, "--out", tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()


def test_not_for_onnx(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"llama-gbnf needs llama\.cpp; use gbnf, or a GGUF model"):
        load(folders["int8"], constraint=LLAMA_GBNF)
    with pytest.raises(ModelError, match="no such model file"):
        load(folders["int8"], adapter=tmp_path / "adapter.gguf")


def test_changed_folders_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    for name in ("model.onnx", "tokenizer.json", "runtime.json"):
        copy = tmp_path / name / folders["int8"].name
        shutil.copytree(folders["int8"], copy)
        data = bytearray((copy / name).read_bytes())
        data[len(data) // 2] ^= 1
        (copy / name).write_bytes(data)
        assert name in refusal("extract", "--model", copy)
        assert name in refusal("verify", copy)
    shutil.rmtree(tmp_path / "none", ignore_errors=True)
    shutil.copytree(folders["int8"], tmp_path / "none")
    (tmp_path / "none" / "manifest.json").unlink()
    assert "manifest.json" in refusal("extract", "--model", tmp_path / "none")


def test_larger_than_memory(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from bioner_edge.models import memory

    monkeypatch.setattr(memory, "available", lambda: 1 << 20)
    for path in (folders["int8"], folders["gguf"]):
        with pytest.raises(ModelError, match=r"needs about .* free.*--force"):
            load(path)
        load(path, force=True).close()


def test_quantized_wrongly_is_noticed(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A level whose weights are another model's leaves nothing behind."""
    from bioner_edge.convert.onnx import quantize

    right = quantize.quantize

    def wrong(f32: Path, out: Path, level: str) -> None:
        right(f32, out, level)
        data = out / "model.onnx.data"
        bytes_ = np.fromfile(data, np.uint8)
        bytes_[:4096] ^= 0x80  # rows of the first matrix: their signs are turned around
        bytes_.tofile(data)

    monkeypatch.setattr(quantize, "quantize", wrong)
    with pytest.raises(ModelError, match="int8"):
        convert(base, tmp_path / "out", ["int8"], About.of([base], **ABOUT), to="onnx")
    assert not [p for p in (tmp_path / "out").iterdir() if p.name != "models.toml"]


def test_exported_wrongly_is_noticed(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exporter that writes another model: the logits tell."""
    from bioner_edge.convert.checkpoint import Checkpoint
    from bioner_edge.convert.merging import merge
    from bioner_edge.convert.onnx import target

    class Other(Checkpoint):
        def tensor(self, name: str) -> Any:
            tensor = super().tensor(name)
            return tensor * 1.05 if name.endswith("layers.1.mlp.up_proj.weight") else tensor

    merge.save(Other(base), tmp_path / "other", tokenizer=base)
    monkeypatch.setattr(target.OnnxTarget, "_checkpoint", lambda *_: tmp_path / "other")
    with pytest.raises(ModelError, match="F32 logits against transformers"):
        convert(base, tmp_path / "out", ["F32"], About.of([base]), to="onnx")


def test_two_back_ends_are_one_contract(folders: dict[str, Path]) -> None:
    """What the two say of themselves is the same: tokens, ends, template, pieces."""
    with OnnxRuntime(folders["F32"], threads=1) as ours, LlamaCpp(folders["gguf"], threads=1) as theirs:
        for name in ("context", "vocabulary_size", "end_tokens", "chat_template", "bos"):
            assert getattr(ours, name) == getattr(theirs, name), name
        assert dict(ours.template_tokens) == dict(theirs.template_tokens)
        assert [ours.piece(t) for t in range(ours.vocabulary_size)] == [
            theirs.piece(t) for t in range(theirs.vocabulary_size)
        ]
