"""What every back end does at the bounds of its sequences, and what becomes of a document that has no room."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bioner_edge.backends.contract import Backend, CachedSequence, ContextFull, Logits
from bioner_edge.backends.scripted import Scripted
from bioner_edge.errors import BionerError, InputError
from bioner_edge.extract import Extractor
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
    output = Output.named(tmp_path / "out.jsonl", None, overwrite=False, with_gold=False, shown=False)
    sink = output.open({})
    inputs = Inputs([str(tmp_path / "in.jsonl")], lambda notice: pytest.fail(str(notice)))
    with closing(sink):
        outcome = run(extractor, inputs, sink, out="out.jsonl", complain=told.append, quiet=True)
    written = [json.loads(line)["id"] for line in io.StringIO((tmp_path / "out.jsonl").read_text("utf-8"))]
    assert written == ["d0", "d2"] and outcome.exit_code == 1 and outcome.failures == 1
    assert len(told) == 1 and told[0].startswith("document d1: no room for")
