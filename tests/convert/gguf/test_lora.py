"""An adapter as a GGUF of its own, applied by llama.cpp as it runs: the logits of peft, unmerged."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader, GGUFWriter
from numpy.typing import NDArray

from bioner_edge.backends.llama_cpp import LlamaCpp
from bioner_edge.convert import architectures
from bioner_edge.convert.checkpoint import Checkpoint
from bioner_edge.convert.gguf import lora as runtime_lora
from bioner_edge.convert.gguf.writer import write as write_gguf
from bioner_edge.convert.merging import merge
from bioner_edge.convert.merging.adapter import Adapter
from bioner_edge.errors import ModelError, UsageError
from bioner_edge.loading import load
from bioner_edge.models import gguf_header

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

transformers.utils.logging.disable_progress_bar()
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:peft", "ignore::FutureWarning:transformers")

IDS = [5, 9, 2, 88, 301, 7, 7, 120, 33, 4, 250, 19]
LINEAR = "all-linear"
Logits = NDArray[np.float32]


class Numbered:
    """A vocabulary that is only as large as the model says: logits are compared from ids."""

    def write(self, writer: GGUFWriter) -> None:
        writer.add_tokenizer_model("no_vocab")


def loaded(folder: Path) -> Any:
    settings: dict[str, Any] = {"dtype": torch.float32, "attn_implementation": "eager"}
    return transformers.AutoModelForCausalLM.from_pretrained(folder, **settings).eval()


def tuned(base: Path, out: Path, **settings: Any) -> Path:
    """A random adapter for `base`, large enough to change every logit, as peft saves it."""
    torch.manual_seed(11)
    wanted = {"r": 4, "lora_alpha": 6, "target_modules": LINEAR, "task_type": "CAUSAL_LM"}
    model = peft.get_peft_model(loaded(base), peft.LoraConfig(**{**wanted, **settings}))
    for name, parameter in model.named_parameters():
        if "lora_" in name and "magnitude" not in name:
            torch.nn.init.normal_(parameter, std=0.15)
    model.save_pretrained(out)
    return out


def expected(base: Path, adapter: Path) -> Logits:
    model = peft.PeftModel.from_pretrained(loaded(base), adapter).eval()
    with torch.inference_mode():
        return np.asarray(model(torch.tensor([IDS])).logits[0].numpy())


def computed(path: Path, adapter: Path | None = None) -> Logits:
    with LlamaCpp(path, cache="f32", threads=1, adapter=adapter) as model:
        sequence = model.new_sequence()
        return np.stack([np.array(model.eval(sequence, [token])) for token in IDS])


def written(source: Any, path: Path) -> Path:
    vocabulary: Any = Numbered()
    write_gguf(path, source, architectures.of(source.config), vocabulary, name="m", license="MIT")
    return path


def lora(base: Path, adapter: Path, path: Path, **more: Any) -> Path:
    source = Checkpoint(base)
    family = architectures.of(source.config)
    runtime_lora.write(path, Adapter(adapter), source, family, name="a", license="MIT", **more)
    return path


def distance(found: Logits, wanted: Logits) -> float:
    return float(np.abs(found - wanted).max() / wanted.std())


@pytest.fixture(scope="module")
def base(make_family: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama, whose rows of q and k move, with an output matrix of its own."""
    return make_family(tmp_path_factory.mktemp("base") / "hf", "llama", tie_word_embeddings=False)


