"""Scoring predictions: figures worked by hand, what is told beside them, and the line that a run keeps."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bioner_edge.benchmarks.results import Key, Log, Run
from bioner_edge.benchmarks.scoring.accuracy import MODES, Pair, Tallies, scores
from bioner_edge.benchmarks.scoring.bootstrap import intervals
from bioner_edge.benchmarks.scoring.predictions import Scored, accuracy_line, score_predictions, table
from bioner_edge.document import Document, Entity
from bioner_edge.errors import InputError, UsageError
from bioner_edge.io.reading import read_file

TEXT = "Naloxone and asthma. Fever, naloxone."
GOLD = [
    Document("7", TEXT, (Entity.at("Drug", 0, 8), Entity.at("Disease", 13, 19), Entity.at("Drug", 28, 36))),
    Document("8", "None here."),
]


def line(identifier: str, text: str, *rows: tuple[int, int, str], **more: Any) -> dict[str, Any]:
    entities = [{"start": a, "end": b, "label": label, "text": text[a:b]} for a, b, label in rows]
    return {"id": identifier, "text": text, "entities": entities, **more}


def scored(folder: Path, *lines: dict[str, Any], **asked: Any) -> Scored:
    path = folder / "p.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in lines), "utf-8")
    return score_predictions([str(path)], asked.pop("gold", GOLD), **asked)


def counts(figure: dict[str, Any]) -> tuple[int, int, int]:
    return figure["tp"], figure["fp"], figure["fn"]


def test_figures_by_hand(tmp_path: Path) -> None:
    found = scored(
        tmp_path, line("7", TEXT, (0, 8, "Drug"), (13, 18, "Disease"), (21, 26, "Disease")), line("8", "None here.")
    )
    told = found.to_json(resamples=50)
    strict = told["scores"]["strict"]
    assert counts(strict["labels"]["Drug"]) == (1, 0, 1) and counts(strict["labels"]["Disease"]) == (0, 2, 1)
    assert counts(strict["micro"]) == (1, 2, 2) and strict["micro"]["f1"] == pytest.approx(1 / 3)
    assert counts(told["scores"]["relaxed"]["micro"]) == (2, 1, 1)
    assert strict["macro"]["f1"] == pytest.approx((2 / 3) / 2) and "tp" not in strict["macro"]
    assert (told["labels"], told["documents"]) == (["Drug", "Disease"], 2)
    assert (found.exit_code, found.notices, found.unused) == (0, [], [])


def test_every_figure_has_its_interval(tmp_path: Path) -> None:
    rows = [line(str(n), TEXT, (0, 8, "Drug"), (13, 19 - n % 2, "Disease")) for n in range(12)]
    gold = [Document(str(n), TEXT, GOLD[0].entities) for n in range(12)]
    told = scored(tmp_path, *rows, gold=gold).to_json(3, 200)["scores"]
    predicted = [[Entity.at("Drug", 0, 8), Entity.at("Disease", 13, 19 - n % 2)] for n in range(12)]
    pairs = [Pair(g.id, TEXT, found, g.entities) for g, found in zip(gold, predicted, strict=True)]
    tallies = Tallies.of(pairs, ["Drug", "Disease"])
    bounds, plain = intervals(tallies, 3, 200), scores(tallies)
    for mode in MODES:
        for name in ("micro", "macro"):
            low, high = bounds[mode][name]
            assert told[mode][name] == {**plain[mode][name], "low": low, "high": high}
        for label in ("Drug", "Disease"):
            low, high = bounds[mode]["labels"][label]
            assert told[mode]["labels"][label] == {**plain[mode]["labels"][label], "low": low, "high": high}
    assert 0 < told["strict"]["micro"]["low"] < told["strict"]["micro"]["f1"] < told["strict"]["micro"]["high"] < 1


@pytest.mark.parametrize(
    ("rows", "notice"),
    [
        ([line("7", TEXT)], "1 gold documents have no prediction: all they have counts as missed: 8"),
        (
            [line("7", TEXT), line("8", "None there.")],
            "1 gold documents have a prediction of another text: it counts for nothing: 8",
        ),
        (
            [line("7", TEXT, error="no room"), line("8", "None here.")],
            "1 gold documents could not be read, as their predictions say: all they have counts as missed: 7",
        ),
        (
            [line("7", TEXT, (0, 8, "Drug")) | {"text": "x" + TEXT[1:]}, line("8", "None here.")],
            "1 gold documents have a prediction of another text: it counts for nothing: 7",
        ),
    ],
)
def test_what_does_not_hold_is_named_and_is_the_exit_code(
    tmp_path: Path, rows: list[dict[str, Any]], notice: str
) -> None:
    found = scored(tmp_path, *rows)
    assert (found.exit_code, found.notices) == (1, [notice])
    assert counts(found.to_json(resamples=9)["scores"]["strict"]["micro"])[2] == 3


def test_a_long_list_of_documents_is_cut(tmp_path: Path) -> None:
    found = scored(tmp_path, line("7", TEXT), gold=[*GOLD[:1], *(Document(f"m{n}", "") for n in range(7))])
    assert found.notices[0].endswith(": m0, m1, m2, m3, m4, …")
    assert found.to_json(resamples=9)["unpredicted"] == {"missing": 7, "changed": 0, "failed": 0}


def test_what_is_astray_costs_precision(tmp_path: Path) -> None:
    wrong = {"start": 0, "end": 8, "label": "Drug", "text": "naloxone"}
    good = line("7", TEXT, (0, 8, "Drug"))
    found = scored(tmp_path, {**good, "entities": [*good["entities"], wrong, {"start": 1}]}, line("8", "None here."))
    told = found.to_json(resamples=9)
    assert (found.exit_code, told["broken"]["astray"]) == (1, 2)
    assert all(counts(told["scores"][mode]["labels"]["Drug"])[1] == 1 for mode in MODES)
    assert found.notices == ["2 predicted entities are not in the text where they say: each counts as wrong"]
    assert len(found.unused) == 2 and found.unused[0].line == 1


@pytest.mark.parametrize("key", ["spans", "label", "labels", "ents"])
def test_predictions_of_other_tools_are_scored(tmp_path: Path, key: str) -> None:
    rows = [line("7", TEXT, (0, 8, "Drug"), (13, 19, "Disease")), line("8", "None here.")]
    rows[0]["entities"].append({"start": 0, "end": 3, "label": "Drug", "text": "not there"})
    theirs = [{key: row.pop("entities"), **row} for row in rows]
    found = scored(tmp_path, *theirs)
    assert counts(found.to_json(resamples=9)["scores"]["strict"]["micro"]) == (2, 1, 1) and found.astray == 1


def test_predictions_without_a_key_that_is_read_are_refused(tmp_path: Path) -> None:
    row = line("7", TEXT)
    row["found"] = row.pop("entities")
    with pytest.raises(
        InputError, match=r'^p\.jsonl: no document has annotations .*; the keys are "id", "text", "found"$'
    ):
        scored(tmp_path, row)


def test_labels_that_are_not_scored_are_left_out_and_told(tmp_path: Path) -> None:
    rows = [line("7", TEXT, (0, 8, "Drug"), (13, 19, "Disease"), (21, 26, "Finding")), line("8", "None here.")]
    rows[0]["entities"].append({"start": 0, "end": 3, "label": "Finding", "text": "not there"})
    found = scored(tmp_path, *rows, labels=["Drug"])
    assert counts(found.to_json(resamples=9)["scores"]["strict"]["micro"]) == (1, 0, 1)
    told = "predicted entities of labels that are not scored are left out: 2 Finding, 1 Disease"
    assert (found.exit_code, found.notices) == (0, [told])
    assert found.to_json(resamples=9)["unscored"] == {"Disease": 1, "Finding": 2}


def test_labels_of_other_names(tmp_path: Path) -> None:
    rows = [line("7", TEXT, (0, 8, "chem"), (28, 36, "Drug"), (13, 19, "Disease")), line("8", "None here.")]
    found = scored(tmp_path, *rows, names={"chem": "Drug"})
    assert counts(found.to_json(resamples=9)["scores"]["strict"]["micro"]) == (3, 0, 0)
    with pytest.raises(UsageError, match="'Chemical' is not a scored label; scored are: Drug, Disease"):
        scored(tmp_path, *rows, names={"chem": "Chemical"})


def test_problems_of_answers(tmp_path: Path) -> None:
    cut, bad = {"kind": "cut"}, {"kind": "syntax"}
    rows = [
        line("7", TEXT, problems=[bad, bad, cut], broken_answers=2, salvaged=4),
        line("8", "None here.", problems=[bad], broken_answers=1, salvaged=0),
    ]
    found = scored(tmp_path, *rows, line("9", "x", problems=[bad]))  # no gold asks for the last
    assert found.broken() == {
        "documents": 2,
        "answers": 3,
        "problems": 4,
        "kinds": {"syntax": 3, "ungrounded": 0, "cut": 1},
        "salvaged": 4,
        "astray": 0,
    }
    assert found.notices == [
        "1 predictions that no gold document asks for are left out",
        "2 documents have answers that could not be read whole: 3 syntax, 1 cut",
    ]
    del rows[1]["broken_answers"]
    assert scored(tmp_path, *rows).broken() | {"kinds": 0} == {
        "documents": 2, "answers": None, "problems": 4, "kinds": 0, "salvaged": 4, "astray": 0
    }  # fmt: skip


@pytest.mark.parametrize(
    ("gold", "message"),
    [
        ([], "the gold has no documents"),
        ([Document("8", "None here.")], "the gold has no annotated entity; name the labels"),
    ],
)
def test_no_gold(tmp_path: Path, gold: list[Document], message: str) -> None:
    with pytest.raises(InputError) as raised:
        scored(tmp_path, line("8", "None here."), gold=gold)
    assert str(raised.value) == message


def test_documents_without_gold_can_be_scored_for_named_labels(tmp_path: Path) -> None:
    found = scored(tmp_path, line("8", "None here.", (0, 4, "Drug")), gold=GOLD[1:], labels=["Drug"])
    assert found.to_json(resamples=9)["scores"]["strict"]["micro"]["f1"] == 0.0


def test_the_line_that_a_run_keeps(tmp_path: Path) -> None:
    found = scored(tmp_path, line("7", TEXT, (0, 8, "Drug")), line("8", "None here."))
    key = Key("scispacy", "corpus:dev", "", "")
    kept = accuracy_line(key, found, seed=2, spent={"seconds": 1.5}, ceiling={"f1": 0.9})
    assert kept["kind"] == "accuracy" and Key.of(kept) == key and kept["tuned"] is True
    assert {name: kept[name] for name in ("seconds", "load_s", "answers", "calls", "fed", "tokens")} == {
        "seconds": 1.5, "load_s": None, "answers": None, "calls": None, "fed": None, "tokens": None
    }  # fmt: skip
    assert kept["ceiling"] == {"f1": 0.9} and kept["scores"] == found.to_json(2)["scores"]
    older = {("decoding" if name == "constraint" else name): value for name, value in kept.items()}
    assert Key.of(older) == key  # as earlier versions wrote it
    Log(tmp_path).append({"kind": "run", "schema": 1})
    Log(tmp_path).append(kept)
    (cell,) = Run.load(tmp_path).cells
    assert cell.accuracy == kept
    (tmp_path / "counts").mkdir()
    found.tallies.save(tmp_path / "counts" / f"{key.slug}.json")
    assert (cell.tallies().counts == found.tallies.counts).all()


def shown(found: Scored, width: int = 80) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width).print(table(found.to_json(resamples=50), found.notices))
    return stream.getvalue()


def test_the_table(tmp_path: Path) -> None:
    found = scored(tmp_path, line("7", TEXT, (0, 8, "Drug"), (13, 18, "Disease")))
    out = shown(found)
    assert "2 documents, 3 gold entities" in out and "8" in out.splitlines()[-1]
    rows = [row.split() for row in out.splitlines()]
    assert next(row[:5] for row in rows if row[:1] == ["strict"]) == ["strict", "Drug", "1.0000", "0.5000", "0.6667"]
    assert any(row[:4] == ["all,", "micro", "0.5000", "0.3333"] and row[-3:] == ["1", "1", "2"] for row in rows)
    assert sum(row[:2] == ["all,", "macro"] for row in rows) == len(MODES)
    assert max(map(len, out.splitlines())) <= 80 and "…" not in out


def test_a_table_of_one_label_says_nothing_twice(tmp_path: Path) -> None:
    out = shown(scored(tmp_path, line("7", TEXT), line("8", "None here."), labels=["Drug"]))
    assert "macro" not in out and "Drug" not in out and out.count("all, micro") == len(MODES)


def test_names_cannot_do_anything_to_a_terminal(tmp_path: Path) -> None:
    gold = [Document("\x1b[31m", TEXT, (Entity.at("A\x1b[1mB", 0, 8), Entity.at("[red]", 13, 19)))]
    found = scored(tmp_path, line("7", TEXT), gold=gold)
    out = shown(found)
    assert "\x1b" not in out and "[red]" in out


def test_gold_against_itself(corpora: Path, tmp_path: Path) -> None:
    path = corpora / "bc5cdr" / "dev.PubTator.txt"
    gold = list(read_file(path, lambda notice: None))
    found = score_predictions([str(path)], gold)
    assert found.exit_code == 0 and found.notices == []
    assert all(found.to_json(resamples=9)["scores"][mode]["micro"]["f1"] == 1.0 for mode in MODES)
    assert found.to_json(resamples=9)["scores"]["strict"]["micro"]["tp"] == 9591
