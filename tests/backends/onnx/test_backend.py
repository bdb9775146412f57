"""The onnxruntime back end on tiny random models of both kinds of caches: against numpy, and what is refused."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from bioner_edge import formats
from bioner_edge.backends.contract import ContextFull, Logits
from bioner_edge.backends.onnx import cache as onnx_cache
from bioner_edge.backends.onnx import session as onnx_session
from bioner_edge.backends.onnx.backend import OnnxRuntime
from bioner_edge.decoding.loop import Answer, decode
from bioner_edge.decoding.token_masks import TokenMask, Vocabulary
from bioner_edge.document import Document
from bioner_edge.errors import ModelError, UsageError
from bioner_edge.hardware.threads import cores
from bioner_edge.models.onnx import folder as onnx_folder
from bioner_edge.models.onnx.folder import check_confined
from bioner_edge.models.onnx.signature import signature

KINDS = ("shared", "grown")
TEXT = b"<Chemical>Naloxone</Chemical> reverses the antihypertensive effect of 29 = 0x5F\r\n!"
LONG = [int(n) for n in np.random.default_rng(5).integers(0, 250, 700)]
Change = Callable[[Any], object]


@pytest.fixture(scope="module")
def folders(toy: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same model with both kinds of caches."""
    root = tmp_path_factory.mktemp("toys")
    return {kind: toy.make(root / kind, kind) for kind in KINDS}


@pytest.fixture(scope="module", params=KINDS)
def backend(folders: dict[str, Path], request: pytest.FixtureRequest) -> Iterator[OnnxRuntime]:
    with OnnxRuntime(folders[request.param], threads=1) as loaded:
        yield loaded


def fresh(backend: OnnxRuntime, ids: list[int]) -> Logits:
    sequence = backend.new_sequence()
    logits = backend.eval(sequence, ids).copy()
    backend.release(sequence)
    return logits


def close(left: Logits, right: Any) -> None:
    assert left.dtype == np.float32 and left.shape == right.shape
    assert np.abs(left - right).max() < 1e-5 * right.std() and right.std() > 0.5


# --- What is read


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_logits_are_those_of_numpy(backend: OnnxRuntime, toy: Any, size: int) -> None:
    ids = backend.tokenize(TEXT, False)
    sequence = backend.new_sequence()
    for at in range(0, len(ids), size):
        logits = backend.eval(sequence, ids[at : at + size])
    assert logits.shape == (backend.vocabulary_size,) and sequence.length == len(ids)
    close(logits, toy.logits(ids))
    backend.release(sequence)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [("shared", {"pruned": False}), ("grown", {"pruned": False}), ("shared", {"positions": True})],
    ids=["shared, logits of all", "grown, logits of all", "shared, positions asked for"],
)
def test_what_a_graph_may_do_otherwise(toy: Any, tmp_path: Path, kind: str, settings: dict[str, bool]) -> None:
    with OnnxRuntime(toy.make(tmp_path / "model", kind, **settings), threads=1) as backend:
        for ids in (LONG[:50], LONG[:1], LONG):
            close(fresh(backend, ids), toy.logits(ids))
        several = [backend.new_sequence() for _ in range(3)]
        ids_of = (LONG[:4], LONG[4:5], LONG[5:6])
        logits = backend.eval_batch(list(zip(several, ids_of, strict=True)))
        for row, ids in zip(logits, ids_of, strict=True):
            close(row, toy.logits(ids))


def test_more_than_one_run(backend: OnnxRuntime, toy: Any) -> None:
    assert len(LONG) > 2 * onnx_session.MOST_TOKENS
    sequence = backend.new_sequence()
    backend.eval(sequence, LONG[:600])
    close(backend.eval(sequence, LONG[600:]), toy.logits(LONG))
    backend.release(sequence)


def test_logits_are_not_copied(backend: OnnxRuntime) -> None:
    sequence = backend.new_sequence()
    first = backend.eval(sequence, [1, 2])
    assert np.shares_memory(first, backend.eval(sequence, [3]))
    backend.release(sequence)


