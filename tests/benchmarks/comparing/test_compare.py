"""Runs held against each other: which cells correspond, what is found of them, and that none is left out in silence."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bioner_edge.benchmarks.comparing.compare import Comparison, compare, versus_reference
from bioner_edge.benchmarks.comparing.correspondence import family
from bioner_edge.benchmarks.comparing.tables import tables
from bioner_edge.benchmarks.results import Cell, Key, Log, Run
from bioner_edge.benchmarks.scoring.accuracy import Pair, Tallies
from bioner_edge.benchmarks.scoring.bootstrap import compare_paired, holm
from bioner_edge.document import Entity
from bioner_edge.errors import InputError, UsageError

TEXT = "a" * 60
LEVELS = {"F32": 32.0, "Q8_0": 8.5, "Q4_K_M": 4.9, "int8": 8.5}


def key(model: str, constraint: str = "grounded", format: str = "multi_tag", corpus: str = "c:dev") -> Key:
    return Key(model, corpus, format, constraint)


def tallies(share: float, seed: int = 0, documents: Sequence[int] = range(60), labels: str = "XY") -> Tallies:
    """Of 60 documents with ten entities each about this share is right; the gold is always the same."""
    draw = random.Random(seed)
    gold = [Entity.at(labels[n % 2 % len(labels)], 5 * n, 5 * n + 3) for n in range(10)]
    rows = [[e if draw.random() < share else Entity.at(e.label, e.start, e.end + 1) for e in gold] for _ in range(70)]
    return Tallies.of([Pair(str(n), TEXT, rows[n], gold) for n in documents], labels)


class Made:
    """A run's folder, written line by line."""

    def __init__(self, folder: Path, processor: str = "one", sha256: str | None = "c") -> None:
        folder.mkdir()
        self.folder = folder
        self.sha256 = sha256
        self.log({"kind": "run", "schema": 1, "machine": {"processor": processor}})

    def log(self, line: dict[str, Any]) -> None:
        Log(self.folder).append(line)

    def cell(self, key: Key, counts: Tallies | None = None, **figures: Any) -> Made:
        """A cell: with counts it is scored, with figures timed, and with neither it has failed."""
        level = next((level for level in LEVELS if level in key.model), "")
        about = {"level": level, "bits_per_weight": LEVELS.get(level), "bytes": 1000 * len(key.model)}
        self.log({"kind": "model", "model": key.model, **about})
        if self.sha256:
            self.log({"kind": "corpus", "corpus": key.corpus, "sha256": self.sha256})
        if counts is None:
            self.log({"kind": "failed", **key.to_json(), "phase": "read", "reason": "it broke"})
            return self
        self.log({"kind": "accuracy", **key.to_json(), "scores": {}})
        (self.folder / "counts").mkdir(exist_ok=True)
        counts.save(self.folder / "counts" / f"{key.slug}.json")
        for threads in figures.pop("threads", []):
            for number in (1, 2, 3):
                told = {name: value * threads * number for name, value in figures.items()}
                self.log({"kind": "repetition", **key.to_json(), "threads": threads, "number": number, **told})
        return self

    @property
    def run(self) -> Run:
        return Run.load(self.folder)


def paired_keys(found: Comparison) -> list[tuple[str, str]]:
    return [(told(pair.place.cell.key), told(pair.reference.cell.key)) for pair in found.pairs]


def refused(found: Comparison) -> dict[str, str]:
    return {told(one.place.cell.key): one.reason for one in found.refused}


def told(key: Key) -> str:
    return f"{key.model}/{key.format}/{key.constraint}"


