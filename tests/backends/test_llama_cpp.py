"""The llama.cpp back end on a tiny random model: what sequences share, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import llama_cpp.llama_cpp as lib
import numpy as np
import pytest
from gguf import GGUFWriter
from hypothesis import given
from hypothesis import strategies as st

import bioner_edge
from bioner_edge.backends import adapter_file, native
from bioner_edge.backends.contract import ContextFull, Logits
from bioner_edge.backends.llama_cpp import LlamaCpp
from bioner_edge.errors import ModelError
from bioner_edge.models.gguf_header import read

TEXT = (
    b"<Chemical>Naloxone</Chemical> reverses xq 7\\ZK wjyv; \xe6\x82\xa3\xe8\x80\x85 (%&) KLM in none of 29 = 0x5F\r\n!"
)


@pytest.fixture(scope="module")
def backend(tiny_model: Path) -> Iterator[LlamaCpp]:
    """An exact cache, so that what was read in pieces can be compared with what was read at once."""
    with LlamaCpp(tiny_model, context=1024, threads=1, cache="f32") as loaded:
        yield loaded


def fresh(backend: LlamaCpp, ids: list[int]) -> Logits:
    sequence = backend.new_sequence()
    logits = backend.eval(sequence, ids).copy()
    backend.release(sequence)
    return logits


def same(left: Logits, right: Logits) -> None:
    assert left.dtype == np.float32 and np.abs(left).max() > 0.1
    np.testing.assert_allclose(left, right, atol=2e-4)


@pytest.mark.parametrize("sizes", [(1,), (7, 1), (3, 3, 3)])
def test_read_in_pieces_or_at_once(backend: LlamaCpp, sizes: tuple[int, ...]) -> None:
    ids = backend.tokenize(TEXT, False)
    sequence, at = backend.new_sequence(), 0
    while at < len(ids):
        size = sizes[at % len(sizes)]
        logits = backend.eval(sequence, ids[at : at + size]).copy()
        at += size
    assert logits.shape == (backend.vocabulary_size,) and sequence.length == len(ids)
    backend.release(sequence)
    same(logits, fresh(backend, ids))


def test_more_than_one_batch(backend: LlamaCpp) -> None:
    ids = (backend.tokenize(TEXT, False) * 40)[:700]
    sequence = backend.new_sequence()
    backend.eval(sequence, ids[:600])
    logits = backend.eval(sequence, ids[600:]).copy()
    backend.release(sequence)
    same(logits, fresh(backend, ids))


def test_forks_share_and_do_not_disturb(backend: LlamaCpp) -> None:
    ids = backend.tokenize(TEXT, False)
    assert len(ids) > 40
    first = backend.new_sequence()
    backend.eval(first, ids[:20])
    second = backend.fork(first, 12)
    third = backend.fork(second, 0)
    assert (first.length, second.length, third.length) == (20, 12, 0)
    same(backend.eval(second, ids[25:30]).copy(), fresh(backend, ids[:12] + ids[25:30]))
    same(backend.eval(third, ids[:5]).copy(), fresh(backend, ids[:5]))
    same(backend.eval(first, ids[20:]).copy(), fresh(backend, ids))
    backend.release(first)
    same(backend.eval(second, ids[:3]).copy(), fresh(backend, ids[:12] + ids[25:30] + ids[:3]))
    backend.release(second)
    backend.release(third)


def test_what_is_truncated_is_forgotten(backend: LlamaCpp) -> None:
    ids = backend.tokenize(TEXT, False)
    sequence = backend.new_sequence()
    backend.eval(sequence, ids)
    backend.truncate(sequence, 9)
    assert sequence.length == 9
    same(backend.eval(sequence, ids[15:20]).copy(), fresh(backend, ids[:9] + ids[15:20]))
    slot = sequence.slot
    backend.release(sequence)
    again = backend.new_sequence()
    assert (again.slot, again.length) == (slot, 0)
    same(backend.eval(again, ids[:4]).copy(), fresh(backend, ids[:4]))
    backend.release(again)


def test_a_batch_larger_than_a_step(backend: LlamaCpp) -> None:
    """Steps of 512 tokens end inside sequences, and their logits outlast the steps that follow."""
    ids = (backend.tokenize(TEXT, False) * 40)[:300]
    texts = [ids, ids[::-1], ids[5:6], ids[7:200]]
    sequences = [backend.new_sequence() for _ in texts]
    rows = [row.copy() for row in backend.eval_batch(list(zip(sequences, texts, strict=True)))]
    assert [sequence.length for sequence in sequences] == [300, 300, 1, 193]
    for sequence in sequences:
        backend.release(sequence)
    for row, text in zip(rows, texts, strict=True):
        same(row, fresh(backend, text))


def test_a_batch_whose_second_step_has_no_room(tiny_model: Path) -> None:
    with LlamaCpp(tiny_model, context=768, threads=1, cache="f32") as backend:
        ids = (backend.tokenize(TEXT, False) * 40)[:400]
        one, two = backend.new_sequence(), backend.new_sequence()
        backend.eval(one, ids[:20])
        with pytest.raises(ContextFull, match=r"^no room for 790 tokens of 2 sequences in a context of 768$"):
            backend.eval_batch([(one, ids), (two, ids[:390])])
        assert (one.length, two.length) == (20, 0)
        same(backend.eval(one, ids[20:30]).copy(), fresh(backend, ids[:30]))
        with pytest.raises(ModelError, match=r"^llama\.cpp failed to decode"):  # there is no such token
            backend.eval_batch([(two, ids), (one, [*ids[:200], 1 << 20])])
        assert (one.length, two.length) == (30, 0)
        assert backend.eval(two, ids[:300]).shape == (backend.vocabulary_size,)


@pytest.mark.parametrize("context", [256, 768])
def test_a_full_context_leaves_the_sequence_as_it_was(tiny_model: Path, context: int) -> None:
    with LlamaCpp(tiny_model, context=context, threads=1, cache="f32") as backend:
        ids = backend.tokenize(TEXT, False)
        sequence = backend.new_sequence()
        backend.eval(sequence, ids[:20])
        for size in (context + 1, context - 19):  # of the first, a part finds room before the rest does not
            with pytest.raises(ContextFull, match=rf"^no room for {size} tokens after 20 in a context of {context}$"):
                backend.eval(sequence, (ids * 60)[:size])
            assert sequence.length == 20
        same(backend.eval(sequence, ids[20:]).copy(), fresh(backend, ids))
        backend.eval(sequence, (ids * 60)[: context - 2 * len(ids)])
        backend.truncate(sequence, 0)
        assert backend.eval(sequence, (ids * 60)[:context]).shape == (backend.vocabulary_size,)


def test_slots_are_counted(backend: LlamaCpp) -> None:
    sequences = []
    with pytest.raises(RuntimeError, match=r"^all 16 sequences are in use; release one$"):
        for _ in range(17):
            sequences.append(backend.new_sequence())
    with pytest.raises(RuntimeError, match="in use"):
        backend.fork(sequences[0], 0)
    backend.release(sequences.pop())
    sequences.append(backend.new_sequence())
    assert sorted(s.slot for s in sequences) == list(range(16))
    for sequence in sequences:
        backend.release(sequence)


@pytest.mark.parametrize("name", [b"<|end|>", b"<|system|>", b"<|user|>", b"<|assistant|>"])
def test_a_text_never_becomes_a_control_token(backend: LlamaCpp, name: bytes) -> None:
    (control,) = backend.tokenize(name, True)
    assert backend.piece(control) is None
    ids = backend.tokenize(b"a " + name + b" b", False)
    assert control not in ids
    assert b"".join(backend.piece(t) or b"" for t in ids) == b"a " + name + b" b"
    assert (control in backend.end_tokens) == (name == b"<|end|>")


@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_tokens_spell_the_text(backend: LlamaCpp, text: str) -> None:
    ids = backend.tokenize(text.encode(), False)
    assert b"".join(backend.piece(t) or b"" for t in ids) == text.encode()
    assert not backend.end_tokens & set(ids) and (backend.bos is None or backend.bos not in ids)


def test_what_is_told_of_the_model(backend: LlamaCpp) -> None:
    assert (backend.context, backend.bos, len(backend.end_tokens)) == (1024, None, 1)
    assert backend.chat_template is not None and "add_generation_prompt" in backend.chat_template
    assert backend.template_tokens == {"bos_token": "", "eos_token": "<|end|>"}
    pieces = [backend.piece(t) for t in range(backend.vocabulary_size)]
    assert {bytes((b,)) for b in range(256)} <= set(pieces) and b"" not in pieces


def test_a_file_that_cannot_be_loaded(tmp_path: Path) -> None:
    path = tmp_path / "no.gguf"
    path.write_bytes(b"GGUF" + bytes(60))
    with pytest.raises(ModelError, match=r"no\.gguf: llama\.cpp cannot load it"):
        LlamaCpp(path)


def test_settings_that_the_library_does_not_have_are_refused() -> None:
    struct = lib.llama_model_default_params()
    with pytest.raises(
        RuntimeError, match=r"^llama-cpp-python's llama_model_params has no use_mmap; install 0\.3\.36$"
    ):
        native.set_fields(struct, use_mmap=True, n_gpu_layers=0)
    assert native.set_fields(struct, n_gpu_layers=0).n_gpu_layers == 0


# --- Adapters, on one layer of the tiny model: hidden size 32, four heads

Q, K = "blk.0.attn_q.weight", "blk.1.attn_k.weight"
Change = Callable[["Adapting"], object]


class Adapting(GGUFWriter):  # type: ignore[misc]
    """An adapter for two layers, which a test changes before it is written."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "llama")
        self.add_string("general.type", "adapter")
        self.add_string("adapter.type", "lora")
        self.add_float32("adapter.lora.alpha", 4.0)
        random = np.random.default_rng(2)
        for name in (Q, K):
            self.matrix(f"{name}.lora_a", random.standard_normal((2, 32)))
            self.matrix(f"{name}.lora_b", random.standard_normal((32, 2)))

    def matrix(self, name: str, values: np.ndarray | None = None, kind: type = np.float32) -> None:
        self.tensors[0].pop(name, None)
        self.add_tensor(name, np.ascontiguousarray(np.ones((2, 32)) if values is None else values, kind))

    def key(self, name: str, add: str, value: object) -> None:
        self.kv_data[0].pop(name, None)
        getattr(self, f"add_{add}")(name, value)

    def save(self) -> Path:
        self.write_header_to_file()
        self.write_kv_data_to_file()
        self.write_tensors_to_file()
        self.close()
        assert self.path
        return Path(self.path)


