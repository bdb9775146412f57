"""The llama.cpp back end on a tiny random model: what sequences share, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import llama_cpp.llama_cpp as lib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import bioner_edge
from bioner_edge.backends import llama_cpp
from bioner_edge.backends.contract import ContextFull, Logits
from bioner_edge.backends.llama_cpp import LlamaCpp
from bioner_edge.errors import ModelError

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
    backend.release(sequence)
    again = backend.new_sequence()  # the same slot
    assert (again.slot, again.length) == (sequence.slot, 0)
    same(backend.eval(again, ids[:4]).copy(), fresh(backend, ids[:4]))
    backend.release(again)


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


def test_nothing_to_read_is_refused(backend: LlamaCpp) -> None:
    sequence = backend.new_sequence()
    with pytest.raises(ValueError, match="at least one token"):
        backend.eval(sequence, [])
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
        llama_cpp._set(struct, use_mmap=True, n_gpu_layers=0)
    assert llama_cpp._set(struct, n_gpu_layers=0).n_gpu_layers == 0


def test_few_modules_import_the_library() -> None:
    package = Path(bioner_edge.__file__).parent
    root = package.parent
    files = [*package.rglob("*.py"), *(root / "convert").rglob("*.py"), *(root / "benchmarks").rglob("*.py")]
    found = {
        path.relative_to(root).as_posix()
        for path in files
        if re.search(r"^\s*(import|from) llama_cpp\b", path.read_text("utf-8"), re.MULTILINE)
    }
    backends = {f"bioner_edge/backends/{name}.py" for name in ("llama_cpp", "llama_grammar", "vocab_only")}
    assert found == {*backends, "convert/quantize.py"}