def test_a_run_does_not_differ_from_itself_nor_from_one_that_found_the_same(tmp_path: Path) -> None:
    cells = [key("m-Q8_0"), key("m-Q8_0", "free")]
    one, other = Made(tmp_path / "one"), Made(tmp_path / "other")
    for made in (one, other):
        for cell in cells:
            made.cell(cell, tallies(0.8))
    for runs in ([one.run, other.run], [one.run, one.run], [one.run] * 2):
        found = compare(runs, resamples=100)
        assert [(p.place.cell.key, p.reference.cell.key) for p in found.pairs] == [(cell, cell) for cell in cells]
        assert not found.refused and found.exit_code == 0
        for pair in found.pairs:
            d = pair.difference
            assert (d.difference, d.low, d.high, d.p, pair.p_holm, pair.significant) == (0.0, 0.0, 0.0, 1.0, 1.0, False)


def test_a_broken_file_differs(tmp_path: Path) -> None:
    one = Made(tmp_path / "one").cell(key("m-Q8_0"), tallies(0.8))
    other = Made(tmp_path / "other").cell(key("m-Q4_K_M"), tallies(0.6, seed=1))
    (pair,) = compare([one.run, other.run]).pairs
    assert pair.significant and pair.difference.difference < pair.difference.high < 0
    assert pair.difference == compare_paired(tallies(0.6, seed=1), tallies(0.8))
    assert (pair.place.run.folder, pair.reference.run.folder) == (tmp_path / "other", tmp_path / "one")


def test_p_values_are_adjusted_for_all_that_was_compared(tmp_path: Path) -> None:
    """One that is significant alone is not beside eleven others."""
    one, other = Made(tmp_path / "one"), Made(tmp_path / "other")
    for number in range(12):
        one.cell(key(f"m{number}"), tallies(0.8))
        other.cell(key(f"m{number}"), tallies(0.8 if number else 0.745, seed=1))
    found = compare([one.run, other.run])
    p_values = [pair.difference.p for pair in found.pairs]
    assert [pair.p_holm for pair in found.pairs] == holm(p_values)
    assert p_values[0] < 0.05 < found.pairs[0].p_holm and not found.pairs[0].significant


Cells = Sequence[tuple[str, str, str]]
TAG, CODE = "multi_tag", "multi_code"