@pytest.fixture(scope="module")
def base_gguf(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(Checkpoint(base), tmp_path_factory.mktemp("base") / "base.gguf")


# --- What is written is what peft computes

SCALINGS: dict[str, tuple[dict[str, Any], float]] = {  # with the number that llama.cpp divides by each rank
    "plain": ({}, 6.0),
    "rsLoRA": ({"use_rslora": True}, 12.0),
    "ranks": ({"rank_pattern": {"q_proj": 2, r"layers\.1\..*down_proj": 8}}, 6.0),
    "alphas": ({"alpha_pattern": {"v_proj": 9, "gate_proj": 1}}, 6.0),
    "rsLoRA with ranks and alphas": (
        {"use_rslora": True, "rank_pattern": {"k_proj": 9}, "alpha_pattern": {"k_proj": 5, "o_proj": 0}},
        12.0,
    ),
    "nothing of one": ({"alpha_pattern": {r"layers\.0\..*": 0}}, 6.0),
    "some layers, and the output": ({"target_modules": ["k_proj", "down_proj", "lm_head"]}, 6.0),
}


@pytest.mark.parametrize(("settings", "alpha"), SCALINGS.values(), ids=SCALINGS.keys())
def test_scalings(base: Path, base_gguf: Path, tmp_path: Path, settings: dict[str, Any], alpha: float) -> None:
    adapter = tuned(base, tmp_path / "adapter", **settings)
    path = lora(base, adapter, tmp_path / "lora.gguf")
    wanted = expected(base, adapter)
    assert distance(computed(base_gguf), wanted) > 0.1
    assert distance(computed(base_gguf, path), wanted) <= 1e-4
    assert gguf_header.check(path)["adapter.lora.alpha"] == pytest.approx(alpha)
    merge.save(merge.Merged(Checkpoint(base), Adapter(adapter)), tmp_path / "merged")
    merged = written(Checkpoint(tmp_path / "merged"), tmp_path / "merged.gguf")
    assert distance(computed(base_gguf, path), computed(merged)) <= 1e-4


def test_every_family(make_family: Callable[..., Path], family: str, tmp_path: Path) -> None:
    folder = make_family(tmp_path / "hf", family)
    adapter = tuned(folder, tmp_path / "adapter", use_rslora=True)
    path = lora(folder, adapter, tmp_path / "lora.gguf")
    wanted = expected(folder, adapter)
    found = written(Checkpoint(folder), tmp_path / "base.gguf")
    tolerance = architectures.of(Checkpoint(folder).config).tolerance
    assert distance(computed(found), wanted) > 0.1
    assert distance(computed(found, path), wanted) <= tolerance
    modules = {name for name in Adapter(adapter).targets if "lm_head" not in name}
    assert len(gguf_header.read(path).tensors) == 2 * len(modules) > 0


def test_on_a_quantized_base(base: Path, base_gguf: Path, tmp_path: Path) -> None:
    from bioner_edge.convert.gguf.quantize import quantize

    adapter = tuned(base, tmp_path / "adapter")
    path = lora(base, adapter, tmp_path / "lora.gguf", level="F16")
    quantize(base_gguf, tmp_path / "q.gguf", "Q8_0", threads=1)
    assert distance(computed(tmp_path / "q.gguf", path), expected(base, adapter)) < 0.2


@pytest.mark.parametrize("level", ["F32", "F16"])
def test_what_the_file_says(base: Path, tmp_path: Path, level: str) -> None:
    adapter = Adapter(tuned(base, tmp_path / "adapter", rank_pattern={"q_proj": 3}))
    path = tmp_path / "lora.gguf"
    source = Checkpoint(base)
    runtime_lora.write(path, adapter, source, architectures.of(source.config), name="mine", license="MIT", level=level)
    header = gguf_header.read(path)
    assert header.metadata | {"general.name": "mine", "general.license": "MIT"} == header.metadata
    assert [header.metadata[f"{part}.{key}"] for part, key in (("general", "type"), ("adapter", "type"))] == [
        "adapter",
        "lora",
    ]
    tensors = {tensor.name: tensor for tensor in GGUFReader(path).tensors}
    a, b = tensors["blk.1.attn_q.weight.lora_a"], tensors["blk.1.attn_q.weight.lora_b"]
    assert (a.data.shape, b.data.shape) == ((3, 64), (64, 3)) and a.tensor_type.name == level
    theirs = adapter.factors("model.layers.1.self_attn.q_proj.weight")
    np.testing.assert_array_equal(a.data, theirs[0].astype(a.data.dtype))
    pairs = theirs[1].reshape(4, 2, 8, 3).swapaxes(1, 2).reshape(64, 3)  # four heads of 16
    # 6 / 3 is its scaling; the file's alpha 6 over rank 3 says so, too
    np.testing.assert_array_equal(b.data, pairs.astype(b.data.dtype))


# --- What is refused

MERGE = "; merge the adapter into its base instead"
OBJECTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "DoRA": ({"use_dora": True}, "uses DoRA, which also scales the base's rows, while llama.cpp can only add to them"),
    "whole": ({"modules_to_save": ["norm"]}, "norm.weight' was trained in full, not as a pair of matrices"),
    "tokens": (
        {"trainable_token_indices": [3, 5]},
        "'model.embed_tokens.weight' has token rows that were trained in full",
    ),
    "bias": ({"lora_bias": True, "target_modules": ["q_proj"]}, "has its own bias, which llama.cpp does not add"),
    "embedding": (
        {"target_modules": ["q_proj", "embed_tokens"]},
        "'model.embed_tokens.weight' is an embedding, which llama.cpp does not adapt where it is tied to the output",
    ),
    "nothing": ({"lora_alpha": 0}, "it changes nothing: it has no target, or every alpha is 0"),
}  # fmt: skip