def test_two_runs_are_the_same_bit_for_bit(folders: dict[str, Path]) -> None:
    for folder in folders.values():
        with OnnxRuntime(folder, threads=2) as one, OnnxRuntime(folder, threads=2) as two:
            assert fresh(one, LONG).tobytes() == fresh(one, LONG).tobytes() == fresh(two, LONG).tobytes()


# --- What sequences share


def test_forks_share_and_do_not_disturb(backend: OnnxRuntime) -> None:
    first = backend.new_sequence()
    backend.eval(first, LONG[:20])
    second = backend.fork(first, 12)
    third = backend.fork(second, 0)
    assert (first.length, second.length, third.length) == (20, 12, 0)
    close(backend.eval(second, LONG[25:30]), fresh(backend, LONG[:12] + LONG[25:30]))
    close(backend.eval(third, LONG[:5]), fresh(backend, LONG[:5]))
    close(backend.eval(first, LONG[20:80]), fresh(backend, LONG[:80]))
    backend.release(first)
    close(backend.eval(second, LONG[:3]), fresh(backend, LONG[:12] + LONG[25:30] + LONG[:3]))
    backend.release(second)
    backend.release(third)


def test_what_is_truncated_is_forgotten_bit_for_bit(backend: OnnxRuntime) -> None:
    sequence, other = backend.new_sequence(), backend.new_sequence()
    backend.eval(sequence, LONG[:9])
    backend.eval(sequence, LONG[100:500])
    backend.truncate(sequence, 9)
    assert sequence.length == 9
    backend.eval(other, LONG[:9])
    for ids in (LONG[15:20], LONG[20:21]):
        ours = backend.eval(sequence, ids).tobytes()
        assert ours == backend.eval(other, ids).tobytes()
    backend.truncate(sequence, 0)
    assert backend.eval(sequence, LONG[:30]).tobytes() == fresh(backend, LONG[:30]).tobytes()
    slot = sequence.slot
    backend.release(sequence)
    again = backend.new_sequence()
    assert (again.slot, again.length) == (slot, 0)
    backend.release(again)
    backend.release(other)