@pytest.mark.parametrize(
    ("first", "second", "expected", "reasons"),
    [
        # All that agree in everything.
        (
            [("m-Q8_0", TAG, "free"), ("m-Q8_0", TAG, "gbnf"), ("m-Q4_K_M", TAG, "gbnf")],
            [("m-Q4_K_M", TAG, "gbnf"), ("m-Q8_0", TAG, "free"), ("m-F32", TAG, "free")],
            [("m-Q4_K_M/multi_tag/gbnf",) * 2, ("m-Q8_0/multi_tag/free",) * 2],
            {
                "m-F32/multi_tag/free": "no cell of the first run corresponds to it",
                "m-Q8_0/multi_tag/gbnf": "no cell of another run corresponds to it",
            },
        ),
        # Other levels of the same models.
        (
            [("m-Q8_0", TAG, "free"), ("n-Q8_0", TAG, "free")],
            [("n-Q4_K_M", TAG, "free"), ("m-int8-onnx", TAG, "free")],
            [
                ("n-Q4_K_M/multi_tag/free", "n-Q8_0/multi_tag/free"),
                ("m-int8-onnx/multi_tag/free", "m-Q8_0/multi_tag/free"),
            ],
            {},
        ),
        # Another model.
        (
            [("m", TAG, "free"), ("m", CODE, "free")],
            [("n", CODE, "free"), ("n", TAG, "free"), ("n", TAG, "gbnf")],
            [("n/multi_code/free", "m/multi_code/free"), ("n/multi_tag/free", "m/multi_tag/free")],
            {"n/multi_tag/gbnf": "no cell of the first run corresponds to it"},
        ),
        # Another constraint of the same formats.
        (
            [("m-Q8_0", TAG, "free"), ("m-F32", TAG, "free")],
            [("m-F32", TAG, "grounded"), ("m-Q8_0", TAG, "grounded")],
            [
                ("m-F32/multi_tag/grounded", "m-F32/multi_tag/free"),
                ("m-Q8_0/multi_tag/grounded", "m-Q8_0/multi_tag/free"),
            ],
            {},
        ),
        # Another constraint and another level.
        (
            [("m-Q8_0", TAG, "free"), ("m-Q8_0", CODE, "free")],
            [("m-F32", CODE, "gbnf"), ("m-F32", TAG, "gbnf")],
            [("m-F32/multi_code/gbnf", "m-Q8_0/multi_code/free"), ("m-F32/multi_tag/gbnf", "m-Q8_0/multi_tag/free")],
            {},
        ),
        # Another format, the same constraints.
        (
            [("m-Q8_0", TAG, "free"), ("m-Q8_0", TAG, "gbnf")],
            [("m-F32", CODE, "gbnf"), ("m-F32", CODE, "free")],
            [("m-F32/multi_code/gbnf", "m-Q8_0/multi_tag/gbnf"), ("m-F32/multi_code/free", "m-Q8_0/multi_tag/free")],
            {},
        ),
        # One cell is what all others are compared with, whatever they are.
        (
            [("m-Q8_0", TAG, "free")],
            [("n", CODE, "gbnf"), ("m-Q8_0", TAG, "free")],
            [("n/multi_code/gbnf", "m-Q8_0/multi_tag/free"), ("m-Q8_0/multi_tag/free", "m-Q8_0/multi_tag/free")],
            {},
        ),
        # Two that would do are none.
        (
            [("m", TAG, "free"), ("n", TAG, "free")],
            [("o", TAG, "free")],
            [],
            {
                "o/multi_tag/free": "several cells of the first run correspond to it: m · c:dev · multi_tag · free; "
                "n · c:dev · multi_tag · free; name the reference",
                "m/multi_tag/free": "no cell of another run corresponds to it",
                "n/multi_tag/free": "no cell of another run corresponds to it",
            },
        ),
        # Nothing in common at all.
        (
            [("m", TAG, "free"), ("n", TAG, "gbnf")],
            [("o", CODE, "grounded")],
            [],
            {
                "o/multi_code/grounded": "no cell of the first run corresponds to it",
                "m/multi_tag/free": "no cell of another run corresponds to it",
                "n/multi_tag/gbnf": "no cell of another run corresponds to it",
            },
        ),
    ],
)
def test_which_cells_correspond(
    tmp_path: Path, first: Cells, second: Cells, expected: list[tuple[str, str]], reasons: dict[str, str]
) -> None:
    made = [Made(tmp_path / "one"), Made(tmp_path / "other")]
    for run, cells in zip(made, (first, second), strict=True):
        for model, form, constraint in cells:
            run.cell(key(model, constraint, form), tallies(0.8))
    found = compare([run.run for run in made], resamples=20)
    assert (paired_keys(found), refused(found)) == (expected, reasons)
    assert found.exit_code == bool(reasons)


def test_corpora_are_told_apart_by_what_is_in_them(tmp_path: Path) -> None:
    one = Made(tmp_path / "one", sha256="a").cell(key("m"), tallies(0.8))
    renamed = Made(tmp_path / "renamed", sha256="a").cell(key("m", corpus="./dev.txt"), tallies(0.8))
    changed = Made(tmp_path / "changed", sha256="b").cell(key("m"), tallies(0.8))
    unknown = Made(tmp_path / "unknown", sha256=None).cell(key("m"), tallies(0.8))
    assert len(compare([one.run, renamed.run], resamples=20).pairs) == 1
    assert len(compare([unknown.run, unknown.run], resamples=20).pairs) == 1
    found = compare([one.run, changed.run], resamples=20)
    assert not found.pairs and [r.reason for r in found.refused] == [
        "no cell of the first run was scored on this corpus, as it is here",
        "no cell of another run corresponds to it",
    ]


