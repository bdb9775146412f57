"""Levels, types of single tensors and importances, on random files that need neither torch nor a vocabulary."""

from __future__ import annotations

import re
import resource
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter
from numpy.typing import NDArray

from bioner_edge.backends import native
from bioner_edge.backends.llama_cpp import LlamaCpp
from bioner_edge.convert.gguf import quantize as module
from bioner_edge.convert.gguf.quantize import LEVELS, TENSOR_TYPES, parse_tensor_types, quantize, tensor_mix
from bioner_edge.errors import ModelError, UsageError
from bioner_edge.hardware.threads import cores
from bioner_edge.models import gguf_header

QUANTIZED = [level for level in LEVELS if level not in ("F32", "F16", "BF16")]


def write(path: Path, hidden: int, feed: int, *, layers: int = 1, tied: bool = True, spread: float = 1.0) -> Path:
    """A random Llama in F32 with rows of `hidden` and of `feed` weights, four heads, 40 tokens."""
    random = np.random.default_rng(3)
    writer = GGUFWriter(path, "llama")
    numbers = {"context_length": 64, "embedding_length": hidden, "block_count": layers, "feed_forward_length": feed}
    numbers |= {"attention.head_count": 4, "attention.head_count_kv": 2, "vocab_size": 40}
    for key, number in numbers.items():
        writer.add_uint32(f"llama.{key}", number)
    writer.add_uint32("llama.rope.dimension_count", hidden // 4)
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", 1e-5)
    writer.add_string("tokenizer.ggml.model", "no_vocab")

    def add(name: str, *shape: int) -> None:
        values = random.standard_normal(shape) / shape[-1] ** 0.5 if len(shape) > 1 else np.ones(shape)
        writer.add_tensor(f"{name}.weight", (spread * values).astype(np.float32))

    add("token_embd", 40, hidden)
    add("output_norm", hidden)
    if not tied:
        add("output", 40, hidden)
    for layer in range(layers):
        for norm in ("attn_norm", "ffn_norm"):
            add(f"blk.{layer}.{norm}", hidden)
        for name, rows in {
            "attn_q": hidden,
            "attn_k": hidden // 2,
            "attn_v": hidden // 2,
            "attn_output": hidden,
        }.items():
            add(f"blk.{layer}.{name}", rows, hidden)
        for name in ("ffn_gate", "ffn_up"):
            add(f"blk.{layer}.{name}", feed, hidden)
        add(f"blk.{layer}.ffn_down", hidden, feed)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every row can be cut into blocks of 256."""
    return write(tmp_path_factory.mktemp("wide") / "wide.gguf", 256, 512, layers=2, tied=False)


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of 64 and of 256 weights: only `ffn_down` can be cut into blocks of 256."""
    return write(tmp_path_factory.mktemp("narrow") / "narrow.gguf", 64, 256)


def types(path: Path) -> dict[str, str]:
    return {tensor.name.removesuffix(".weight"): tensor.type for tensor in gguf_header.read(path).tensors}


def weights(path: Path, name: str) -> NDArray[np.float32]:
    """A tensor by the reader and the dequantization of the gguf package."""
    tensor = next(t for t in GGUFReader(path).tensors if t.name == name)
    return np.asarray(gguf.quants.dequantize(tensor.data, tensor.tensor_type), np.float32)


def evaluates(path: Path) -> NDArray[np.float32]:
    with LlamaCpp(path, threads=1, cache="f32") as model:
        sequence = model.new_sequence()
        return np.array(model.eval(sequence, [1, 2, 3, 4, 5]))


# --- Levels

BITS = {"Q8_0": 8.5, "Q6_K": 6.5625, "Q5_K_M": 5.8, "Q4_K_M": 5.0, "Q4_0": 4.6, "IQ4_XS": 4.4}
MIXES = {  # two layers: 14 matrices, embedding, output; 5 norms stay F32
    "Q8_0": {"Q8_0": 16},
    "Q6_K": {"Q6_K": 16},
    "Q5_K_M": {"Q5_K": 13, "Q6_K": 3},
    "Q4_K_M": {"Q4_K": 13, "Q6_K": 3},
    "Q4_0": {"Q4_0": 15, "Q6_K": 1},
    "IQ4_XS": {"IQ4_XS": 15, "Q6_K": 1},
}


@pytest.mark.parametrize("level", QUANTIZED)
def test_levels(wide: Path, tmp_path: Path, level: str) -> None:
    out = tmp_path / "q.gguf"
    quantize(wide, out, level, threads=1)
    mix, bits = tensor_mix(out)
    assert mix == {**MIXES[level], "F32": 5}
    assert bits == pytest.approx(BITS[level], abs=0.25)
    assert gguf_header.check(out)["general.file_type"] == LEVELS[level]
    reference, ours = weights(wide, "blk.0.attn_q.weight"), weights(out, "blk.0.attn_q.weight")
    assert 0 < np.abs(reference - ours).mean() / np.abs(reference).mean() < 0.12
    assert np.isfinite(evaluates(out)).all()


@pytest.mark.parametrize(("level", "expected"), [("Q4_K_M", "Q5_0"), ("Q5_K_M", "Q5_1"), ("IQ4_XS", "IQ4_NL")])
def test_the_mix_tells_of_rows_that_no_block_of_256_fits(
    narrow: Path, tmp_path: Path, level: str, expected: str
) -> None:
    quantize(narrow, tmp_path / "q.gguf", level)
    made = types(tmp_path / "q.gguf")
    assert made["blk.0.attn_q"] == expected and made["token_embd"] == "Q8_0"
    assert made["blk.0.ffn_down"].endswith(("_K", "_XS"))


def test_some_rows_that_fit_no_block_are_float16(tmp_path: Path) -> None:
    quantize(write(tmp_path / "s.gguf", 48, 64), tmp_path / "q.gguf", "Q4_0")
    assert tensor_mix(tmp_path / "q.gguf")[0] == {"F16": 7, "F32": 3, "Q4_0": 1}


def test_rows_that_fit_no_block_at_all_are_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "s.gguf", 40, 56)
    with pytest.raises(ModelError, match=r"rows of 40, 56 weights do not fit the blocks of Q4_0; use F16$"):
        quantize(source, tmp_path / "q.gguf", "Q4_0")
    assert not (tmp_path / "q.gguf").exists()


