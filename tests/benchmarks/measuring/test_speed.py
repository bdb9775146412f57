"""Timing against a clock of ours: a step takes a second and a hundredth for each token, and nothing else takes time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bioner_edge.backends.scripted import Scripted
from bioner_edge.benchmarks.baselines import load_reader
from bioner_edge.benchmarks.baselines.completions import COMPLETIONS, Completions
from bioner_edge.benchmarks.measuring import speed
from bioner_edge.document import Document
from bioner_edge.errors import InputError
from bioner_edge.extract import Extractor

LABELS = ["Chemical", "Disease"]
TEXTS = ("Naloxone reverses the effect of clonidine. Hypertension fell.", "Aspirin eased asthma.")


class Clock:
    """Seconds that pass only where something lets them pass."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


class Slow(Scripted):
    """A model that takes its time, and copies."""

    def __init__(self, clock: Clock, logits: Callable[[list[int]], Any]) -> None:
        super().__init__(logits)
        self.clock = clock

    def eval(self, sequence: Any, ids: Any) -> Any:
        self.clock.now += 1 + len(ids) / 100
        return super().eval(sequence, ids)


def copies(ids: list[int]) -> Any:
    made = np.zeros(257, np.float32)
    made[ord("<")] = -1
    return made


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(speed, "time", SimpleNamespace(perf_counter=made.perf_counter))
    return made


def extractor(clock: Clock, format: str = "multi_tag", **settings: Any) -> Extractor:
    made = Extractor(Slow(clock, copies), format=format, labels=LABELS, **{"unit": "sentence", **settings})
    speed.warm_up(made, [Document("w", "Warm.")])  # the instruction is read
    return made


def evaluated(made: Extractor) -> list[int]:
    """The tokens of each step from now on."""
    assert isinstance(made.backend, Scripted)
    made.backend.evaluated.clear()
    return made.backend.evaluated


def test_one_answer(clock: Clock) -> None:
    made = extractor(clock)
    steps = evaluated(made)
    with speed.watch_reader(made) as watch:
        watch.document(Document("1", TEXTS[1]))
    first, *others = steps
    assert len(others) == 3 and first > len(TEXTS[1])
    assert watch.ttfts_s == [pytest.approx(1 + first / 100)]
    assert (watch.prefill_tokens, watch.decode_steps) == (first, len(others))
    assert watch.prefill_s == pytest.approx(1 + first / 100)
    assert watch.decode_s == pytest.approx(len(others) + sum(others) / 100)
    assert watch.latencies_s == [pytest.approx(watch.prefill_s + watch.decode_s)]
    assert watch.tokens == watch.found[0].tokens == len(TEXTS[1])


def test_what_precedes_the_prompt_is_in_the_time_to_the_first_token(clock: Clock, monkeypatch: Any) -> None:
    made = extractor(clock)
    tokenize = made.backend.tokenize

    def slowly(text: bytes, special: bool) -> list[int]:
        clock.now += 5
        return tokenize(text, special)

    monkeypatch.setattr(made.backend, "tokenize", slowly)
    with speed.watch_reader(made) as watch:
        watch.document(Document("1", TEXTS[1]))
    assert watch.ttfts_s[0] > watch.prefill_s + 4
    assert watch.prefill_s < 3
    assert watch.latencies_s[0] > watch.ttfts_s[0] + watch.decode_s - 1e-6


def test_two_chunks_have_one_first_token(clock: Clock) -> None:
    made = extractor(clock)
    steps = evaluated(made)
    with speed.watch_reader(made) as watch:
        watch.document(Document("1", TEXTS[0]))
        watch.document(Document("2", TEXTS[1]))
    assert len(watch.ttfts_s) == len(watch.latencies_s) == 2 and watch.found[0].answers == 2
    assert watch.decode_steps == len(steps) - 3
    assert watch.prefill_s + watch.decode_s == pytest.approx(sum(watch.latencies_s))


@pytest.mark.parametrize("form", ["single_tag", "conv_term"])
def test_a_text_that_is_read_for_all_types_is_prefill(clock: Clock, form: str) -> None:
    made = extractor(clock, form)
    steps = evaluated(made)
    with speed.watch_reader(made) as watch:
        watch.document(Document("1", TEXTS[1]))
    shared, first = steps[:2]
    assert shared >= len(TEXTS[1])
    assert watch.ttfts_s == [pytest.approx(2 + (shared + first) / 100)]
    assert watch.decode_steps == len(steps) - 3  # the text, and a prompt for each of two types
    with speed.watch_reader(made) as watch:
        watch.document(Document("1", TEXTS[1]))
        watch.document(Document("2", TEXTS[1]))
    assert watch.decode_steps == len(steps) * 2 // 3 - 6
    assert watch.ttfts_s == [pytest.approx(2 + (shared + first) / 100)] * 2
    assert watch.prefill_s + watch.decode_s == pytest.approx(sum(watch.latencies_s))


def test_an_answer_that_asks_nothing(clock: Clock) -> None:
    """A constraint that leaves no choice takes no step, and so has no first token."""
    made = extractor(clock, "multi_span")
    made.format = SimpleNamespace(**{**vars(made.format), "constraint": lambda part, labels: _Fixed()})  # type: ignore
    with speed.watch_reader(made) as watch:
        watch.document(Document("1", "-"))
        watch.document(Document("2", ""))
    assert (watch.ttfts_s, watch.decode_steps, watch.prefill_tokens) == ([], 0, 0)
    assert watch.tokens > 10 and watch.decode_s == 0
    assert speed.figures(watch)["forced_share"] == 1.0