@pytest.mark.parametrize(("settings", "message"), OBJECTIONS.values(), ids=OBJECTIONS.keys())
def test_objections(base: Path, tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    more = {"bias": "all"} if settings.get("lora_bias") else {}
    adapter = tuned(base, tmp_path / "adapter", **{**more, **settings})
    with pytest.raises(ModelError) as caught:
        lora(base, adapter, tmp_path / "lora.gguf")
    told = str(caught.value)
    assert message in told and told.endswith(MERGE) and told.startswith(f"{adapter}") and "\n" not in told
    assert not (tmp_path / "lora.gguf").exists()


def test_an_output_that_is_the_embedding(checkpoint: Path, tmp_path: Path) -> None:
    adapter = tuned(checkpoint, tmp_path / "adapter", target_modules=["lm_head"])
    with pytest.raises(ModelError, match=r"'lm_head.weight' is the embedding in this base; merge the adapter"):
        lora(checkpoint, adapter, tmp_path / "lora.gguf")


def test_a_vocabulary_that_was_resized(base: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = loaded(base)
    model.resize_token_embeddings(440)
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "lm_head"], task_type="CAUSAL_LM")
    model = peft.get_peft_model(model, config)
    model.save_pretrained(tmp_path / "adapter", save_embedding_layers=True)
    with pytest.raises(ModelError, match=r"'lm_head.weight' was trained on weights that differ from the base's"):
        lora(base, tmp_path / "adapter", tmp_path / "lora.gguf")


def test_originals_that_are_the_bases_own(base: Path, base_gguf: Path, tmp_path: Path) -> None:
    adapter = tuned(base, tmp_path / "one", target_modules=["q_proj", "lm_head"])
    model = peft.PeftModel.from_pretrained(loaded(base), adapter)
    model.save_pretrained(tmp_path / "two", save_embedding_layers=True)
    assert Adapter(tmp_path / "two").originals
    path = lora(base, tmp_path / "two", tmp_path / "lora.gguf")
    assert distance(computed(base_gguf, path), expected(base, adapter)) <= 1e-4


@pytest.mark.parametrize("settings", [{"hidden_size": 32}, {"num_hidden_layers": 1}], ids=["shapes", "layers"])
def test_an_adapter_of_another_base(
    make_family: Callable[..., Path], base: Path, tmp_path: Path, settings: dict[str, int]
) -> None:
    other = make_family(tmp_path / "other", "llama", tie_word_embeddings=False, **settings)
    adapter = tuned(base, tmp_path / "adapter")
    with pytest.raises(
        ModelError, match=r"has shape .* in this base|is not in this base; give the base that it was trained on"
    ):
        lora(other, adapter, tmp_path / "lora.gguf")


def test_a_family_that_does_more_than_to_move_rows(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bioner_edge.convert.architectures import Architecture

    monkeypatch.setattr(Architecture, "convert_tensor", lambda self, name, tensor, config: tensor + 1)
    adapter = tuned(base, tmp_path / "adapter", target_modules=["q_proj"])
    with pytest.raises(ModelError, match=r"llama changes 'model.layers.0.*' beyond reordering its rows; merge"):
        lora(base, adapter, tmp_path / "lora.gguf")
    assert not (tmp_path / "lora.gguf").exists()


def test_values_that_float16_cannot_hold(base: Path, tmp_path: Path) -> None:
    adapter = tuned(base, tmp_path / "adapter", alpha_pattern={"q_proj": 10**8})
    with pytest.raises(ModelError, match=r"q_proj.weight' has values that float16 cannot hold; write it as F32"):
        lora(base, adapter, tmp_path / "lora.gguf", level="F16")
    with pytest.raises(UsageError, match="unknown level 'Q8_0'; known: F32, F16"):
        lora(base, adapter, tmp_path / "lora.gguf", level="Q8_0")
    assert not (tmp_path / "lora.gguf").exists()


def test_a_path_that_cannot_be_written(base: Path, tmp_path: Path) -> None:
    adapter = tuned(base, tmp_path / "adapter", target_modules=["q_proj"])
    with pytest.raises(
        ModelError, match=r"lora.gguf: cannot be written: No such file or directory; free disk space or"
    ):
        lora(base, adapter, tmp_path / "missing" / "lora.gguf")


@pytest.mark.parametrize("room", [0, 500, 3000, 20_000])
def test_a_full_disk(base: Path, tmp_path: Path, room: int) -> None:
    adapter = tuned(base, tmp_path / "adapter")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))  # no file may grow beyond it
    try:
        with pytest.raises(ModelError, match=r"lora.gguf: cannot be written: \w.*; free disk space") as caught:
            lora(base, adapter, tmp_path / "lora.gguf")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not (tmp_path / "lora.gguf").exists() and "\n" not in str(caught.value)