def test_more_than_two_runs(tmp_path: Path) -> None:
    runs = [
        Made(tmp_path / name).cell(key("m"), tallies(share)).run for name, share in (("a", 0.8), ("b", 0.8), ("c", 0.5))
    ]
    found = compare(runs)
    assert [(p.place.run.folder.name, p.reference.run.folder.name, p.significant) for p in found.pairs] == [
        ("b", "a", False), ("c", "a", True)
    ]  # fmt: skip


def test_what_has_failed_or_cannot_be_compared_is_named(tmp_path: Path) -> None:
    one = Made(tmp_path / "one")
    for name in ("a", "b", "c", "d", "e"):
        one.cell(key(name), tallies(0.8))
    other = (
        Made(tmp_path / "other").cell(key("a"), tallies(0.8)).cell(key("b")).cell(key("c"), tallies(0.8, labels="XZ"))
    )
    other.cell(key("d"), tallies(0.8)).cell(key("e"), tallies(0.8, documents=[65, 66]))
    other.log({"kind": "repetition", **key("f").to_json(), "threads": 1})
    next((tmp_path / "other" / "counts").glob("d__*")).unlink()
    found = compare([one.run, other.run], resamples=20)
    assert paired_keys(found) == [("a/multi_tag/grounded",) * 2]
    reasons = {name[0]: reason for name, reason in refused(found).items()}
    assert reasons["b"] == "no cell of another run corresponds to it"  # told of the first run's, below of the other's
    assert "has failed: it broke" in [one.reason for one in found.refused]
    assert (
        reasons["c"]
        == "cannot be compared with c · c:dev · multi_tag · grounded: other labels were scored: X, Z and X, Y"
    )
    assert "cannot be read: No such file" in reasons["d"]
    assert reasons["e"].endswith("no document was read by both")
    assert reasons["f"] == "was not scored"
    assert len(found.refused) == 6 and found.exit_code == 1


def test_documents_of_one_alone_are_told(tmp_path: Path) -> None:
    one = Made(tmp_path / "one").cell(key("m"), tallies(0.8))
    other = Made(tmp_path / "other").cell(key("n"), tallies(0.8, documents=range(5, 62)))
    found = compare([one.run, other.run], resamples=20)
    (pair,) = found.pairs
    assert (pair.difference.documents, pair.difference.left_out) == (55, 7)
    assert found.notices == [
        "n · c:dev · multi_tag · grounded, m · c:dev · multi_tag · grounded: "
        "7 documents were read by one of the two alone and are left out"
    ]


def test_ratios_are_of_medians_at_the_most_threads_that_both_have(tmp_path: Path) -> None:
    figures = {"peak_rss_bytes": 100, "decode_tokens_per_s": 10.0, "documents_per_s": 3.0}
    one = Made(tmp_path / "one").cell(key("m-Q8_0"), tallies(0.8), threads=[1, 2], **figures)
    faster = figures | {"decode_tokens_per_s": 15.0, "peak_rss_bytes": 50}
    other = Made(tmp_path / "other").cell(key("m-Q4_K_M"), tallies(0.8), threads=[1, 2, 4], **faster)
    (pair,) = compare([one.run, other.run], resamples=20).pairs
    assert pair.threads == 2
    assert pair.ratios == {
        "model_bytes": 8 / 6, "peak_rss_bytes": 0.5, "decode_tokens_per_s": 1.5, "documents_per_s": 1.0
    }  # fmt: skip
    (tmp_path / "elsewhere").mkdir()
    never = Made(tmp_path / "never").cell(key("m-Q4_K_M"), tallies(0.8), threads=[8], **figures)
    (pair,) = compare([one.run, never.run], resamples=20).pairs
    assert pair.threads is None and [*pair.ratios.values()] == [8 / 6, None, None, None]