def test_an_adapter_is_added_to_its_model(tiny_model: Path, tmp_path: Path) -> None:
    """The same as a file whose weights have the low-rank matrices in them, and freed with it."""
    from gguf import GGUFReader

    writer = Adapting(tmp_path / "lora.gguf")
    pairs = {name: [writer.tensors[0][f"{name}.lora_{part}"].tensor for part in "ab"] for name in (Q, K)}
    adapter = writer.save()
    merged = tmp_path / "merged.gguf"
    merged.write_bytes(tiny_model.read_bytes())
    for tensor in GGUFReader(merged, "r+").tensors:
        if tensor.name in pairs:
            a, b = pairs[tensor.name]
            tensor.data[:] += 4.0 / 2 * b @ a
    ids = [5, 77, 3, 9, 120, 41]
    for _ in range(3):
        with LlamaCpp(tiny_model, threads=1, cache="f32", adapter=adapter) as one:
            ours = fresh(one, ids)
    with LlamaCpp(merged, threads=1, cache="f32") as two, LlamaCpp(tiny_model, threads=1, cache="f32") as plain:
        same(ours, fresh(two, ids))
        assert np.abs(ours - fresh(plain, ids)).max() > 0.1


UNFIT: dict[str, tuple[Change, str]] = {
    "a model": (lambda w: w.key("general.type", "string", "model"), "not a LoRA adapter (it is 'model')"),
    "of no type": (lambda w: w.kv_data[0].pop("general.type"), "not a LoRA adapter (it is 'model')"),
    "a number as type": (lambda w: w.key("general.type", "uint32", 3), "not a LoRA adapter (it is 3)"),
    "another kind": (lambda w: w.key("adapter.type", "string", "vera"), "not a LoRA adapter (it is 'adapter'"),
    "activated": (
        lambda w: w.key("adapter.alora.invocation_tokens", "array", [1, 2]),
        "activated LoRA (aLoRA) adapters cannot be used",
    ),
    "no alpha": (lambda w: w.kv_data[0].pop("adapter.lora.alpha"), "adapter.lora.alpha must be a 32-bit float"),
    "wide alpha": (lambda w: w.key("adapter.lora.alpha", "float64", 4.0), "adapter.lora.alpha must be a 32-bit float"),
    "an embedding": (
        lambda w: (w.matrix("token_embd.weight.lora_a", np.ones((2, 400))), w.matrix("token_embd.weight.lora_b")),
        "llama.cpp cannot apply token_embd.weight.lora_a at run time; merge the adapter instead",
    ),
    "a norm": (lambda w: w.matrix("blk.0.attn_norm.weight"), "llama.cpp cannot apply blk.0.attn_norm.weight at run"),
    "a norm's pair": (lambda w: w.matrix("blk.0.attn_norm.weight.lora_a"), "apply blk.0.attn_norm.weight.lora_a at"),
    "experts": (lambda w: w.matrix(f"{Q}.lora_a", np.ones((3, 2, 32))), "lora_a is F32 of shape (32, 2, 3), not a"),
    "integers": (lambda w: w.matrix(f"{Q}.lora_a", kind=np.int32), "lora_a is I32 of shape (32, 2), not a matrix"),
    "nothing": (lambda w: w.tensors[0].clear(), "the adapter has no tensors; convert it again"),
    "half of a pair": (lambda w: w.tensors[0].pop(f"{Q}.lora_b"), f"pair for '{Q}' is missing one component"),
    "columns": (lambda w: w.matrix(f"{Q}.lora_a", np.ones((2, 64))), f"tensor '{Q}' has incorrect shape"),
    "ranks": (lambda w: w.matrix(f"{Q}.lora_a", np.ones((3, 32))), "lora_a tensor is not transposed"),
    "layers": (
        lambda w: (w.matrix("blk.9.attn_q.weight.lora_a"), w.matrix("blk.9.attn_q.weight.lora_b")),
        "LoRA tensor 'blk.9.attn_q.weight' does not exist in base model",
    ),
    "architecture": (lambda w: w.key("general.architecture", "string", "qwen2"), "model arch and LoRA arch mismatch"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "message"), UNFIT.values(), ids=UNFIT.keys())