@pytest.mark.parametrize("level", ["F16", "BF16"])
def test_bfloat16_and_float16_as_the_gguf_package_rounds(wide: Path, tmp_path: Path, level: str) -> None:
    quantize(wide, tmp_path / "q.gguf", level)
    tensor = next(t for t in GGUFReader(tmp_path / "q.gguf").tensors if t.name == "output.weight")
    assert tensor.tensor_type == GGMLQuantizationType[level]
    reference = gguf.quants.quantize(weights(wide, "output.weight"), GGMLQuantizationType[level])
    assert tensor.data.tobytes() == reference.tobytes()


def test_threads_are_those_of_this_process(wide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    native = module.lib.llama_model_quantize

    def spy(source: bytes, out: bytes, settings: Any) -> int:
        seen.append(settings._obj.nthread)
        return int(native(source, out, settings))

    monkeypatch.setattr(module.lib, "llama_model_quantize", spy)
    quantize(wide, tmp_path / "a.gguf", "Q4_0")
    quantize(wide, tmp_path / "b.gguf", "Q4_0", threads=3)
    assert seen == [cores(), 3]
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()


# --- Types of single tensors


def test_types_by_regular_expression_the_first_that_fits(wide: Path, tmp_path: Path) -> None:
    quantize(wide, tmp_path / "q.gguf", "Q4_0", tensor_types={r"^blk\.0\..*down": "F16", "ffn_(down|up)": "Q6_K"})
    made = types(tmp_path / "q.gguf")
    assert (made["blk.0.ffn_down"], made["blk.1.ffn_down"], made["blk.0.ffn_up"]) == ("F16", "Q6_K", "Q6_K")
    assert made["blk.0.ffn_gate"] == "Q4_0" and made["output"] == "Q6_K"
    np.testing.assert_array_equal(
        weights(tmp_path / "q.gguf", "blk.0.ffn_down.weight"),
        weights(wide, "blk.0.ffn_down.weight").astype(np.float16).astype(np.float32),
    )


@pytest.mark.parametrize("kind", TENSOR_TYPES)
def test_every_type_can_be_given_to_every_matrix(wide: Path, tmp_path: Path, kind: str) -> None:
    quantize(wide, tmp_path / "q.gguf", "Q4_0", tensor_types={"": kind})
    assert tensor_mix(tmp_path / "q.gguf")[0] == ({"F32": 21} if kind == "F32" else {kind: 16, "F32": 5})
    assert np.isfinite(evaluates(tmp_path / "q.gguf")).all()


def test_arguments_are_split_at_the_last_equals_sign() -> None:
    assert parse_tensor_types(["ffn_down=Q6_K", "(?=blk)a=F16"]) == {"ffn_down": "Q6_K", "(?=blk)a": "F16"}


ARGUMENTS = {
    "ffn_down": "tensor type 'ffn_down': write REGEX=TYPE, such as 'ffn_down=Q6_K'",
    "=Q6_K": "tensor type '=Q6_K': write REGEX=TYPE, such as 'ffn_down=Q6_K'",
    "a=Q9": "unknown tensor type 'Q9'; known: F32, F16",
    "a=Q8_K": "unknown tensor type 'Q8_K'; known: F32, F16",
    "a(=Q6_K": "tensor type 'a(': not a regular expression: missing ), unterminated subpattern at position 1",
}


@pytest.mark.parametrize(("argument", "message"), ARGUMENTS.items())
def test_arguments_that_make_no_sense(argument: str, message: str) -> None:
    with pytest.raises(UsageError, match="^" + re.escape(message)):
        parse_tensor_types([argument])


WISHES: dict[str, tuple[dict[str, str], str]] = {
    "no such name": ({"ffn_dwn": "Q6_K"}, "'ffn_dwn': matches no matrix; some names: token_embd.weight, "),
    "a norm": ({"attn_norm": "F16"}, "'attn_norm': matches no matrix"),
    "nothing left": ({"ffn": "Q8_0", "ffn_down": "Q6_K"}, "'ffn_down': everything it matches already has a type"),
    "blocks": ({"attn_q": "Q4_K"}, "Q4_K: blk.0.attn_q.weight has rows of 64 weights, and Q4_K needs a multiple"),
    "no expression": ({"*": "Q8_0"}, "'*': not a regular expression: nothing to repeat"),
}  # fmt: skip


@pytest.mark.parametrize(("wish", "message"), WISHES.values(), ids=WISHES.keys())
def test_wishes_that_cannot_be_met(narrow: Path, tmp_path: Path, wish: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)) as caught:
        quantize(narrow, tmp_path / "q.gguf", "Q4_0", tensor_types=wish)
    assert "\n" not in str(caught.value) and not (tmp_path / "q.gguf").exists()