@pytest.mark.parametrize("kind", KINDS)
def test_any_order_of_all_of_it(folders: dict[str, Path], toy: Any, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Buffers begin with NaN: one position that was never written would be seen in all that follow."""
    monkeypatch.setattr(onnx_cache, "_lazy", lambda shape: np.full(shape, np.nan, np.float32))
    random = np.random.default_rng(3)
    with OnnxRuntime(folders[kind], threads=1) as backend:
        live: list[tuple[Any, list[int]]] = []
        for _ in range(400):
            act = random.integers(6)
            if act == 0 or not live:
                if len(live) == 16:
                    backend.release(live.pop(int(random.integers(16)))[0])
                live.append((backend.new_sequence(), []))
            elif act == 1 and len(live) < 16:
                sequence, ids = live[random.integers(len(live))]
                upto = int(random.integers(sequence.length + 1))
                live.append((backend.fork(sequence, upto), ids[:upto]))
            elif act == 2:
                sequence, ids = live[random.integers(len(live))]
                length = int(random.integers(sequence.length + 1))
                backend.truncate(sequence, length)
                del ids[length:]
            elif act == 3:
                chosen = [live[n] for n in random.permutation(len(live))[: random.integers(1, 6)]]
                new = [random.integers(0, 260, random.integers(1, 3)).tolist() for _ in chosen]
                for (_, ids), own in zip(chosen, new, strict=True):
                    ids += own
                batch = [(sequence, own) for (sequence, _), own in zip(chosen, new, strict=True)]
                for row, (_, ids) in zip(backend.eval_batch(batch), chosen, strict=True):
                    close(row, toy.logits(ids))
            else:
                sequence, ids = live[random.integers(len(live))]
                new = random.integers(0, 260, random.integers(1, 30)).tolist()
                ids += new
                close(backend.eval(sequence, new), toy.logits(ids))
            assert all(sequence.length == len(ids) for sequence, ids in live)


def test_the_cache_is_written_in_place(folders: dict[str, Path]) -> None:
    with OnnxRuntime(folders["shared"], threads=1) as backend:
        first, second = backend.new_sequence(), backend.new_sequence()
        cache: Any = backend._cache
        backend.eval(first, LONG[:7])
        bound = dict(cache._bindings)
        backend.eval(first, LONG[7:8])
        assert cache._bindings == bound and list(bound) == [(first.slot, 1)]
        buffers = cache._buffers
        assert buffers["0.key"].shape == (16, 2, backend.context, 16)
        for buffer in buffers.values():
            assert buffer[first.slot, :, :8].all() and not buffer[first.slot, :, 8:].any()
            assert not buffer[1:].any()
        third = backend.fork(first, 5)
        for buffer in buffers.values():
            assert buffer[third.slot, :, :5].tobytes() == buffer[first.slot, :, :5].tobytes()
            assert not buffer[third.slot, :, 5:].any() and not buffer[second.slot].any()
        form = signature(check_confined(folders["shared"]), folders["shared"] / "model.onnx")
        assert form.bytes_per_position == sum(buffer[0, :, 0].nbytes for buffer in buffers.values())


def test_slots_are_counted(backend: OnnxRuntime) -> None:
    sequences = []
    with pytest.raises(RuntimeError, match=r"^all 16 sequences are in use; release one$"):
        for _ in range(17):
            sequences.append(backend.new_sequence())
    with pytest.raises(RuntimeError, match="in use"):
        backend.fork(sequences[0], 0)
    assert [s.slot for s in sequences] == list(range(16))
    for n, sequence in enumerate(sequences):
        backend.eval(sequence, LONG[n : n + 3])
    close(backend.eval(sequences[15], LONG[18:20]), fresh_elsewhere(backend, sequences, LONG[15:20]))
    backend.release(sequences.pop(4))
    backend.release(sequences.pop(4))
    assert [backend.new_sequence().slot, backend.new_sequence().slot] == [4, 5]
    for slot in range(16):
        backend.release(onnx_sequence(slot))


def onnx_sequence(slot: int) -> Any:
    from bioner_edge.backends.contract import CachedSequence

    return CachedSequence(slot)


def fresh_elsewhere(backend: OnnxRuntime, sequences: list[Any], ids: list[int]) -> Logits:
    """`fresh`, where no slot is free: one gives up its own."""
    backend.truncate(sequences[0], 0)
    return backend.eval(sequences[0], ids).copy()


@pytest.mark.skipif(sys.platform != "linux", reason="reads the memory that is taken in /proc")
def test_slots_take_memory_as_they_are_filled() -> None:
    """A position in each slot takes a page for each head: with pages of 2 MB it would be all of it."""

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    before = resident()
    buffer = onnx_cache._lazy((16, 8, 2048, 128))
    assert buffer.nbytes == 128 << 20 and resident() - before < 1 << 20
    buffer[:, :, 0] = 1
    assert 0 < resident() - before < 2 << 20


def test_addresses_that_are_refused(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    mapped = onnx_cache.mmap.mmap

    def refused(file: int, *rest: Any, **settings: Any) -> Any:
        if file == -1:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        return mapped(file, *rest, **settings)

    with OnnxRuntime(folders["grown"], threads=1) as backend:
        sequence = backend.new_sequence()
        for token in LONG[:2]:
            backend.eval(sequence, [token])
        monkeypatch.setattr(onnx_cache.mmap, "mmap", refused)
        for token in LONG[2:6]:  # two buffers in turn are all that it needs
            backend.eval(sequence, [token])
        other = backend.fork(sequence, 3)
        for _ in range(20):
            with pytest.raises(ModelError, match="no room for"):
                backend.fork(sequence, 2)
        assert (sequence.length, other.length) == (6, 3)
    for folder in folders.values():
        with pytest.raises(
            ModelError, match=r"^no room for \d+ bytes of a KV cache: .*; free some memory, or take a sm"
        ):
            OnnxRuntime(folder, threads=1)


def test_only_what_is_filled_can_be_shared_or_cut(backend: OnnxRuntime) -> None:
    sequence = backend.new_sequence()
    backend.eval(sequence, [1, 2, 3])
    with pytest.raises(ValueError, match=r"^3 positions are filled, not 4$"):
        backend.fork(sequence, 4)
    with pytest.raises(ValueError, match=r"^3 positions are filled, not 4$"):
        backend.truncate(sequence, 4)
    backend.release(sequence)


# --- Batches


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many sequences each run of a graph read."""
    seen: list[int] = []
    run = onnx_session.Step.run

    def counted(self: Any, binding: Any, pasts: Any, ids: Any) -> Logits:
        seen.append(len(pasts))
        return run(self, binding, pasts, ids)

    monkeypatch.setattr(onnx_session.Step, "run", counted)
    return seen


BATCHES: dict[str, tuple[list[int], list[int], list[int]]] = {  # slots in order, tokens of each, rows of each run
    "neighbours": ([0, 1, 2, 3], [1, 1, 1, 1], [4]),
    "in any order": ([3, 0, 2, 1], [1, 1, 1, 1], [4]),
    "with a gap": ([0, 1, 4, 5, 6, 9], [1] * 6, [2, 3, 1]),
    "some with more": ([0, 1, 2, 3, 4], [1, 1, 3, 1, 1], [2, 1, 2]),
    "all with more": ([5, 4], [2, 2], [1, 1]),
    "one": ([7], [1], [1]),
    "all": ([*range(15, -1, -1)], [1] * 16, [16]),
    "none": ([], [], []),
}


@pytest.mark.parametrize(("slots", "sizes", "expected"), BATCHES.values(), ids=BATCHES.keys())
def test_a_batch_is_the_same_as_one_by_one(
    backend: OnnxRuntime, toy: Any, runs: list[int], slots: list[int], sizes: list[int], expected: list[int]
) -> None:
    sequences = [backend.new_sequence() for _ in range(16)]
    texts = [LONG[3 * slot : 5 * slot + 1] for slot in slots]  # of different lengths
    for slot, text in zip(slots, texts, strict=True):
        if len(text) > 1:
            backend.eval(sequences[slot], text[:-1])
        backend.truncate(sequences[slot], max(0, len(text) - 1))
    new = [LONG[300 + slot : 300 + slot + size] for slot, size in zip(slots, sizes, strict=True)]
    runs.clear()
    chosen = [sequences[slot] for slot in slots]
    logits = backend.eval_batch(list(zip(chosen, new, strict=True)))
    assert runs == (expected if backend._cache.together else [1] * len(slots))
    for row, sequence, text, own in zip(logits, chosen, texts, new, strict=True):
        assert sequence.length == len(text) - 1 + len(own)
        close(row, toy.logits(text[:-1] + own))
    for sequence in sequences:
        backend.release(sequence)


def test_a_batch_that_cannot_be_read(backend: OnnxRuntime) -> None:
    one, two = backend.new_sequence(), backend.new_sequence()
    backend.eval(one, LONG[:2])
    for batch in ([(one, [1, 2]), (two, [5000])], [(two, [1]), (one, [1] * 300 + [5000])], [(one, [1]), (two, [5000])]):
        with pytest.raises(ModelError, match="cannot run it"):  # the graph knows no such token
            backend.eval_batch(batch)
        assert (one.length, two.length) == (2, 0)
    close(backend.eval(one, LONG[2:5]), fresh(backend, LONG[:5]))
    with pytest.raises(ContextFull, match=rf"^no room for 1020 tokens after 5 in a context of {backend.context}$"):
        backend.eval_batch([(two, [1]), (one, [5] * 1020)])
    backend.release(one)
    backend.release(two)


# --- What has no room


@pytest.mark.parametrize("context", [64, 768])
@pytest.mark.parametrize("kind", KINDS)
def test_a_full_context_leaves_the_sequence_as_it_was(folders: dict[str, Path], kind: str, context: int) -> None:
    with OnnxRuntime(folders[kind], context=context, threads=1) as backend:
        assert backend.context == context
        sequence = backend.new_sequence()
        backend.eval(sequence, LONG[:20])
        for size in (context + 1, context - 19):
            with pytest.raises(ContextFull, match=rf"^no room for {size} tokens after 20 in a context of {context}$"):
                backend.eval(sequence, (LONG * 2)[:size])
            assert sequence.length == 20
        close(backend.eval(sequence, LONG[20:50]), fresh(backend, LONG[:50]))
        backend.truncate(sequence, 0)
        backend.eval(sequence, (LONG * 2)[:context])
        with pytest.raises(ContextFull, match=rf"^no room for 1 tokens after {context} in"):
            backend.eval(sequence, [1])


def test_a_later_run_that_fails_leaves_the_sequence_as_it_was(backend: OnnxRuntime) -> None:
    sequence = backend.new_sequence()
    backend.eval(sequence, LONG[:20])
    with pytest.raises(ModelError, match=r"model\.onnx: onnxruntime cannot run it: Gather node"):
        backend.eval(sequence, [*LONG[:400], 5000])
    assert sequence.length == 20
    close(backend.eval(sequence, LONG[20:50]), fresh(backend, LONG[:50]))
    backend.release(sequence)


# --- What is told of the model


def test_what_is_told_of_the_model(toy: Any, tmp_path: Path) -> None:
    folder = toy.make(
        tmp_path / "model", "shared", context=4096, bos=7, end_tokens=[256, 9], bos_token="<s>", chat_template="{{ x }}"
    )
    with OnnxRuntime(folder) as backend:
        assert (backend.context, backend.bos, backend.end_tokens) == (2048, 7, {256, 9})
        assert backend.template_tokens == {"bos_token": "<s>", "eos_token": "<|end|>"}
        assert (backend.chat_template, backend.vocabulary_size) == ("{{ x }}", toy.vocabulary_size)
        assert [backend.piece(token) for token in (65, 257, 256, 9, 263)] == [b"A", b"in", None, None, None]
        assert backend.tokenize(b"<|end|>", True) == [256] and 256 not in backend.tokenize(b"<|end|>", False)
        assert backend._cache._session.get_session_options().intra_op_num_threads == cores()  # type: ignore[attr-defined]
    with OnnxRuntime(folder, threads=3, context=4096) as backend:
        options = backend._cache._session.get_session_options()  # type: ignore[attr-defined]
        assert (options.intra_op_num_threads, options.inter_op_num_threads, backend.context) == (3, 1, 4096)
    for context in (4097, -1):
        with pytest.raises(
            UsageError, match=rf"context of {context} tokens was requested, but the model was trained for 4096"
        ):
            OnnxRuntime(folder, context=context)


def test_closing_twice(folders: dict[str, Path]) -> None:
    for folder in folders.values():
        backend = OnnxRuntime(folder, threads=1)
        sequence = backend.new_sequence()
        logits = backend.eval(sequence, [1, 2])
        backend.close()
        backend.close()
        assert np.isfinite(logits).all()
        with pytest.raises(RuntimeError, match="in use"):
            backend.new_sequence()


# --- Folders that are refused


def without(name: str) -> Change:
    return lambda draft: (draft.inputs.pop(name, None), draft.outputs.pop(name, None))


def retyped(name: str, kind: str, *dims: int | str) -> Change:
    return lambda d: (d.inputs if name in d.inputs else d.outputs).update({name: (kind, list(dims))})


UNFIT: dict[str, tuple[Change, str]] = {
    "no mask": (
        without("attention_mask"),
        "missing input attention_mask; expected input_ids, attention_mask and perhaps position_ids int64 [B, n], "
        "past_key_values.N.key and .value f32 [B, heads, past, size] from N = 0 on, to logits f32 [B, n, vocabulary] "
        "and present.N.key and .value; convert it again",
    ),
    "no ids": (without("input_ids"), "missing input input_ids; expected"),
    "no logits": (without("logits"), "missing output logits; expected"),
    "no cache": (
        lambda d: [without(name)(d) for name in [*d.inputs, *d.outputs] if "." in name],
        "missing inputs past_key_values.0.key, past_key_values.0.value; missing outputs present.0.key, present.0.value",
    ),
    "a gap between layers": (
        lambda d: [d.inputs.update({n.replace("1", "3"): d.inputs.pop(n)}) for n in list(d.inputs) if ".1." in n],
        "missing inputs past_key_values.1.key, past_key_values.1.value, past_key_values.2.key, "
        "past_key_values.2.value; missing outputs present.2.key, present.2.value, present.3.key, present.3.value; exp",
    ),
    "no value": (without("present.1.value"), "missing output present.1.value; expected"),
    "one more": (
        lambda d: d.inputs.update({"token_type_ids": ("int64", ["B", "n"])}),
        "unexpected input token_type_ids int64 [B, n]; expected",
    ),
    "one with a name that no terminal likes": (
        lambda d: d.inputs.update({"a\x1b[31m\n": ("int64", ["B", "n"])}),
        "unexpected input a\ufffd[31m\ufffd int64 [B, n]; expected",
    ),
    "many more": (
        lambda d: d.inputs.update({f"cross.{n}": ("f32", [1]) for n in range(9)}),
        "unexpected inputs cross.0 f32 [1], cross.1 f32 [1], cross.2 f32 [1], cross.3 f32 [1] and 5 more; expected",
    ),
    "half-precision logits": (retyped("logits", "f16", "B", 1, 264), "unfit output logits f16 [B, 1, 264]; expected"),
    "a vocabulary of any size": (retyped("logits", "f32", "B", 1, "V"), "unfit output logits f32 [B, 1, V]; expected"),
    "no vocabulary": (retyped("logits", "f32", "B", 1, 0), "unfit output logits f32 [B, 1, 0]; expected"),
    "narrow ids": (retyped("input_ids", "int32", "B", "n"), "unfit input input_ids int32 [B, n]; expected"),
    "a mask of rank 4": (
        retyped("attention_mask", "int64", "B", 1, "n", "total"),
        "unfit input attention_mask int64 [B, 1, n, total]; expected",
    ),
    "a mask of rank 3": (
        retyped("attention_mask", "int64", "B", "n", "total"),
        "unfit input attention_mask int64 [B, n, total]; expected",
    ),
    "a half-precision cache": (
        retyped("past_key_values.1.key", "f16", "B", 2, "past", 16),
        "unfit input past_key_values.1.key f16 [B, 2, past, 16]; expected",
    ),
    "a cache of a fixed length": (
        retyped("present.0.key", "f32", "B", 2, 77, 16), "unfit output present.0.key f32 [B, 2, 77, 16]; expected"
    ),
    "heads of any number": (
        retyped("past_key_values.0.value", "f32", "B", "heads", "past", 16),
        "unfit input past_key_values.0.value f32 [B, heads, past, 16]; expected",
    ),
    "a batch of one": (retyped("input_ids", "int64", 1, "n"), "unfit input input_ids int64 [1, n]; expected"),
    "past and present of other sizes": (
        retyped("present.1.value", "f32", "B", 2, "total", 32),
        "present.1.value of another shape than past_key_values.1.value; expected",
    ),
    "several faults": (
        lambda d: (without("attention_mask")(d), retyped("logits", "f16", "B", 1, 264)(d)),
        "missing input attention_mask; unfit output logits f16 [B, 1, 264]; expected",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "message"), UNFIT.values(), ids=UNFIT.keys())
def test_a_graph_with_other_inputs_or_outputs(toy: Any, tmp_path: Path, change: Change, message: str) -> None:
    folder = toy.make(tmp_path / "model", "shared", change)
    with pytest.raises(ModelError, match=re.escape(f"graph that can be run here: {message}")) as caught:
        OnnxRuntime(folder, threads=1)
    assert str(caught.value).startswith(f"{folder / 'model.onnx'}: ") and "\n" not in str(caught.value)


def renamed(old: str, new: str) -> Change:
    """Another operator, with the same inputs."""
    return lambda draft: [setattr(node, "op_type", new) for node in draft.nodes if node.op_type == old]


def windowed(draft: Any) -> None:
    """Of the longer past, the last three positions are returned."""
    for node in draft.nodes:
        for names in (node.input, node.output):
            names[:] = [f"{name}.all" if name.startswith("present.") else name for name in names]
    for name in [name for name in draft.outputs if name.startswith("present.")]:
        draft.node("Slice", f"{name}.all", draft.axes(-3), draft.axes(1 << 40), draft.axes(2), out=[name])


def test_a_cache_of_the_other_kind_is_never_used(toy: Any, tmp_path: Path) -> None:
    for kind, other in (KINDS, KINDS[::-1]):
        folder = toy.make(tmp_path / kind, kind)
        record = json.loads((folder / "runtime.json").read_text())
        (folder / "runtime.json").write_text(json.dumps(record | {"cache": other}))
        with pytest.raises(ModelError) as caught:
            OnnxRuntime(folder, threads=1)
        told = f"the graph's cache is {kind}, but runtime.json says {other}; convert it again"
        assert str(caught.value) == f"{folder / 'model.onnx'}: {told}"


def test_a_cache_of_neither_kind(toy: Any, tmp_path: Path) -> None:
    folder = toy.make(tmp_path / "window", "grown", windowed)
    with pytest.raises(ModelError, match=r"neither shared nor grown: 2 tokens after 5 give 3 positions; convert"):
        OnnxRuntime(folder, threads=1)


def test_tokens_that_the_graph_does_not_know(toy: Any, tmp_path: Path) -> None:
    for name, runtime, message in (
        ("bos", {"bos": 264}, r"runtime\.json: 'bos' has the token 264, but the graph knows 264; convert"),
        ("end", {"end_tokens": [256, 999]}, r"runtime\.json: 'end_tokens' has the token 999, but the graph knows 264"),
    ):
        with pytest.raises(ModelError, match=message):
            OnnxRuntime(toy.make(tmp_path / name, "shared", **runtime))
    folder = toy.make(tmp_path / "words", "shared")
    record = json.loads((folder / "tokenizer.json").read_text())
    record["model"]["vocab"]["zzz"] = 264
    (folder / "tokenizer.json").write_text(json.dumps(record))
    with pytest.raises(ModelError, match=r"tokenizer\.json: 265 tokens, but the graph knows 264; they are not of one"):
        OnnxRuntime(folder)


DAMAGED: dict[str, tuple[Change, str]] = {
    "an operator that nobody knows": (renamed("Tanh", "Tanhh"), "onnxruntime cannot load it: "),
    "matrices that do not fit": (
        lambda d: d.tensors.update({"0.o": np.zeros((7, 9), np.float32)}), "onnxruntime cannot load it: "
    ),
    "a table that is too short": (
        lambda d: d.tensors.update({"embedding": np.zeros((1, 32), np.float32)[:0]}), "its cache is neither shared nor"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "message"), DAMAGED.values(), ids=DAMAGED.keys())
def test_what_onnxruntime_refuses_is_told_in_one_line(
    toy: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str], change: Change, message: str
) -> None:
    folder = toy.make(tmp_path / "model", "shared", change)
    with pytest.raises(ModelError, match=message) as caught:
        OnnxRuntime(folder, threads=1)
    told = str(caught.value)
    assert told.startswith(f"{folder / 'model.onnx'}: ") and told.endswith("; convert it again")
    assert "\n" not in told and told.count(str(folder)) == 1
    assert not re.search(r"ONNXRuntimeError|Status Message|\.cc:", told)
    assert capfd.readouterr() == ("", "")


