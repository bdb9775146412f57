"""The scorer, against counts made by hand, and against seqeval and nervaluate where these can tell."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioner_edge.benchmarks.scoring.accuracy import MODES, Counts, Pair, Tallies, micro, scores, tally
from bioner_edge.benchmarks.scoring.matching import maximum, overlaps
from bioner_edge.document import Entity, Span
from bioner_edge.errors import InputError

A, B, C = Entity.at("Chemical", 0, 8), Entity.at("Chemical", 49, 58), Entity.at("Disease", 60, 72)
SPLIT = Entity("Disease", (Span(0, 5), Span(17, 24)))
ENTITIES = st.builds(
    lambda label, start, size: Entity.at(label, start, start + size),
    st.sampled_from("XY"),
    st.integers(0, 4),
    st.integers(1, 3),
)


def paired(sides: Sequence[tuple[list[Entity], list[Entity]]]) -> list[Pair]:
    """Documents of blanks, with what was predicted and what is gold in each."""
    return [Pair(str(number), " " * 100, ours, theirs) for number, (ours, theirs) in enumerate(sides)]


@pytest.mark.parametrize(
    ("predicted", "gold", "counts"),
    [
        ([A, B, C], [A, B, C], (3, 0, 0)),
        ([C, B, A], [A, B, C], (3, 0, 0)),  # in any order
        ([A, A], [A, A, A], (1, 0, 0)),  # what is there twice counts once
        ([A], [A, B, C], (1, 0, 2)),
        ([A, C], [B, C], (1, 1, 1)),
        ([Entity.at("Disease", 0, 8)], [A], (0, 1, 1)),  # another label
        ([Entity.at("Chemical", 0, 7)], [A], (0, 1, 1)),  # another end
        ([Entity("Chemical", (Span(0, 8),), score=0.5)], [A], (1, 0, 0)),  # scores do not tell entities apart
        ([SPLIT], [SPLIT], (1, 0, 0)),
        ([Entity.at("Disease", 0, 24)], [SPLIT], (0, 1, 1)),  # all fragments count
        ([], [A], (0, 0, 1)),
        ([A], [], (0, 1, 0)),
        ([], [], (0, 0, 0)),
    ],
)
def test_counts(predicted: list[Entity], gold: list[Entity], counts: tuple[int, int, int]) -> None:
    labels = ["Chemical", "Disease"]
    found = micro(paired([(predicted, gold)]), labels)
    assert (found.tp, found.fp, found.fn) == counts
    more = micro(paired([([], []), (predicted, gold), ([A], [A])]), labels)
    assert (more.tp, more.fp, more.fn) == (counts[0] + 1, *counts[1:])


def test_by_label() -> None:
    pairs = paired([([A, B], [A, C]), ([C], [C])])
    found = scores(Tallies.of(pairs, ["Chemical", "Disease"]))["strict"]
    assert [found["labels"]["Chemical"][name] for name in ("tp", "fp", "fn")] == [1, 1, 0]
    assert [found["labels"]["Disease"][name] for name in ("tp", "fp", "fn")] == [1, 0, 1]
    assert [found["micro"][name] for name in ("tp", "fp", "fn")] == [2, 1, 1]


@pytest.mark.parametrize(
    ("counts", "precision", "recall", "f1"),
    [
        ((6, 2, 4), 0.75, 0.6, 2 / 3),
        ((0, 0, 0), 1.0, 1.0, 1.0),  # nothing, and rightly so
        ((0, 3, 0), 0.0, 0.0, 0.0),
        ((0, 0, 3), 0.0, 0.0, 0.0),
        ((0, 1, 1), 0.0, 0.0, 0.0),
    ],
)
def test_ratios(counts: tuple[int, int, int], precision: float, recall: float, f1: float) -> None:
    tp, fp, fn = counts
    made = Counts(tp, tp + fp, tp, tp + fn)
    assert (made.precision, made.recall, made.f1) == (precision, recall, pytest.approx(f1))


def test_no_documents() -> None:
    assert micro([], "XY") == Counts() and Counts().f1 == 1.0


@given(st.lists(st.tuples(st.lists(ENTITIES), st.lists(ENTITIES))))
def test_swapping_the_sides_swaps_precision_and_recall(pairs: list[tuple[list[Entity], list[Entity]]]) -> None:
    ours, theirs = micro(paired(pairs), "XY"), micro(paired([(b, a) for a, b in pairs]), "XY")
    assert (ours.precision, ours.recall, ours.f1) == (theirs.recall, theirs.precision, theirs.f1)


def test_it_equals_seqeval_on_flat_data() -> None:
    seqeval = pytest.importorskip("seqeval.metrics")
    scheme = pytest.importorskip("seqeval.scheme").IOB2
    draw = random.Random(1)
    sides: list[list[list[str]]] = [[], []]
    for _ in range(60):
        gold = [draw.choice(["O", "O", "B-X", "B-Y", "I-X", "I-Y"]) for _ in range(12)]
        sides[0].append([draw.choice(["O", "B-X", "I-Y"]) if draw.random() < 0.2 else tag for tag in gold])
        sides[1].append(gold)
    pairs = paired([(entities(a), entities(b)) for a, b in zip(*sides, strict=True)])
    ours = scores(Tallies.of(pairs, "XY"))["strict"]
    settings = {"mode": "strict", "scheme": scheme, "zero_division": 0}
    for name in ("precision", "recall", "f1"):
        reference = getattr(seqeval, f"{name}_score")
        assert ours["micro"][name] == pytest.approx(reference(sides[1], sides[0], **settings))
        by_label = reference(sides[1], sides[0], average=None, **settings)
        assert [row[name] for row in ours["labels"].values()] == pytest.approx(by_label)


def entities(tags: list[str]) -> list[Entity]:
    """The entities of BIO tags as IOB2 reads them strictly: an I- without its B- is none."""
    found = []
    for start, tag in enumerate(tags):
        if tag.startswith("B-"):
            end = start + 1
            while end < len(tags) and tags[end] == f"I-{tag[2:]}":
                end += 1
            found.append(Entity.at(tag[2:], start, end))
    return found


LABELS = "XYZ"
SLOT = 8  # characters
DOCUMENT = "aspirin naloxone gout aspirin fever cough pain rash itch dizzy spells tremor"
ANYTHING = st.builds(
    lambda label, start, first, gap, second: Entity(
        label, tuple([Span(start, start + first), Span(start + first + gap, start + first + gap + second)][: 1 + gap])
    ),
    st.sampled_from(LABELS),
    st.integers(0, 12),
    st.integers(1, 3),
    st.integers(0, 1),
    st.integers(1, 3),
)
"""Entities of one fragment or two, close together, so that many overlap and coincide."""
SIDES = st.tuples(st.lists(ANYTHING, max_size=7), st.lists(ANYTHING, max_size=7))


def pairs_of(sides: Sequence[tuple[list[Entity], list[Entity]]]) -> list[Pair]:
    return [Pair(str(number), DOCUMENT, ours, theirs) for number, (ours, theirs) in enumerate(sides)]


def rows(predicted: list[Entity], gold: list[Entity], mode: str, labels: Sequence[str] = LABELS) -> list[list[int]]:
    """The counts of a document in one mode, by label."""
    counts: list[list[int]] = tally(predicted, gold, DOCUMENT, labels)[MODES.index(mode)].tolist()
    return counts


def x(start: int, end: int) -> Entity:
    return Entity.at("X", start, end)


def y(start: int, end: int) -> Entity:
    return Entity.at("Y", start, end)


SPLIT_X = Entity("X", (Span(0, 2), Span(6, 8)))
NONE = [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("mode", "predicted", "gold", "counts"),
    [
        ("strict", [x(0, 7), x(0, 7)], [x(0, 7)], [[1, 1, 1, 1], NONE, NONE]),
        ("strict", [y(0, 7)], [x(0, 7)], [[0, 0, 0, 1], [0, 1, 0, 0], NONE]),
        ("exact", [y(0, 7)], [x(0, 7)], [[0, 0, 1, 1], [1, 1, 0, 0], NONE]),
        # One gold entity is there, so one of the two counts: that with its label.
        ("exact", [x(0, 7), y(0, 7)], [y(0, 7)], [[0, 1, 0, 0], [1, 1, 1, 1], NONE]),
        # With another label than both: the first in the alphabet, in whatever order they come.
        ("exact", [y(0, 7), x(0, 7)], [Entity.at("Z", 0, 7)], [[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 1]]),
        ("exact", [x(0, 6)], [x(0, 7)], [[0, 1, 0, 1], NONE, NONE]),
        ("exact", [x(0, 8)], [SPLIT_X], [[0, 1, 0, 1], NONE, NONE]),
        ("relaxed", [x(0, 6)], [x(5, 9)], [[1, 1, 1, 1], NONE, NONE]),
        ("relaxed", [x(0, 5)], [x(5, 9)], [[0, 1, 0, 1], NONE, NONE]),  # side by side: nothing in common
        ("relaxed", [x(5, 9)], [x(0, 5)], [[0, 1, 0, 1], NONE, NONE]),
        ("relaxed", [y(0, 7)], [x(0, 7)], [[0, 0, 0, 1], [0, 1, 0, 0], NONE]),
        ("relaxed", [x(0, 9)], [x(0, 2), x(4, 6)], [[1, 1, 1, 2], NONE, NONE]),  # each has one partner
        # Pairing what is equal first would leave the two others without a partner.
        ("relaxed", [x(0, 10), x(8, 10)], [x(0, 10), x(0, 2)], [[2, 2, 2, 2], NONE, NONE]),
        ("relaxed", [x(2, 6)], [SPLIT_X], [[0, 1, 0, 1], NONE, NONE]),  # in the gap
        ("relaxed", [x(7, 9)], [SPLIT_X], [[1, 1, 1, 1], NONE, NONE]),
        # Both aspirins are gold, and one surface; a prediction of the one names both.
        ("surface", [x(22, 29)], [x(0, 7), x(22, 29)], [[1, 1, 1, 1], NONE, NONE]),
        ("surface", [x(22, 29)], [x(0, 7)], [[1, 1, 1, 1], NONE, NONE]),
        ("surface", [y(22, 29)], [x(0, 7)], [[0, 0, 0, 1], [0, 1, 0, 0], NONE]),
    ],
)
def test_modes_by_hand(mode: str, predicted: list[Entity], gold: list[Entity], counts: list[list[int]]) -> None:
    assert rows(predicted, gold, mode) == counts
    assert rows(predicted[::-1], gold[::-1], mode) == counts


def test_labels_that_are_not_scored_are_nobodys() -> None:
    for mode in MODES:
        assert rows([x(0, 7), y(0, 7)], [y(0, 7), x(8, 16)], mode, "Y") == [[1, 1, 1, 1]]


def test_what_is_astray_counts_as_predicted_and_is_never_right() -> None:
    counts = tally([x(0, 7)], [x(0, 7)], DOCUMENT, LABELS, ["X", "X", "Y", "Other"])
    for mode, table in zip(MODES, counts.tolist(), strict=True):
        assert table == [[1, 3, 1, 1], [0, 1, 0, 0], NONE], mode


@given(SIDES)
def test_swapping_the_sides_swaps_precision_and_recall_in_every_mode(sides: tuple[list[Entity], list[Entity]]) -> None:
    ours, theirs = (scores(Tallies.of(pairs_of([side]), LABELS)) for side in (sides, sides[::-1]))
    assert (tally(*sides, DOCUMENT, LABELS) == tally(*sides[::-1], DOCUMENT, LABELS)[..., [2, 3, 0, 1]]).all()
    for mode in MODES:
        one, other = ours[mode], theirs[mode]
        figures_ = [(one[name], other[name]) for name in ("micro", "macro")]
        for mine, its in [*figures_, *((one["labels"][label], other["labels"][label]) for label in LABELS)]:
            assert [mine["precision"], mine["recall"], mine["f1"]] == [its["recall"], its["precision"], its["f1"]]


@given(SIDES, st.randoms(use_true_random=False))
def test_no_order_plays_a_part(sides: tuple[list[Entity], list[Entity]], draw: random.Random) -> None:
    before = tally(*sides, DOCUMENT, LABELS)
    shuffled = [draw.sample([*side, *side], 2 * len(side)) for side in sides]
    assert (tally(shuffled[0], shuffled[1], DOCUMENT, LABELS) == before).all()
    assert (tally(*sides, DOCUMENT, LABELS[::-1])[:, ::-1] == before).all()


@given(st.lists(SIDES, max_size=4))
def test_the_order_of_documents_plays_no_part(sides: list[tuple[list[Entity], list[Entity]]]) -> None:
    pairs = pairs_of(sides)
    assert scores(Tallies.of(pairs, LABELS)) == scores(Tallies.of(pairs[::-1], LABELS))


@given(st.lists(SIDES, max_size=4))
def test_what_equals_the_gold_scores_one(sides: list[tuple[list[Entity], list[Entity]]]) -> None:
    for mode, figures_ in scores(Tallies.of(pairs_of([(gold, gold) for _, gold in sides]), LABELS)).items():
        assert figures_["micro"]["f1"] == figures_["macro"]["f1"] == 1.0, mode
        assert figures_["micro"]["fp"] == figures_["micro"]["fn"] == 0


@given(SIDES)
def test_a_kinder_mode_finds_no_less(sides: tuple[list[Entity], list[Entity]]) -> None:
    hits = dict(zip(MODES, tally(*sides, DOCUMENT, LABELS)[..., 0].tolist(), strict=True))
    assert all(a <= b for a, b in zip(hits["strict"], hits["relaxed"], strict=True))
    assert sum(hits["strict"]) <= sum(hits["exact"])


@given(SIDES)
def test_strict_is_arithmetic_of_sets(sides: tuple[list[Entity], list[Entity]]) -> None:
    found = scores(Tallies.of(pairs_of([sides]), LABELS))["strict"]
    ours, theirs = ({e.key for e in side} for side in sides)
    for row, label in ((found["micro"], LABELS), *((found["labels"][label], label) for label in LABELS)):
        groups = (ours & theirs, ours - theirs, theirs - ours)
        tp, fp, fn = (sum(key[0] in label for key in group) for group in groups)
        assert (row["tp"], row["fp"], row["fn"]) == (tp, fp, fn)
        assert row["f1"] == pytest.approx(2 * tp / (2 * tp + fp + fn) if tp + fp + fn else 1.0)


@given(SIDES)
def test_the_micro_counts_of_both_sides_are_equal(sides: tuple[list[Entity], list[Entity]]) -> None:
    counts = tally(*sides, DOCUMENT, LABELS).sum(axis=1)
    assert (counts[:, 0] == counts[:, 2]).all()


def test_macro_is_the_mean_over_the_labels_that_occur() -> None:
    found = scores(Tallies.of([Pair("1", DOCUMENT, [x(0, 7), y(8, 16)], [x(0, 7), x(22, 29)])], LABELS))["strict"]
    assert found["labels"]["X"] == {
        "precision": 1.0,
        "recall": 0.5,
        "f1": pytest.approx(2 / 3),
        "tp": 1,
        "fp": 0,
        "fn": 1,
    }
    assert found["labels"]["Z"]["f1"] == 1.0  # nothing, and rightly so; not in the mean
    assert found["macro"] == {"precision": 0.5, "recall": 0.25, "f1": pytest.approx(1 / 3)}


def test_f1_of_a_label_in_mode_exact_is_the_harmonic_mean() -> None:
    """X: 2 of 3 predictions are at places of the gold, 2 of its 2 gold entities at places of predictions."""
    predicted, gold = [x(0, 7), x(8, 16), x(17, 21), y(22, 29)], [x(0, 7), y(8, 16), x(22, 29)]
    label = scores(Tallies.of([Pair("1", DOCUMENT, predicted, gold)], LABELS))["exact"]["labels"]["X"]
    assert (label["precision"], label["recall"]) == (pytest.approx(2 / 3), 1.0)
    assert label["f1"] == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("predicted", "gold", "expected"),
    [([], [], 1.0), ([x(0, 7)], [], 0.0), ([], [x(0, 7)], 0.0)],
)
def test_empty_sides(predicted: list[Entity], gold: list[Entity], expected: float) -> None:
    for found in scores(Tallies.of([Pair("1", DOCUMENT, predicted, gold)], LABELS)).values():
        assert found["micro"]["f1"] == found["macro"]["f1"] == expected
        assert found["micro"]["precision"] == found["micro"]["recall"] == expected


def test_no_documents_at_all() -> None:
    tallies = Tallies.of([], LABELS)
    assert tallies.counts.shape == (len(MODES), 0, len(LABELS), 4)
    assert all(found["micro"]["f1"] == found["macro"]["f1"] == 1.0 for found in scores(tallies).values())


@given(st.lists(st.sets(st.integers(0, 4)), max_size=5))
def test_the_matching_is_as_large_as_the_best_of_all(neighbours: list[set[int]]) -> None:
    right = [*range(5), *[-1] * 5]  # -1: no partner
    best = max(
        sum(partner in mine for partner, mine in zip(chosen, neighbours, strict=False))
        for chosen in permutations(right, 5)
    )
    assert maximum(neighbours) == best


def test_a_chain_that_must_give_way_as_a_whole() -> None:
    """Each has what the next needs; the last would have nothing but for thousands of exchanges."""
    size = 3000
    assert maximum([*({n, n + 1} for n in range(size)), {0}]) == size + 1


@given(SIDES)
def test_overlaps_are_characters_in_common(sides: tuple[list[Entity], list[Entity]]) -> None:
    ours, theirs = ([e.fragments for e in side] for side in sides)
    covered = [[{c for span in f for c in range(span.start, span.end)} for f in side] for side in (ours, theirs)]
    expected = [{number for number, its in enumerate(covered[1]) if mine & its} for mine in covered[0]]
    assert overlaps(ours, theirs) == expected


@st.composite
def slots(draw: st.DrawFn) -> tuple[list[Entity], list[Entity]]:
    """Flat data in which an entity overlaps at most one of the other side: there greedy pairing is right."""
    sides: tuple[list[Entity], list[Entity]] = ([], [])
    for place in range(0, 8 * SLOT, SLOT):
        for side in sides:
            if draw(st.booleans()):
                start = draw(st.integers(0, 3))
                end = draw(st.integers(start + 1, SLOT))
                side.append(Entity.at(draw(st.sampled_from(LABELS)), place + start, place + end))
    return sides


@given(st.lists(slots(), min_size=1, max_size=4))
def test_it_equals_nervaluate_on_flat_data(sides: list[tuple[list[Entity], list[Entity]]]) -> None:
    found = nervaluated(sides)
    ours = scores(Tallies.of(pairs_of(sides), LABELS))
    for mode, theirs in (("strict", "strict"), ("exact", "exact"), ("relaxed", "ent_type")):
        assert_equal(ours[mode]["micro"], found["overall"][theirs])
        for label, by_mode in found["entities"].items():
            if mode != "exact":  # which nervaluate counts by label as strict
                assert_equal(ours[mode]["labels"][label], by_mode[theirs])


def assert_equal(ours: dict[str, Any], theirs: Any) -> None:
    assert (ours["tp"], ours["fp"], ours["fn"]) == (
        theirs.correct, theirs.actual - theirs.correct, theirs.possible - theirs.correct
    )  # fmt: skip
    if theirs.actual and theirs.possible:
        assert (ours["precision"], ours["recall"]) == (theirs.precision, theirs.recall)
        assert ours["f1"] == pytest.approx(theirs.f1)


def nervaluated(sides: Sequence[tuple[list[Entity], list[Entity]]]) -> Any:
    """What nervaluate says, whose ends are inclusive."""
    evaluator = pytest.importorskip("nervaluate").Evaluator
    predicted, gold = (
        [[{"label": e.label, "start": e.start, "end": e.end - 1} for e in pair[side]] for pair in sides]
        for side in (0, 1)
    )
    return evaluator(gold, predicted, tags=[*LABELS], loader="dict").evaluate()


def test_two_predictions_swapped_are_the_same_here_and_are_not_in_nervaluate() -> None:
    gold = [x(0, 10)]
    orders = [[x(0, 5), x(0, 10)], [x(0, 10), x(0, 5)]]
    assert [nervaluated([(predicted, gold)])["overall"]["strict"].correct for predicted in orders] == [0, 1]
    assert [rows(predicted, gold, "strict")[0] for predicted in orders] == [[1, 2, 1, 1]] * 2


def test_an_overlap_that_nervaluate_gives_away_is_kept() -> None:
    """Whichever of the two the first prediction takes, the second must have the other."""
    predicted, gold = [x(2, 9), x(8, 12)], [x(0, 3), x(5, 10)]
    found = [nervaluated([(side, gold)])["overall"]["ent_type"].correct for side in (predicted, predicted[::-1])]
    assert found == [1, 2]
    assert [rows(side, gold, "relaxed")[0] for side in (predicted, predicted[::-1])] == [[2, 2, 2, 2]] * 2


def test_tallies_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "counts.json"
    tallies = Tallies.of([Pair("1 é", DOCUMENT, [x(0, 7)], [y(0, 7)]), Pair("2", DOCUMENT, [], [])], LABELS)
    tallies.save(path)
    again = Tallies.load(path)
    assert (again.documents, again.labels) == (["1 é", "2"], ("X", "Y", "Z"))
    assert (again.counts == tallies.counts).all() and again.counts.dtype == tallies.counts.dtype
    assert [p.name for p in tmp_path.iterdir()] == ["counts.json"]
    none = Tallies.of([], LABELS)
    none.save(path)
    assert Tallies.load(path).counts.shape == none.counts.shape


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "counts.json"
    Tallies.of([], LABELS).save(path)
    before = path.read_bytes()
    (tmp_path / "counts.json.partial").mkdir()
    with pytest.raises(OSError):
        Tallies.of([Pair("1", "", [], [])], LABELS).save(path)
    assert path.read_bytes() == before


def test_two_documents_with_one_key() -> None:
    with pytest.raises(ValueError, match="two documents have the key '1'"):
        Tallies.of([Pair("1", "", [], []), Pair("1", "", [], [])], LABELS)


GOOD = {"modes": [*MODES], "labels": ["X"], "documents": ["1"], "counts": [[[[1, 2, 1, 1]]]] * 4}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"modes": ["strict"]}, "it must be an object with the modes strict, exact, relaxed, surface"),
        ({"documents": "1"}, "documents and labels must be lists of names, each once"),
        ({"documents": [1]}, "documents and labels must be lists of names, each once"),
        ({"labels": ["X", "X"]}, "documents and labels must be lists of names, each once"),
        ({"labels": ["X", "Y"]}, "counts of the shape (4, 1, 1, 4), not (4, 1, 2, 4)"),
        ({"counts": [[[[1, 2, 1, 1]]]]}, "counts of the shape (1, 1, 1, 4), not (4, 1, 1, 4)"),
        ({"counts": None}, "counts of the shape (), not (4, 1, 1, 4)"),
        ({"counts": [[[[1, 2, 1, 1.5]]]] * 4}, "a count is not an integer"),
        ({"counts": [[[[1, 2, 1, 10**30]]]] * 4}, "a count is not an integer"),
        ({"counts": [[[[-1, 2, 1, 1]]]] * 4}, "a count is not an integer"),
        ({"counts": [[[[3, 2, 1, 1]]]] * 4}, "more hits than entities"),
        ({"counts": [[[[1, 2, 2, 1]]]] * 4}, "more hits than entities"),
    ],
)
def test_tallies_that_are_none(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    path = tmp_path / "counts.json"
    path.write_text(json.dumps(GOOD))
    assert Tallies.load(path).counts.sum() == 20
    path.write_text(json.dumps({**GOOD, **change}))
    with pytest.raises(InputError) as raised:
        Tallies.load(path)
    message = f"{path}: no tallies of `bioner-edge bench`: {reason}; score the predictions again"
    assert str(raised.value) == message


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '"x"', "[" * 100_000, "\xff"])
def test_a_file_that_is_no_json_of_tallies(tmp_path: Path, text: str) -> None:
    path = tmp_path / "counts.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match="no tallies of") as raised:
        Tallies.load(path)
    assert "\n" not in str(raised.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.json: cannot be read: No such file"):
        Tallies.load(tmp_path / "none.json")