# --- The main path


def alone(path: Path, adapter: Path, **changes: Any) -> Path:
    """An adapter of one layer of `path`, a GGUF with an adapter's manifest beside it."""
    from bioner_edge.models.registry import Manifest, manifest_path, sha256

    writer = GGUFWriter(adapter, "llama")
    for key, value in {"general.type": "adapter", "adapter.type": "lora"}.items():
        writer.add_string(key, value)
    writer.add_float32("adapter.lora.alpha", 1.0)
    columns, rows = next(t.shape for t in gguf_header.read(path).tensors if t.name == "blk.0.attn_q.weight")
    random = np.random.default_rng(0)
    for part, shape in {"a": (2, columns), "b": (rows, 2)}.items():
        writer.add_tensor(f"blk.0.attn_q.weight.lora_{part}", random.standard_normal(shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    wanted: dict[str, Any] = {
        "formats": ("multi_term",),
        "labels": ("Gene",),
        "unit": "document",
        "license": "MIT",
        "sha256": sha256(adapter),
        "level": "F32",
        "bits_per_weight": 32.0,
        "tensor_mix": {"F32": 2},
        "sources": {},
        "versions": {},
        "guidelines": {"Gene": "as it is written"},
    }
    Manifest(**{**wanted, **changes}).save(manifest_path(adapter))
    return adapter


def test_the_adapters_manifest_counts(tiny_model: Path, tmp_path: Path) -> None:
    adapter = alone(tiny_model, tmp_path / "lora.gguf")
    with load(tiny_model, threads=1) as plain, load(tiny_model, adapter=adapter, threads=1) as extractor:
        assert (plain.format.__name__.split(".")[-1], plain.unit) == ("multi_tag", "sentence")
        assert (extractor.format.__name__.split(".")[-1], extractor.unit) == ("multi_term", "document")
        assert extractor.labels == ["Gene"] and plain.labels == ["Chemical", "Disease"]
        first, second = (e.backend.eval(e.backend.new_sequence(), [5, 6, 7]).copy() for e in (plain, extractor))
        assert np.abs(first - second).max() > 0.01
        assert "as it is written" in "".join(
            (extractor.backend.piece(token) or b"").decode(errors="replace") for token in extractor.prompts[0][0]
        )


def test_an_adapter_without_a_manifest_says_nothing_of_itself(tiny_model: Path, tmp_path: Path) -> None:
    adapter = alone(tiny_model, tmp_path / "lora.gguf")
    adapter.with_suffix(".json").unlink()
    with pytest.raises(UsageError, match=r"lora\.gguf: no manifest beside it, so --format and --labels must be given"):
        load(tiny_model, adapter=adapter)
    with load(tiny_model, adapter=str(adapter), format="multi_tag", labels=["Drug"], threads=1) as extractor:
        assert extractor.labels == ["Drug"] and extractor.unit == "document"


def test_an_adapter_that_cannot_be_trusted(tiny_model: Path, tmp_path: Path) -> None:
    adapter = alone(tiny_model, tmp_path / "lora.gguf", sha256="0" * 64)
    with pytest.raises(ModelError, match=r"lora\.gguf: SHA-256 .* but .*lora\.json says 000000000000"):
        load(tiny_model, adapter=adapter)
    with pytest.raises(ModelError, match=r"none\.gguf: no such model file"):
        load(tiny_model, adapter=tmp_path / "none.gguf")