def test_float_levels_take_no_types(narrow: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the tensors of F16 cannot have other types"):
        quantize(narrow, tmp_path / "q.gguf", "F16", tensor_types={"ffn": "Q8_0"})


def test_what_llama_cpp_made_otherwise_is_noticed(
    narrow: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_check_width", lambda tensor, kind: None)
    with pytest.raises(
        ModelError, match=r"llama.cpp wrote blk.0.attn_q.weight as Q5_0, not Q4_K; omit that tensor type"
    ):
        quantize(narrow, tmp_path / "q.gguf", "Q4_0", tensor_types={"attn_q": "Q4_K"})
    assert not (tmp_path / "q.gguf").exists()


# --- Importances


@pytest.mark.parametrize("level", ["Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0", "IQ4_XS"])
def test_important_inputs_are_kept_better(wide: Path, tmp_path: Path, level: str) -> None:
    name = "blk.1.attn_q.weight"
    importance = np.ones(256, np.float32)
    importance[::8] = 1e4
    quantize(wide, tmp_path / "plain.gguf", level)
    quantize(wide, tmp_path / "weighted.gguf", level, importance={name: importance})
    reference = weights(wide, name)
    plain, weighted = ((weights(tmp_path / f"{n}.gguf", name) - reference) ** 2 for n in ("plain", "weighted"))
    assert weighted[:, ::8].mean() < 0.7 * plain[:, ::8].mean()
    assert (weighted * importance).sum() < (plain * importance).sum()
    other = "blk.0.attn_k.weight"
    np.testing.assert_array_equal(weights(tmp_path / "plain.gguf", other), weights(tmp_path / "weighted.gguf", other))


def test_importances_of_any_layout(wide: Path, tmp_path: Path) -> None:
    """What is copied on the way must live until llama.cpp has read it."""
    random = np.random.default_rng(0)
    names = [f"blk.{layer}.{part}.weight" for layer in range(2) for part in ("attn_q", "attn_k", "ffn_up", "ffn_gate")]
    exact = {name: random.random(256, np.float32) for name in names}
    others: dict[str, Any] = {name: np.repeat(values, 2).astype(np.float64)[::2] for name, values in exact.items()}
    quantize(wide, tmp_path / "a.gguf", "Q4_K_M", importance=exact)
    quantize(wide, tmp_path / "b.gguf", "Q4_K_M", importance=others)
    quantize(wide, tmp_path / "c.gguf", "Q4_K_M")
    a, b, c = ((tmp_path / f"{name}.gguf").read_bytes() for name in "abc")
    assert a == b != c


@pytest.mark.parametrize("level", QUANTIZED)
def test_inputs_without_any_importance_do_no_harm(wide: Path, tmp_path: Path, level: str) -> None:
    importance = {f"blk.{n}.ffn_down.weight": np.zeros(512, np.float32) for n in range(2)}
    importance["blk.1.ffn_down.weight"][:300] = 1e-30
    quantize(wide, tmp_path / "q.gguf", level, importance=importance)
    assert np.isfinite(evaluates(tmp_path / "q.gguf")).all()


REFUSED: dict[str, tuple[str, Callable[[], NDArray[np.float32]], str]] = {
    "name": ("blk.7.attn_q.weight", lambda: np.ones(64), "has no matrix 'blk.7.attn_q.weight', which the"),
    "norm": ("output_norm.weight", lambda: np.ones(64), "has no matrix 'output_norm.weight', which the"),
    "inputs": ("token_embd.weight", lambda: np.ones(40), "'token_embd.weight' has shape (40,), and its inputs (64,)"),
    "NaN": ("blk.0.attn_q.weight", lambda: np.full(64, np.nan), "'blk.0.attn_q.weight' is not finite and positive"),
    "negative": ("blk.0.attn_q.weight", lambda: -np.ones(64), "'blk.0.attn_q.weight' is not finite and positive"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "values", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_importances_that_would_be_passed_over(
    narrow: Path, tmp_path: Path, name: str, values: Callable[[], NDArray[np.float32]], message: str
) -> None:
    with pytest.raises(ModelError, match=re.escape(message)):
        quantize(narrow, tmp_path / "q.gguf", "Q4_0", importance={name: values()})
    assert not (tmp_path / "q.gguf").exists()


# --- What can go wrong


def test_llama_cpp_says_why(narrow: Path, tmp_path: Path) -> None:
    quantize(narrow, tmp_path / "q.gguf", "Q8_0")
    with pytest.raises(ModelError) as caught:
        quantize(tmp_path / "q.gguf", tmp_path / "again.gguf", "Q4_0")
    told = "failed to quantize: requantizing from type q8_0 is disabled"
    assert str(caught.value) == f"{tmp_path / 'q.gguf'}: llama.cpp cannot quantize it to Q4_0: {told}"
    assert not (tmp_path / "again.gguf").exists()


def test_weights_that_no_level_can_hold(tmp_path: Path) -> None:
    source = write(tmp_path / "s.gguf", 48, 64, spread=1e9)  # what falls back becomes float16
    with pytest.raises(ModelError, match=r"llama.cpp cannot quantize it to Q8_0: .*quantized data validation failed"):
        quantize(source, tmp_path / "q.gguf", "Q8_0")


def test_a_source_that_is_damaged_or_missing(narrow: Path, tmp_path: Path) -> None:
    (tmp_path / "half.gguf").write_bytes(narrow.read_bytes()[:-5000])
    with pytest.raises(ModelError, match=r"half\.gguf: damaged GGUF"):
        quantize(tmp_path / "half.gguf", tmp_path / "q.gguf", "Q8_0")
    with pytest.raises(ModelError, match=r"none\.gguf: cannot be read: No such file"):
        quantize(tmp_path / "none.gguf", tmp_path / "q.gguf", "Q8_0")


def test_an_output_that_cannot_be_written(narrow: Path, tmp_path: Path) -> None:
    before = narrow.read_bytes()
    with pytest.raises(UsageError, match="is the source file; write to another one"):
        quantize(narrow, narrow, "Q8_0")
    assert narrow.read_bytes() == before
    with pytest.raises(ModelError, match=r"q\.gguf: cannot be written: No such file or directory"):
        quantize(narrow, tmp_path / "missing" / "q.gguf", "Q8_0")


@pytest.mark.parametrize("room", [0, 1000, 30_000, -1])
def test_a_full_disk(narrow: Path, tmp_path: Path, room: int) -> None:
    """No file may grow beyond `room` bytes, or all of it but the last byte."""
    quantize(narrow, tmp_path / "whole.gguf", "Q8_0")
    size = (tmp_path / "whole.gguf").stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room if room >= 0 else size - 1, before[1]))
    try:
        with pytest.raises(ModelError, match=r"q\.gguf: could be written only in part; [\d,]+ bytes are free there"):
            quantize(narrow, tmp_path / "q.gguf", "Q8_0")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not (tmp_path / "q.gguf").exists()


def test_names_that_are_not_utf8(narrow: Path, tmp_path: Path) -> None:
    out = tmp_path / "q\udcff \u6f22.gguf"
    quantize(narrow, out, "Q8_0")
    assert tensor_mix(out)[0]["Q8_0"] == 8


def test_an_interrupt_is_heard_once_llama_cpp_is_done(
    wide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interruptible: None
) -> None:
    """Raised inside the callback that hears the log, KeyboardInterrupt would be printed and lost."""
    native = module.lib.llama_model_quantize

    def pressed(source: bytes, out: bytes, settings: Any) -> int:
        finger = threading.Thread(target=signal.raise_signal, args=[signal.SIGINT])
        finger.start()
        failed = int(native(source, out, settings))
        finger.join()
        return failed

    monkeypatch.setattr(module.lib, "llama_model_quantize", pressed)
    with pytest.raises(KeyboardInterrupt):
        quantize(wide, tmp_path / "q.gguf", "Q4_0")
    assert not (tmp_path / "q.gguf").exists()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_settings_that_the_library_does_not_have() -> None:
    with pytest.raises(RuntimeError, match="llama_model_quantize_params has no n_thread; install"):
        native.set_fields(module.lib.llama_model_quantize_default_params(), n_thread=2)