def _Fixed() -> Any:
    from bioner_edge.decoding.gbnf import GrammarAutomaton

    return GrammarAutomaton('root ::= "{\\"Chemical\\": [], \\"Disease\\": []}"')


def test_everything_is_as_it_was_afterwards(clock: Clock) -> None:
    made = extractor(clock)
    before = made.constraint
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), speed.watch_reader(made) as watch:
            assert made.constraint is not before
            raise ZeroDivisionError
        assert made.constraint is before
    made(TEXTS[1])
    assert watch.prefill_tokens == 0


def test_documents_that_cannot_be_read_are_left_out(clock: Clock) -> None:
    made = extractor(clock)
    documents = [Document("1", "a \ud800"), Document("2", TEXTS[1]), Document("3", "\udfff")]
    speed.warm_up(made, documents)
    after: list[int] = []
    watch = speed.read(made, documents, lambda: after.append(1))
    assert len(watch.found) == len(watch.latencies_s) == 1 and len(after) == 3 and watch.unread == ["1", "3"]
    told = r"none of 1 documents can be read, so none is timed; the last: document 3: lone surrogate U\+DFFF"
    with pytest.raises(InputError, match=told):
        speed.read(made, documents[2:], lambda: None)


def test_a_step_that_fails_leaves_no_answer_open(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    made = extractor(clock)
    step = made.backend.eval
    left = [2]

    def failing(sequence: Any, ids: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            raise InputError("enough")
        return step(sequence, ids)

    monkeypatch.setattr(made.backend, "eval", failing)
    watch = speed.read(made, [Document("1", TEXTS[1]), Document("2", TEXTS[1])], lambda: None)
    assert len(watch.latencies_s) == 1 and len(watch.ttfts_s) == 2
    assert watch.tokens == len(TEXTS[1])
    assert watch.decode_steps == watch.found[0].calls - 1


def test_figures(clock: Clock) -> None:
    made = extractor(clock)
    watch = speed.read(made, [Document("1", TEXTS[0]), Document("2", TEXTS[1]), Document("3", "")], lambda: None)
    found = speed.figures(watch)
    calls, tokens, chosen = (sum(getattr(e, name) for e in watch.found) for name in ("calls", "tokens", "chosen"))
    assert chosen < tokens
    assert found == {
        "documents": 3,
        "unread": [],
        "seconds": sum(watch.latencies_s),
        "ttft_s": sum(watch.ttfts_s) / 2,  # the median of two; the empty document has none
        "latencies_s": watch.latencies_s,
        "prefill_tokens_per_s": watch.prefill_tokens / watch.prefill_s,
        "decode_tokens_per_s": tokens / watch.decode_s,
        "documents_per_s": 3 / sum(watch.latencies_s),
        "calls_per_answer": calls / 3,
        "tokens_per_answer": tokens / 3,
        "forced_share": 1 - chosen / tokens,
    }
    assert len(watch.ttfts_s) == 2 and watch.latencies_s[2] == 0


def test_figures_of_nothing_written(clock: Clock) -> None:
    found = speed.figures(speed.read(extractor(clock), [Document("1", "")], lambda: None))
    there = {name: value for name, value in found.items() if value is not None}
    assert there == {"documents": 1, "unread": [], "seconds": 0, "latencies_s": [0]} and len(found) == 11


@pytest.fixture(params=["free", "gbnf", "grounded", "llama-gbnf", "llama-cpp-python", "text-filter"])
def any_reader(request: pytest.FixtureRequest, tiny_model: Path) -> Iterator[Extractor]:
    with load_reader(str(tiny_model), constraint=request.param, format="multi_tag", labels=LABELS, threads=1) as made:
        yield made


def test_every_decoding_is_timed_the_same(any_reader: Extractor) -> None:
    """What the watch counts from outside is what the extraction counts by itself."""
    documents = [Document(str(n), text) for n, text in enumerate(TEXTS)]
    speed.warm_up(any_reader, documents[:1])
    watch = speed.read(any_reader, documents, lambda: None)
    sums = {name: sum(getattr(e, name) for e in watch.found) for name in ("answers", "calls", "prompt", "tokens")}
    assert sums["answers"] == 3 and len(watch.ttfts_s) == 2
    assert watch.tokens == sums["tokens"] > 0
    assert watch.decode_steps == sums["calls"] - sums["answers"] > 0
    assert watch.prefill_tokens >= sums["prompt"] > 0  # forced tokens may be read with it
    assert 0 < watch.ttfts_s[0] < watch.latencies_s[0]
    assert watch.prefill_s + watch.decode_s < sum(watch.latencies_s)


def test_the_baseline_is_put_back_too(tiny_model: Path) -> None:
    settings: dict[str, Any] = {"format": "multi_tag", "labels": LABELS, "threads": 1}
    with load_reader(str(tiny_model), constraint="llama-cpp-python", **settings) as made:
        backend = made.backend
        assert isinstance(backend, Completions)
        step = backend.llama.eval
        with speed.watch_reader(made):
            assert made.constraint.decode is not COMPLETIONS.decode and backend.llama.eval != step
        assert made.constraint is COMPLETIONS and backend.llama.eval == step
