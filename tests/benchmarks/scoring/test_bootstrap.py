"""Intervals and p-values, against scipy, against figures worked by hand, and against how often they should be right."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from bioner_edge.benchmarks.scoring import bootstrap
from bioner_edge.benchmarks.scoring.accuracy import MODES, Pair, Tallies, scores
from bioner_edge.benchmarks.scoring.bootstrap import compare_paired, holm, intervals
from bioner_edge.document import Entity
from bioner_edge.errors import InputError

Table = Sequence[Sequence[int]]


def made(rows: Table, first: int = 0, label: str = "X") -> Tallies:
    """Tallies of documents of one label, each given as (hits, predicted, gold), the same in all modes."""
    counts = np.array([[[hits, predicted, hits, gold]] for hits, predicted, gold in rows], np.int64).reshape(-1, 1, 4)
    return Tallies([str(first + n) for n in range(len(rows))], (label,), np.stack([counts] * len(MODES)))


def drawn(generator: np.random.Generator, documents: int, recall: float) -> list[list[int]]:
    """Documents with 1 to 12 gold entities, of which each is found with the same probability, and as many found beside
    them as are missed: P, R and F1 are then `recall`."""
    gold = generator.integers(1, 13, documents)
    hits = generator.binomial(gold, recall)
    return [[int(h), int(g), int(g)] for h, g in zip(hits, gold, strict=True)]


def test_intervals_are_those_of_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    rows = drawn(np.random.default_rng(3), 120, 0.7)
    columns = tuple(np.array(column) for column in zip(*rows, strict=True))

    def f1(hits: NDArray[Any], predicted: NDArray[Any], gold: NDArray[Any], axis: int = -1) -> Any:
        return 2 * hits.sum(axis=axis) / (predicted.sum(axis=axis) + gold.sum(axis=axis))

    asked = {"paired": True, "method": "percentile", "n_resamples": 20_000, "rng": np.random.default_rng(5)}
    reference = stats.bootstrap(columns, f1, vectorized=True, **asked).confidence_interval
    low, high = intervals(made(rows), 1, 20_000)["strict"]["micro"]
    assert (low, high) == pytest.approx((reference.low, reference.high), abs=1e-3)


def test_intervals_of_labels_and_means_are_of_the_same_draws() -> None:
    """Worked out again, slowly, a draw at a time."""
    draw = random.Random(2)
    entities = [Entity.at(label, start, start + 2) for label in "XYZ" for start in range(0, 12, 3)]
    pairs = [Pair(str(n), "a" * 20, draw.sample(entities, 5), draw.sample(entities, 4)) for n in range(6)]
    tallies = Tallies.of(pairs, "XYZ")
    found = intervals(tallies, 7, 200)
    generator = np.random.Generator(np.random.PCG64(7))
    chosen = [[pairs[n] for n in row] for row in generator.integers(6, size=(200, 6)).tolist()]
    renamed = [[Pair(str(n), p.text, p.predicted, p.gold) for n, p in enumerate(row)] for row in chosen]
    resampled = [scores(Tallies.of(row, "XYZ")) for row in renamed]
    for mode in MODES:
        for name in ("micro", "macro"):
            bounds = np.quantile([s[mode][name]["f1"] for s in resampled], [0.025, 0.975])
            assert found[mode][name] == pytest.approx(tuple(bounds))
        for label in "XYZ":
            bounds = np.quantile([s[mode]["labels"][label]["f1"] for s in resampled], [0.025, 0.975])
            assert found[mode]["labels"][label] == pytest.approx(tuple(bounds))


def test_nineteen_of_twenty_intervals_hold_the_truth() -> None:
    generator = np.random.default_rng(11)
    held = 0
    for seed in range(400):
        low, high = intervals(made(drawn(generator, 100, 0.8)), seed, 500)["strict"]["micro"]
        held += low <= 0.8 <= high
    assert 0.92 <= held / 400 <= 0.975


def test_one_of_twenty_comparisons_of_equals_is_below_the_level() -> None:
    generator = np.random.default_rng(13)
    low = 0
    for seed in range(400):
        ours, theirs = (drawn(generator, 80, 0.8) for _ in range(2))
        same_gold = [[min(a[0], b[2]), a[1], b[2]] for a, b in zip(ours, theirs, strict=True)]
        # Exchanged at random, document by document: neither of the two can be the better one.
        flips = generator.random(80) < 0.5
        one = [a if flip else b for a, b, flip in zip(same_gold, theirs, flips, strict=True)]
        other = [b if flip else a for a, b, flip in zip(same_gold, theirs, flips, strict=True)]
        low += compare_paired(made(one), made(other), seed=seed, resamples=500).p < 0.05
    assert 0.02 <= low / 400 <= 0.09


def test_a_system_that_is_better_is_found_to_be() -> None:
    generator = np.random.default_rng(1)
    worse = drawn(generator, 200, 0.7)
    better = [[min(hits + 1, gold), predicted, gold] for hits, predicted, gold in worse]
    found = compare_paired(made(better), made(worse))
    assert found.p == pytest.approx(1 / 10_001) and 0 < found.low < found.difference < found.high
    assert found.scores == tuple(scores(made(rows))["strict"]["micro"]["f1"] for rows in (better, worse))
    back = compare_paired(made(worse), made(better))
    assert (back.difference, back.low, back.high) == pytest.approx((-found.difference, -found.high, -found.low))
    assert back.p == found.p


def test_the_p_value_worked_out_again() -> None:
    """Of 16 documents with one entity each, one system is right in 8 where the other is not, wrong in 3 where it is."""
    wins = np.array([1] * 8 + [-1] * 3 + [0] * 5)
    one = made([(int(win >= 0), 1, 1) for win in wins])
    other = made([(int(win <= 0), 1, 1) for win in wins])
    found = compare_paired(one, other, seed=6, resamples=4000)
    draws = np.random.Generator(np.random.PCG64(6)).integers(16, size=(4000, 16))
    differences = wins[draws].mean(axis=1)  # that of F1, as all documents have one entity
    beyond = int((np.abs(differences - 5 / 16) >= 5 / 16).sum())
    assert (found.p, found.differing) == ((1 + beyond) / 4001, 11)
    assert 0.05 < found.p < 0.2  # the sign test has 2 × P(at most 3 of 11) = 0.227
    assert (found.difference, found.low, found.high) == pytest.approx(
        (5 / 16, *np.quantile(differences, [0.025, 0.975]))
    )


@pytest.mark.parametrize(("differing", "least"), [(1, 1.0), (2, 0.5), (3, 0.25), (6, 1 / 32)])
def test_few_documents_cannot_prove_much(differing: int, least: float) -> None:
    """All documents differ, and alike: every draw says the same, and the draws alone would say p = 1 / 10,001."""
    found = compare_paired(made([(1, 1, 1)] * differing), made([(0, 1, 1)] * differing))
    assert (found.p, found.low, found.high, found.differing) == (least, 1.0, 1.0, differing)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(3, 5), st.integers(3, 5)), min_size=1, max_size=6))
def test_a_system_does_not_differ_from_itself(rows: list[tuple[int, int, int]]) -> None:
    found = compare_paired(made(rows), made(rows), resamples=50)
    assert (found.difference, found.low, found.high, found.p, found.differing) == (0.0, 0.0, 0.0, 1.0, 0)


def test_systems_that_differ_in_other_documents_but_not_on_the_whole() -> None:
    found = compare_paired(made([(1, 1, 1), (0, 1, 1)] * 20), made([(0, 1, 1), (1, 1, 1)] * 20))
    assert (found.difference, found.p, found.differing) == (0.0, 1.0, 40)
    assert found.low < 0 < found.high


def test_documents_that_one_alone_has_read_are_left_out_and_counted() -> None:
    one = made([(1, 1, 1), (0, 1, 1), (1, 1, 2)])
    other = made([(0, 1, 1), (2, 2, 2), (2, 2, 2)], first=1)  # documents 1, 2, 3
    found = compare_paired(one, other)
    assert (found.documents, found.differing, found.left_out) == (2, 1, 2)
    assert found.scores == pytest.approx((2 * 1 / 5, 2 * 2 / 6))


def test_labels_in_another_order_are_the_same() -> None:
    gold = [Entity.at("X", 0, 1), Entity.at("Y", 2, 3), Entity.at("Y", 4, 5)]
    pairs = [Pair("1", "abcdef", gold[:1], gold), Pair("2", "abcdef", gold, gold)]
    assert compare_paired(Tallies.of(pairs, "XY"), Tallies.of(pairs, "YX")).differing == 0


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (made([(1, 1, 1)], label="Y"), "other labels were scored: X and Y"),
        (made([(1, 1, 1)], first=5), "no document was read by both"),
        (made([]), "no document was read by both"),
        (made([(1, 1, 1), (1, 1, 2)]), "the gold is another in 1 documents, first 1"),
    ],
)
def test_what_cannot_be_compared(other: Tallies, message: str) -> None:
    with pytest.raises(InputError) as raised:
        compare_paired(made([(1, 1, 1), (1, 1, 1)]), other)
    assert str(raised.value) == message


def test_a_mode_is_asked_for() -> None:
    text = "abcdef"
    gold, near = [Entity.at("X", 0, 2)], [Entity.at("X", 1, 3)]
    one, other = (Tallies.of([Pair("1", text, side, gold)], "X") for side in (gold, near))
    assert {mode: compare_paired(one, other, mode, resamples=9).difference for mode in MODES} == {
        "strict": 1.0, "exact": 1.0, "relaxed": 0.0, "surface": 1.0
    }  # fmt: skip


def test_a_seed_gives_the_same_however_much_is_drawn_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = drawn(np.random.default_rng(4), 37, 0.6)
    worse = [[max(0, hits - 1), predicted, gold] for hits, predicted, gold in rows]
    before = intervals(made(rows), 9, 301), compare_paired(made(rows), made(worse), seed=9, resamples=301)
    assert before[0] != intervals(made(rows), 10, 301)
    assert before[1] != compare_paired(made(rows), made(worse), seed=10, resamples=301)
    monkeypatch.setattr(bootstrap, "_CHUNK", 120)  # three draws
    assert before == (intervals(made(rows), 9, 301), compare_paired(made(rows), made(worse), seed=9, resamples=301))


def test_no_documents() -> None:
    assert intervals(made([]), 0, 10)["strict"] == {
        "micro": (1.0, 1.0),
        "macro": (1.0, 1.0),
        "labels": {"X": (1.0, 1.0)},
    }


@pytest.mark.parametrize(
    ("given_", "adjusted"),
    [
        ([], []),
        ([0.03], [0.03]),
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),  # the R manual's steps: 4 × .005, 3 × .01, 2 × .03, .04
        ([0.01, 0.02, 0.03, 0.04], [0.04, 0.06, 0.06, 0.06]),
        ([0.5, 0.9, 0.4], [1.0, 1.0, 1.0]),
        ([0.02, 0.02], [0.04, 0.04]),
    ],
)
def test_holm_by_hand(given_: list[float], adjusted: list[float]) -> None:
    assert holm(given_) == pytest.approx(adjusted)


@given(st.lists(st.floats(0, 1), max_size=8), st.floats(0.001, 0.5))
def test_holm_rejects_what_its_steps_reject(p_values: list[float], level: float) -> None:
    """As Holm wrote it: from the smallest on, as long as each is at most the level divided by how many are left."""
    rejected = set()
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda n: p_values[n])):
        if p_values[place] * (len(p_values) - rank) > level:
            break
        rejected.add(place)
    assert {place for place, p in enumerate(holm(p_values)) if p <= level} == rejected