def test_figures_of_other_machines_are_told(tmp_path: Path) -> None:
    figures = {"threads": [1], "decode_tokens_per_s": 10.0}
    one = Made(tmp_path / "one", "EPYC").cell(key("m"), tallies(0.8), **figures)
    other = Made(tmp_path / "other", "Xeon").cell(key("m"), tallies(0.8), **figures)
    told = "speed and memory were measured on different machines: EPYC; Xeon"
    assert compare([one.run, other.run], resamples=20).notices == [told]
    assert compare([one.run, one.run], resamples=20).notices == []


@pytest.fixture
def levels(tmp_path: Path) -> Run:
    """One run: a model at three levels and two runtimes, tagged and as code, and another model."""
    made = Made(tmp_path / "levels")
    made.cell(key("m-Q4_K_M"), tallies(0.5)).cell(key("m-F32"), tallies(0.8)).cell(key("m-Q8_0"), tallies(0.8))
    made.cell(key("m-int8-onnx"), tallies(0.8, seed=3)).cell(key("m-F32", "free"), tallies(0.7))
    made.cell(key("m-Q8_0", format="multi_code")).cell(key("m-Q4_K_M", format="multi_code"), tallies(0.5))
    made.cell(key("m-int8-onnx", format="multi_code"), tallies(0.5)).cell(key("other"), tallies(0.9))
    return made.run


def test_every_level_against_the_one_with_the_most_bits(levels: Run) -> None:
    found = versus_reference(levels, resamples=500)
    assert {cell: row["reference"] for cell, row in found.items()} == {
        key("m-Q4_K_M"): key("m-F32"),
        key("m-Q8_0"): key("m-F32"),
        key("m-int8-onnx"): key("m-F32"),
        key("m-Q4_K_M", format="multi_code"): key("m-int8-onnx", format="multi_code"),  # Q8_0 has failed
    }
    assert [row["significant"] for row in found.values()] == [True, False, False, False]
    lost = found[key("m-Q4_K_M")]
    expected = compare_paired(tallies(0.5), tallies(0.8), resamples=500)
    assert (lost["difference"], lost["low"], lost["high"], lost["p"]) == (
        expected.difference, expected.low, expected.high, expected.p
    )  # fmt: skip
    assert lost["p_holm"] == pytest.approx(4 * lost["p"])


def test_a_reference_that_is_named(levels: Run) -> None:
    found = versus_reference(levels, "Q8_0", resamples=20)
    assert {row["reference"] for row in found.values()} == {key("m-Q8_0")}
    assert set(found) == {key("m-Q4_K_M"), key("m-F32"), key("m-int8-onnx")}
    found = versus_reference(levels, "m-F32", resamples=20)  # has two cells: each is the reference of its like
    assert set(found) == {key(name) for name in ("m-Q4_K_M", "m-Q8_0", "m-int8-onnx", "other")}
    assert {row["reference"] for row in found.values()} == {key("m-F32")}
    found = versus_reference(levels, "other", resamples=20)  # has one: of all
    assert len(found) == 7 and {row["reference"] for row in found.values()} == {key("other")}
    with pytest.raises(UsageError) as raised:
        versus_reference(levels, "Q2_K")
    names = "F32, Q4_K_M, Q8_0, int8, m-F32, m-Q4_K_M, m-Q8_0, m-int8-onnx, other"
    assert str(raised.value) == f"unknown level or model 'Q2_K'; known: {names}"


def test_each_corpus_has_its_own_reference(tmp_path: Path) -> None:
    made = Made(tmp_path / "two", sha256=None)
    cells = [key(model, corpus=corpus) for corpus in ("c:dev", "d:dev") for model in ("m-F32", "m-Q8_0")]
    for cell in cells:
        made.cell(cell, tallies(0.8))
    found = versus_reference(made.run, resamples=20)
    assert {cell: row["reference"] for cell, row in found.items()} == {cells[1]: cells[0], cells[3]: cells[2]}