def test_an_adapter_that_does_not_fit(tiny_model: Path, tmp_path: Path, change: Change, message: str) -> None:
    """Each in one line; native code would end the process at some, and pass over others."""
    writer = Adapting(tmp_path / "lora.gguf")
    change(writer)
    with pytest.raises(ModelError, match=re.escape(message)) as caught:
        LlamaCpp(tiny_model, adapter=writer.save())
    assert str(caught.value).startswith(f"{tmp_path / 'lora.gguf'}: ") and "\n" not in str(caught.value)


def test_an_adapter_that_is_damaged(tiny_model: Path, tmp_path: Path) -> None:
    path = Adapting(tmp_path / "lora.gguf").save()
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(ModelError, match=r"lora\.gguf: damaged GGUF at byte"):
        LlamaCpp(tiny_model, adapter=path)


def test_the_names_of_tensors_that_can_be_adapted(tiny_model: Path) -> None:
    names = {tensor.name for tensor in read(tiny_model).tensors if adapter_file.ADAPTABLE.fullmatch(tensor.name)}
    assert len(names) == 15  # seven of each layer, and the output matrix
    assert not any("norm" in name or "embd" in name for name in names)


def test_one_module_imports_the_library() -> None:
    """It tells why where that fails. The baseline takes more of it, after that one."""
    package = Path(bioner_edge.__file__).parent
    root = package.parent
    files = [*package.rglob("*.py"), *(root / "convert").rglob("*.py"), *(root / "benchmarks").rglob("*.py")]
    found = {
        path.relative_to(root).as_posix()
        for path in files
        if re.search(r"^\s*(import|from) llama_cpp\b", path.read_text("utf-8"), re.MULTILINE)
    }
    assert found == {"bioner_edge/backends/native.py", "benchmarks/baselines/completions.py"}