def test_what_onnxruntime_says_is_shortened() -> None:
    said = (
        "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned while running Where node. "
        "Name:'/model/Where' Status Message: /onnxruntime_src/onnxruntime/core/x.cc:540 void f() bad\n\tshape\x1b[0m"
    )
    assert onnx_session.reason(RuntimeError(said)) == "Where node. void f() bad shape\ufffd[0m"
    assert onnx_session.reason(MemoryError()) == "MemoryError"


def test_an_old_onnxruntime_needs_hashes_where_data_lie_outside(
    toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = toy.make(tmp_path / "model", "shared")
    assert (folder / "model.onnx.data").exists()
    asked: list[Path] = []
    monkeypatch.setattr(onnx_folder, "check_hashes", asked.append)
    for version, wanted in (
        ("1.26.0", []),
        ("1.31.1+cu", []),
        ("2.0.0", []),
        ("1.25.3", [folder]),
        ("1.9.0", [folder]),
    ):
        monkeypatch.setattr(onnxruntime, "__version__", version)
        OnnxRuntime(folder, threads=1).close()
        assert asked == wanted, version
        asked.clear()
    monkeypatch.undo()
    monkeypatch.setattr(onnxruntime, "__version__", "1.25.3")
    with pytest.raises(ModelError, match=r"without manifest\.json"):
        OnnxRuntime(folder, threads=1)


# --- The whole way


DOCUMENT = Document(
    "d",
    "Naloxone reverses the effect in 12 of 30 patients, and renal failure followed. Of 212 others, treated with "
    "lisinopril for hypertension, 19 developed a dry cough that ended when losartan was given.",
)


def answer(folder: Path) -> Answer:
    labels = ["Chemical", "Disease"]
    with OnnxRuntime(folder, threads=1) as backend:
        mask = TokenMask(formats.get("multi_tag").constraint(DOCUMENT, labels), Vocabulary(backend))
        sequence = backend.new_sequence()
        return decode(backend, sequence, backend.tokenize(b"Tag: " + DOCUMENT.text.encode(), False), mask, budget=400)


def test_answers_under_a_constraint_are_the_same_with_both_caches(folders: dict[str, Path]) -> None:
    shared, grown = answer(folders["shared"]), answer(folders["grown"])
    assert re.sub("</?(Chemical|Disease)>", "", shared.text) == DOCUMENT.text and not shared.closed
    assert len(shared.choices) > 20 and shared.calls > 20
    assert (shared.data, shared.calls, shared.fed) == (grown.data, grown.calls, grown.fed)
    for ours, theirs in zip(shared.choices, grown.choices, strict=True):
        assert (ours.start, ours.end) == (theirs.start, theirs.end)
        assert ours.probability == pytest.approx(theirs.probability, abs=1e-5)
        assert ours.removed_mass == pytest.approx(theirs.removed_mass, abs=1e-5)


HEAVY = ("torch", "transformers", "onnx", "onnx_ir", "onnxruntime_genai", "optimum", "gguf", "llama_cpp", "safetensors")


def test_nothing_heavy_is_imported(folders: dict[str, Path]) -> None:
    """A model runs on numpy, onnxruntime and tokenizers; whatever else were imported would be an error."""
    script = f"""
import sys
sys.modules.update(dict.fromkeys({HEAVY!r}))
import bioner_edge
from pathlib import Path
from bioner_edge.backends.onnx.backend import OnnxRuntime
with OnnxRuntime(Path(sys.argv[1]), threads=1) as backend:
    sequence = backend.new_sequence()
    print(int(backend.eval(sequence, backend.tokenize(b"in", False)).argmax()))
"""
    for folder in folders.values():
        done = subprocess.run([sys.executable, "-c", script, folder], capture_output=True, text=True, timeout=120)
        assert (done.stderr, done.returncode) == ("", 0)
        assert done.stdout.strip().isdigit()
