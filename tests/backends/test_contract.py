"""What every back end does at the bounds of its sequences, and what becomes of a document that has no room."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scheduler import schedule

from bioner_edge.backends.contract import Backend, CachedSequence, ContextFull, Logits
from bioner_edge.backends.scripted import Scripted
from bioner_edge.decoding.loop import decode, generate
from bioner_edge.decoding.token_masks import TokenMask, Vocabulary
from bioner_edge.document import Document
from bioner_edge.errors import BionerError, InputError
from bioner_edge.extract import Extractor
from bioner_edge.formats import multi_tag
from bioner_edge.io.inputs import Inputs
from bioner_edge.io.output import Output
from bioner_edge.run import run

IDS = [10, 40, 7, 99, 3, 3, 12]


def _scripted(_: pytest.FixtureRequest) -> Backend:
    """Its logits tell what it read."""
    return Scripted(lambda ids: np.array([hash((*ids, n)) % 1000 for n in range(257)], np.float32), context=64)


def _llama_cpp(request: pytest.FixtureRequest) -> Backend:
    from bioner_edge.backends.llama_cpp import LlamaCpp

    return LlamaCpp(request.getfixturevalue("tiny_model"), context=256, threads=1, cache="f32")


def _onnx(kind: str) -> Callable[[pytest.FixtureRequest], Backend]:
    def made(request: pytest.FixtureRequest) -> Backend:
        from bioner_edge.backends.onnx.backend import OnnxRuntime

        folder = request.getfixturevalue("tmp_path_factory").mktemp("toy") / kind
        return OnnxRuntime(request.getfixturevalue("toy").make(folder, kind), context=64, threads=1)

    return made


@pytest.fixture(
    scope="module",
    params=[_scripted, _llama_cpp, _onnx("shared"), _onnx("grown")],
    ids=["scripted", "llama.cpp", "onnx shared", "onnx grown"],
)
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    made: Backend = request.param(request)
    yield made
    made.close()


@pytest.fixture
def sequence(backend: Backend) -> Iterator[CachedSequence]:
    """One with all of IDS, which must be there at the end as it was."""
    made = backend.new_sequence()
    before = backend.eval(made, IDS).copy()
    yield made
    assert made.length == len(IDS)
    backend.truncate(made, len(IDS) - 1)
    same(backend.eval(made, IDS[-1:]), before)
    backend.release(made)


def same(left: Logits, right: Logits) -> None:
    """Up to the rounding of float32: kernels for several tokens add up in another order than those for one."""
    np.testing.assert_allclose(left, right, atol=2e-4)


@pytest.mark.parametrize("upto", [len(IDS) + 1, 10_000, -1])
def test_no_fork_beyond_what_is_filled(backend: Backend, sequence: CachedSequence, upto: int) -> None:
    for _ in range(40):  # no slot is lost by it
        with pytest.raises(ValueError, match=rf"^7 positions are filled, not {upto}$"):
            backend.fork(sequence, upto)


@pytest.mark.parametrize("upto", [0, 3, len(IDS)])
def test_a_fork_of_none_some_or_all(backend: Backend, sequence: CachedSequence, upto: int) -> None:
    fork, fresh = backend.fork(sequence, upto), backend.new_sequence()
    assert fork.length == upto and fork.slot != sequence.slot
    same(backend.eval(fork, [5, 6]).copy(), backend.eval(fresh, [*IDS[:upto], 5, 6]))
    backend.release(fork)
    backend.release(fresh)


@pytest.mark.parametrize("length", [len(IDS) + 1, 10_000, -1])
def test_no_truncating_to_what_is_not_filled(backend: Backend, sequence: CachedSequence, length: int) -> None:
    with pytest.raises(ValueError, match=rf"^7 positions are filled, not {length}$"):
        backend.truncate(sequence, length)


def test_truncating_to_all_and_to_none(backend: Backend, sequence: CachedSequence) -> None:
    backend.truncate(sequence, len(IDS))
    backend.truncate(sequence, 0)
    assert sequence.length == 0
    backend.truncate(sequence, 0)
    backend.eval(sequence, IDS)


def test_a_released_sequence_is_no_more(backend: Backend, sequence: CachedSequence) -> None:
    """Its slot may be that of another by then, which nothing of it may reach."""
    gone = backend.fork(sequence, 3)
    slot = gone.slot
    backend.release(gone)
    heir = backend.new_sequence()
    assert heir.slot in (slot, slot + 1)
    backend.eval(heir, IDS[:3])
    uses: list[Callable[[], Any]] = [
        lambda: backend.eval(gone, [1]),
        lambda: backend.eval(gone, []),
        lambda: backend.eval_batch([(heir, [1]), (gone, [1])]),
        lambda: backend.fork(gone, 0),
        lambda: backend.truncate(gone, 0),
        lambda: backend.release(gone),
    ]
    for use in uses:
        with pytest.raises(ValueError, match=r"^(the sequence was released|eval needs at least one token)$"):
            use()
    other = backend.new_sequence()
    assert other.slot not in (heir.slot, sequence.slot)
    same(backend.eval(heir, [8]).copy(), backend.eval(other, [*IDS[:3], 8]))
    backend.release(heir)
    backend.release(other)


def test_nothing_to_read_is_refused(backend: Backend, sequence: CachedSequence) -> None:
    with pytest.raises(ValueError, match=r"^eval needs at least one token$"):
        backend.eval(sequence, [])


def test_no_room_is_an_error_of_ours(backend: Backend, sequence: CachedSequence) -> None:
    told = rf"^no room for {backend.context} tokens after 7 in a context of {backend.context}$"
    with pytest.raises(ContextFull, match=told) as caught:
        backend.eval(sequence, IDS[:1] * backend.context)
    assert isinstance(caught.value, InputError) and isinstance(caught.value, BionerError)


# --- Batches


def shadows(backend: Backend, sequences: list[CachedSequence]) -> list[CachedSequence]:
    """The same sequences once more, to be read one by one."""
    return [backend.fork(sequence, sequence.length) for sequence in sequences]


def release(backend: Backend, *sequences: CachedSequence) -> None:
    for sequence in sequences:
        backend.release(sequence)


def test_a_batch_is_the_same_as_one_by_one(backend: Backend, sequence: CachedSequence) -> None:
    """Prompts and single tokens mixed, of fresh, forked and longer sequences, in any order of their slots."""
    live = [backend.new_sequence(), backend.fork(sequence, 4), backend.new_sequence(), backend.fork(sequence, 7)]
    backend.eval(live[2], [9, 9])
    alone = shadows(backend, live)
    for order, ids in (
        ([0, 1, 2, 3], [[10, 20, 30, 40, 50], [7], [8], [6]]),
        ([3, 1, 0], [[1], [2], [3]]),
        ([2, 3, 1, 0], [[5], [4, 4], [3, 3, 3], [2]]),
        ([1], [[77]]),
        ([], []),
    ):
        logits = backend.eval_batch([(live[n], own) for n, own in zip(order, ids, strict=True)])
        together = [row.copy() for row in logits]
        for n, own, row in zip(order, ids, together, strict=True):
            assert row.shape == (backend.vocabulary_size,) and row.dtype == np.float32
            same(row, backend.eval(alone[n], own))
        assert [s.length for s in live] == [s.length for s in alone]
    release(backend, *live, *alone)


def test_any_batches_one_after_another(backend: Backend) -> None:
    random = np.random.default_rng(8)
    live = [backend.new_sequence() for _ in range(6)]
    alone = shadows(backend, live)
    for _ in range(40):
        chosen = random.permutation(6)[: random.integers(1, 7)].tolist()
        ids = [random.integers(0, 250, random.choice([1, 1, 1, 4])).tolist() for _ in chosen]
        for n, own in zip(chosen, ids, strict=True):
            if live[n].length + len(own) > 30 or random.random() < 0.1:
                length = int(random.integers(live[n].length + 1))
                for one in (live[n], alone[n]):
                    backend.truncate(one, min(length, 26))
        rows = backend.eval_batch([(live[n], own) for n, own in zip(chosen, ids, strict=True)])
        for n, own, row in zip(chosen, ids, [row.copy() for row in rows], strict=True):
            same(row, backend.eval(alone[n], own))
    release(backend, *live, *alone)


@pytest.mark.parametrize(
    ("ids", "told"),
    [([[1], [2], []], "eval needs at least one token"), ([[1], [2], [3]], "a sequence occurs twice in the batch")],
    ids=["nothing to read", "twice"],
)
def test_a_batch_that_is_refused_is_not_read(
    backend: Backend, sequence: CachedSequence, ids: list[list[int]], told: str
) -> None:
    one = backend.fork(sequence, 3)
    with pytest.raises(ValueError, match=f"^{told}$"):
        backend.eval_batch([(one, ids[0]), (sequence, ids[1]), (one, ids[2])])
    assert (one.length, sequence.length) == (3, 7)
    fresh = backend.new_sequence()
    same(backend.eval(one, [8]).copy(), backend.eval(fresh, [*IDS[:3], 8]))
    release(backend, one, fresh)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_batch_without_room_leaves_all_as_they_were(backend: Backend, sequence: CachedSequence, place: int) -> None:
    live = [backend.fork(sequence, length) for length in (3, 5, 7)]
    ids = [[1], [2, 2], [3]]
    ids[place] = [4] * (backend.context - 2)
    with pytest.raises(ContextFull, match=rf"^no room for \d+ tokens .* in a context of {backend.context}$"):
        backend.eval_batch(list(zip(live, ids, strict=True)))
    assert [s.length for s in live] == [3, 5, 7]
    fresh = backend.new_sequence()
    for one in live:
        backend.truncate(fresh, 0)
        same(backend.eval(one, [8, 9]).copy(), backend.eval(fresh, [*IDS[: one.length - 2], 8, 9]))
    release(backend, *live, fresh)


def test_a_batch_of_as_many_as_there_are_slots(backend: Backend) -> None:
    live: list[CachedSequence] = []
    with pytest.raises(RuntimeError, match=r"^all 16 sequences are in use; release one$"):
        for _ in range(17):
            live.append(backend.new_sequence())
    with pytest.raises(RuntimeError, match="in use"):
        backend.fork(live[0], 0)
    batch = [(one, IDS[n % 5 : n % 5 + 1 + n % 3]) for n, one in enumerate(live)]
    rows = [row.copy() for row in backend.eval_batch(batch)]
    for (one, ids), row in zip(batch, rows, strict=True):
        backend.truncate(one, 0)
        same(backend.eval(one, ids), row)
    release(backend, *live)


def test_answers_beside_each_other_are_those_of_one_at_a_time(backend: Backend) -> None:
    """The same bytes and the same choices; with probabilities up to the rounding of float32."""
    vocabulary = Vocabulary(backend)
    texts = ("ing in a lung", "in", "β, or not", "a b c", "", "fever")
    masks = [TokenMask(multi_tag.constraint(Document("d", text), ["A", "Bb"]), vocabulary) for text in texts]
    prompts = [IDS[: 1 + n] for n in range(len(texts))]
    alone = []
    for prompt, mask in zip(prompts, masks, strict=True):
        one = backend.new_sequence()
        alone.append(decode(backend, one, prompt, mask, budget=40))
        backend.release(one)
    assert len({answer.calls for answer in alone}) > 2
    for width, most in ((6, 100), (3, 2)):
        answering = [generate(prompt, mask, budget=40) for prompt, mask in zip(prompts, masks, strict=True)]
        for ours, theirs in zip(schedule(backend, answering, width=width, most=most), alone, strict=True):
            assert ours is not None and replace(ours, choices=()) == replace(theirs, choices=())
            for left, right in zip(ours.choices, theirs.choices, strict=True):
                assert (left.start, left.end) == (right.start, right.end)
                assert left.probability == pytest.approx(right.probability, abs=1e-3)
                assert left.removed_mass == pytest.approx(right.removed_mass, abs=1e-3)


class _Narrow(Scripted):
    """Has no room for a text with an X in it."""

    def eval(self, sequence: CachedSequence, ids: Any) -> Logits:
        if ord("X") in ids:
            raise ContextFull(f"no room for {len(ids)} tokens after {sequence.length} in a context of 1")
        return super().eval(sequence, ids)


def test_a_document_without_room_fails_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["Aspirin.", "X.", "Asthma."]
    lines = "".join(json.dumps({"id": f"d{n}", "text": text}) + "\n" for n, text in enumerate(texts))
    (tmp_path / "in.jsonl").write_text(lines, "utf-8")
    told: list[str] = []
    extractor = Extractor(_Narrow(lambda ids: np.zeros(257, np.float32)), format="multi_term", labels=["A"])
    output = Output.from_options(tmp_path / "out.jsonl", None, overwrite=False, with_gold=False, shown=False)
    sink = output.open({})
    inputs = Inputs([str(tmp_path / "in.jsonl")], lambda notice: pytest.fail(str(notice)))
    with closing(sink):
        outcome = run(extractor, inputs, sink, out="out.jsonl", complain=told.append)
    written = [json.loads(line)["id"] for line in io.StringIO((tmp_path / "out.jsonl").read_text("utf-8"))]
    assert written == ["d0", "d2"] and outcome.exit_code == 1 and outcome.failures == 1
    assert len(told) == 1 and told[0].startswith("document d1: no room for")