def test_one_run_alone(levels: Run) -> None:
    found = compare([levels], resamples=20)
    assert len(found.pairs) == 4
    alone = "nothing else of this model was scored in this format and constraint"
    assert refused(found) == {
        "m-Q8_0/multi_code/grounded": "has failed: it broke",
        "m-F32/multi_tag/free": alone,
        "other/multi_tag/grounded": alone,
    }
    found = compare([levels], "Q8_0", resamples=20)
    missing = "there is no score of Q8_0 in this format and constraint"
    assert refused(found)["m-Q4_K_M/multi_code/grounded"] == missing


def test_one_cell_as_the_reference_of_all(levels: Run, tmp_path: Path) -> None:
    elsewhere = Made(tmp_path / "elsewhere", sha256="d").cell(key("m-F32", corpus="d:dev"), tallies(0.8)).run
    found = compare([levels, elsewhere], key("other"), resamples=20)
    assert {reference for _, reference in paired_keys(found)} == {"other/multi_tag/grounded"}
    assert len(found.pairs) == 7
    assert refused(found) == {
        "m-Q8_0/multi_code/grounded": "has failed: it broke",
        "m-F32/multi_tag/grounded": "another corpus than that of other · c:dev · multi_tag · grounded",
    }


def test_a_reference_that_is_not_there_or_has_no_score(levels: Run) -> None:
    with pytest.raises(UsageError, match="unknown cell 'none · c:dev · multi_tag · grounded'; known: m-Q4_K_M · c:dev"):
        compare([levels], key("none"))
    with pytest.raises(InputError, match="levels: the reference, m-Q8_0 · c:dev · multi_code · grounded, has failed"):
        compare([levels], key("m-Q8_0", format="multi_code"))
    with pytest.raises(UsageError, match="unknown mode 'lenient'; known: strict, exact, relaxed, surface"):
        compare([levels], mode="lenient")


@pytest.mark.parametrize(
    ("model", "level", "name"),
    [
        ("m-Q8_0", "Q8_0", "m"),
        ("m-Q8_0.gguf", "Q8_0", "m"),
        ("m-int8-onnx", "int8", "m"),
        ("m-int8-onnx.onnx", "int8", "m"),
        ("m-onnx", "int8", "m"),
        ("m-1.5b-Q4_K_M", "Q4_K_M", "m-1.5b"),
        ("m-Q8_0@dist", "Q8_0", "m@dist"),  # of another folder: another model, as far as one can tell
        ("m", "Q8_0", "m"),
        ("spacy-onnxed", "", "spacy-onnxed"),
        ("m-Q8_0", None, "m-Q8_0"),
    ],
)
def test_the_name_of_a_model_without_its_level(model: str, level: str | None, name: str) -> None:
    assert family(Cell(key(model), Path(), {"level": level} if level is not None else {})) == name


def test_modes_and_seeds(tmp_path: Path) -> None:
    """All that is wrong is one character off: relaxed finds no difference."""
    one = Made(tmp_path / "one").cell(key("m"), tallies(0.8))
    other = Made(tmp_path / "other").cell(key("m"), tallies(0.5, seed=1))
    runs = [one.run, other.run]
    assert compare(runs, mode="relaxed", resamples=99).pairs[0].difference.differing == 0
    assert compare(runs, seed=1, resamples=99).to_json() == compare(runs, seed=1, resamples=99).to_json()
    assert (
        compare(runs, seed=1, resamples=99).pairs[0].difference
        != compare(runs, seed=2, resamples=99).pairs[0].difference
    )


