"""The scorer, against counts made by hand and against seqeval where that can tell."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioner_edge.benchmarks.accuracy import Counts, main, score
from bioner_edge.span import Entity, Span

A, B, C = Entity.at("Chemical", 0, 8), Entity.at("Chemical", 49, 58), Entity.at("Disease", 60, 72)
SPLIT = Entity("Disease", (Span(0, 5), Span(17, 24)))
ENTITIES = st.builds(
    lambda label, start, size: Entity.at(label, start, start + size),
    st.sampled_from("XY"),
    st.integers(0, 4),
    st.integers(1, 3),
)


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
    assert score([(predicted, gold)]).micro == Counts(*counts)
    assert score([([], []), (predicted, gold), ([A], [A])]).micro == Counts(*counts) + Counts(1, 0, 0)


def test_by_label() -> None:
    scores = score([([A, B], [A, C]), ([C], [C])])
    assert scores.labels == {"Chemical": Counts(1, 1, 0), "Disease": Counts(1, 0, 1)}
    assert scores.micro == Counts(2, 1, 1)


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
    made = Counts(*counts)
    assert (made.precision, made.recall, made.f1) == (precision, recall, pytest.approx(f1))


def test_no_documents() -> None:
    assert score([]).micro.f1 == 1.0


@given(st.lists(st.tuples(st.lists(ENTITIES), st.lists(ENTITIES))))
def test_swapping_the_sides_swaps_precision_and_recall(pairs: list[tuple[list[Entity], list[Entity]]]) -> None:
    ours, theirs = score(pairs).micro, score((b, a) for a, b in pairs).micro
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
    ours = score((entities(a), entities(b)) for a, b in zip(*sides, strict=True))
    settings = {"mode": "strict", "scheme": scheme, "zero_division": 0}
    for name in ("precision", "recall", "f1"):
        reference = getattr(seqeval, f"{name}_score")
        assert getattr(ours.micro, name) == pytest.approx(reference(sides[1], sides[0], **settings))
        by_label = reference(sides[1], sides[0], average=None, **settings)
        assert [getattr(c, name) for c in ours.labels.values()] == pytest.approx(by_label)


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


TEXT = "Naloxone and asthma"
GOLD = f"7|t|{TEXT}\n7\t0\t8\tNaloxone\tDrug\n7\t13\t19\tasthma\tDisease\n\n8|t|None\n\n"


def predicted(identifier: str, text: str, *entities: tuple[int, int, str], **more: object) -> str:
    rows = [{"start": a, "end": b, "label": label, "text": text[a:b]} for a, b, label in entities]
    return json.dumps({"id": identifier, "text": text, "entities": rows, **more}) + "\n"


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    (tmp_path / "gold.pubtator").write_text(GOLD)
    return tmp_path / "p.jsonl", tmp_path / "gold.pubtator"


def test_script(files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    predictions, gold = files
    found = predicted("7", TEXT, (0, 8, "Chemical"), (9, 12, "Disease"))
    predictions.write_text(found + predicted("8", "None ", problems=[{}]))
    gold.write_text(GOLD.replace("8|t|None", "8|t|None "))
    assert main([str(predictions), str(gold), "--map", "Drug=Chemical"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "| Chemical | 1.0000 | 1.0000 | 1.0000 | 1 | 0 | 0 |" in out
    assert "| Disease | 0.0000 | 0.0000 | 0.0000 | 0 | 1 | 1 |" in out
    assert "| micro | 0.5000 | 0.5000 | 0.5000 | 1 | 1 | 1 |" in out
    assert "2 gold documents, 0 of them without a prediction\n" in out and "\n1 documents with problems" in out
    assert main([str(predictions), str(gold), "--map", "Drug=Chemical", "--labels", "Chemical"]) == 0
    assert "| micro | 1.0000 |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (predicted("9", "None"), "1 of them without a prediction: 8"),
        (predicted("8", "Nine"), "1 predictions of another text: 8"),
        (
            '{"id": "8", "text": "None", "entities": [{"start": 0, "end": 2, "label": "X", "text": "on"}]}',
            "1 of them not",
        ),
    ],
)
def test_what_does_not_hold_is_told(
    files: tuple[Path, Path], capsys: pytest.CaptureFixture[str], line: str, message: str
) -> None:
    files[0].write_text(predicted("7", TEXT) + line)
    assert main([str(p) for p in files]) == 1
    assert message in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no.jsonl", "GOLD"], "accuracy: no.jsonl: cannot be read: No such file or directory"),
        (["GOLD", "GOLD"], "two documents"),
        (["GOLD", "GOLD", "--map", "A"], "accuracy: --map 'A': 'A' is not GOLD_LABEL=LABEL"),
    ],
)
def test_refusals(
    files: tuple[Path, Path], capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    files[1].write_text(GOLD + GOLD)
    predicted_twice = files[1].with_name("twice.jsonl")
    predicted_twice.write_text(predicted("7", TEXT) * 2)
    paths = {"GOLD": str(predicted_twice)}
    assert main([paths.get(a, a) for a in arguments]) == 2
    assert message in capsys.readouterr().err