def test_json(levels: Run) -> None:
    found = json.loads(json.dumps(compare([levels], seed=4, resamples=99).to_json()))
    assert (found["mode"], found["seed"], len(found["pairs"]), len(found["refused"])) == ("strict", 4, 4, 3)
    pair = found["pairs"][0]
    assert pair["cell"] == key("m-Q4_K_M").to_json() and pair["reference"] == key("m-F32").to_json()
    assert pair["difference"] == pytest.approx(pair["f1"] - pair["reference_f1"])
    assert (pair["documents"], pair["left_out"], pair["significant"], pair["threads"]) == (60, 0, True, None)
    assert pair["run"] == pair["reference_run"] == str(levels.folder)
    assert pair["ratios"]["model_bytes"] == pytest.approx(8 / 5)
    assert found["refused"][0]["reason"] == "has failed: it broke"


def shown(found: Comparison, width: int) -> str:
    stream = io.StringIO()
    for table in tables(found):
        Console(file=stream, width=width).print(table)
    return stream.getvalue()


@pytest.mark.parametrize("width", [80, 100])
def test_tables(levels: Run, width: int) -> None:
    found = compare([levels], resamples=99)
    out = shown(found, width)
    assert "Strict F1: c:dev · grounded" in out and "Size and speed" in out and "Not compared" in out
    lines = out.splitlines()
    place = next(n for n, line in enumerate(lines) if line.strip().startswith("m-Q4_K_M"))
    d = found.pairs[0].difference
    row = lines[place].split()
    assert f"{d.scores[1]:.4f} → {d.scores[0]:.4f}" in lines[place] and f"{d.difference:+.4f}" in row
    assert row[-1] == f"{d.differing}/60" and "*" in row
    assert any(line.strip() == "vs m-F32" for line in lines[place : place + 3])
    assert "* p is below 0.05, adjusted for 4 comparisons." in " ".join(out.split())
    assert "has failed: it broke" in " ".join(out.split())
    assert "…" not in out and max(map(len, lines)) <= width


def test_tables_name_runs_where_cells_are_called_the_same(tmp_path: Path) -> None:
    runs = [Made(tmp_path / name).cell(key("m\x1b[1m"), tallies(0.8)).run for name in ("a", "b")]
    out = shown(compare(runs, resamples=20), 120)
    lines = [line.split() for line in out.splitlines()]
    assert ["vs", "a"] in lines and any(line[:1] == ["b"] for line in lines)
    assert "\x1b" not in out and "Not compared" not in out
    (tmp_path / "x").mkdir()
    runs[1] = Made(tmp_path / "x" / "a").cell(key("m\x1b[1m"), tallies(0.8)).run
    assert str(tmp_path / "x" / "a") in shown(compare(runs, resamples=20), 400)


def test_names_cannot_do_anything_to_a_terminal(tmp_path: Path) -> None:
    made = (
        Made(tmp_path / "one").cell(key("m\x1b[1m"), tallies(0.8)).cell(key("[red]m"), tallies(0.8)).cell(key("\x1b"))
    )
    out = shown(compare([made.run], key("m\x1b[1m"), resamples=20), 120)
    assert "\x1b" not in out and "vs m\ufffd[1m" in out and "[red]m" in out


def test_what_was_not_measured_is_a_dash(tmp_path: Path) -> None:
    figures = {"threads": [2], "decode_tokens_per_s": 10.0}
    runs = [Made(tmp_path / name).cell(key("m"), tallies(0.8), **figures).run for name in ("a", "b")]
    lines = [line.split() for line in shown(compare(runs, resamples=20), 100).splitlines()]
    assert ["b", "1×", "–", "1×", "–", "2"] in lines


def test_nothing_to_compare_is_one_table(tmp_path: Path) -> None:
    found = compare([Made(tmp_path / "one").cell(key("m")).run])
    assert [table.title and str(table.title) for table in tables(found)] == ["Not compared"]


def test_ten_thousand_draws_are_usual(tmp_path: Path) -> None:
    """The smallest p is that of none among them which contradicts the difference."""
    runs = [Made(tmp_path / name).cell(key("m"), tallies(share)).run for name, share in (("a", 0.9), ("b", 0.1))]
    assert compare(runs).pairs[0].difference.p == 1 / 10_001
