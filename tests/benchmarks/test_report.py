"""Reports of runs that are made up here: every figure is told once, and nothing that a name says does harm."""

from __future__ import annotations

import base64
import io
import os
import random
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Mapping, Sequence
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from bioner_edge.benchmarks import report
from bioner_edge.benchmarks.comparing import compare
from bioner_edge.benchmarks.comparing.compare import versus_reference
from bioner_edge.benchmarks.cost import CostInputs, costs
from bioner_edge.benchmarks.report import figures, styles
from bioner_edge.benchmarks.report.entries import AXES, Entry, gather, groups
from bioner_edge.benchmarks.report.figures import Sheet, Value
from bioner_edge.benchmarks.report.labels import Box, free_place
from bioner_edge.benchmarks.report.pareto import front
from bioner_edge.benchmarks.report.rows import cell_sheets
from bioner_edge.benchmarks.report.setup import setup_sheets
from bioner_edge.benchmarks.results import Key, Log, Run, Stat
from bioner_edge.benchmarks.scoring import accuracy
from bioner_edge.benchmarks.scoring.accuracy import MODES, Tallies
from bioner_edge.errors import InputError

LABELS = ("Chemical", "Disease")
DOCUMENTS = 24
HEADER: dict[str, Any] = {
    "kind": "run",
    "schema": 1,
    "started": "2026-01-02T03:04:05+00:00",
    "command": ["bioner-edge", "bench", "run", "--models", "my models/"],
    "seed": 7,
    "settings": {"repetitions": 3, "threads": [1, 2]},
    "machine": {
        "processor": "Abacus 9000",
        "cores": 2,
        "memory_bytes": 8_000_000_000,
        "platform": "Linux-6",
        "flags": ["avx2", "fma"],
    },
    "versions": {"llama-cpp-python": "0.3.36", "numpy": "2.4"},
    "copy_bytes_per_s": {"1": 14.0e9, "2": 28.0e9},
}
CORPUS: dict[str, Any] = {
    "kind": "corpus",
    "corpus": "made:dev",
    "sha256": "c0ffee" * 10,
    "documents": DOCUMENTS,
    "entities": 240,
    "notices": ["line 3: a row that could not be used"],
    "license": "CC0",
}


def model_line(name: str, level: str, **more: Any) -> dict[str, Any]:
    return {
        "kind": "model",
        "model": name,
        "path": f"dist/{name}.gguf",
        "level": level,
        "runtime": "llama.cpp",
        "bytes": 10_200_000,
        "sha256": "ab" * 32,
        "bits_per_weight": {"F32": 32.0, "Q8_0": 8.5}.get(level, 5.0),
        "formats": ["multi_tag"],
        "labels": list(LABELS),
        "needed_bytes": 60_000_000,
        **more,
    }


def tallies(hits: int, seed: int = 0) -> Tallies:
    """Twelve gold and ten predicted entities of each label in each document; so many or one less are right."""
    fate = random.Random(seed)
    counts = np.zeros((len(MODES), DOCUMENTS, len(LABELS), 4), np.int64)
    for document in range(DOCUMENTS):
        for label in range(len(LABELS)):
            right = max(0, hits - fate.randint(0, 1))
            counts[:, document, label] = (right, 10, right, 12)
    return Tallies([f"d{n}" for n in range(DOCUMENTS)], LABELS, counts)


def accuracy_line(key: Key, counts: Tallies, **more: Any) -> dict[str, Any]:
    figures = accuracy.scores(counts)
    for found in figures.values():
        for s in (found["micro"], found["macro"], *found["labels"].values()):
            s.update(low=max(0.0, s["f1"] - 0.03), high=min(1.0, s["f1"] + 0.02))
    return {
        "kind": "accuracy",
        **key.to_json(),
        "tuned": True,
        "labels": list(LABELS),
        "documents": DOCUMENTS,
        "seconds": 6.0,
        "load_s": 0.05,
        "answers": 48,
        "calls": 500,
        "fed": 900,
        "tokens": 700,
        "scores": figures,
        "ceiling": {"precision": 1.0, "recall": 0.99, "f1": 0.995, "tp": 1, "fp": 0, "fn": 0},
        "broken": {
            "documents": 3,
            "answers": 4,
            "problems": 5,
            "kinds": {"syntax": 2, "ungrounded": 3, "cut": 0},
            "salvaged": 1,
            "astray": 0,
        },
        **more,
    }


def repetition_line(key: Key, threads: int, number: int, **more: Any) -> dict[str, Any]:
    speed = 1 + 0.01 * number
    return {
        "kind": "repetition",
        **key.to_json(),
        "threads": threads,
        "number": number,
        "documents": 4,
        "seconds": 1.0 / speed,
        "load_s": 0.05,
        "ttft_s": 0.02,
        "latencies_s": [0.2 / threads, 0.4 / threads, 0.6 / threads, 0.8 / threads],
        "prefill_tokens_per_s": 900.0 * threads * speed,
        "decode_tokens_per_s": 100.0 * threads * speed,
        "documents_per_s": 2.0 * threads * speed,
        "calls_per_answer": 20.0,
        "tokens_per_answer": 30.0,
        "forced_share": 0.4,
        "peak_rss_bytes": 91_000_000 + number,
        "anonymous_bytes": 60_000_000,
        "file_bytes": 30_000_000,
        "before_bytes": 25_000_000,
        "model_bytes": 10_200_000,
        "cache_bytes": 4_000_000,
        "read_bytes_per_s": 1.4e9,
        "bandwidth_share": 0.05,
        "energy_j": None,
        "energy_told": "no RAPL on this machine",
        **more,
    }


class MadeUp:
    """A run's folder, to which lines are added."""

    def __init__(self, folder: Path, **header: Any) -> None:
        folder.mkdir(parents=True)
        (folder / "counts").mkdir()
        self.folder, self.log = folder, Log(folder)
        self.log.append(HEADER | header)
        self.log.append(CORPUS)

    def cell(
        self,
        name: str = "m-Q8_0",
        level: str = "Q8_0",
        form: str = "multi_tag",
        constraint: str = "grounded",
        *,
        hits: int = 8,
        threads: Sequence[int] = (1, 2),
        corpus: str = "made:dev",
        scored: Mapping[str, Any] | None = None,
        timed: Mapping[str, Any] | None = None,
    ) -> Key:
        """A cell that was read and timed; `scored` and `timed` are put into its lines."""
        key = Key(name, corpus, form, constraint)
        self.log.append(model_line(name, level))
        counts = tallies(hits, seed=len(name))
        counts.save(self.folder / "counts" / f"{key.slug}.json")
        self.log.append(accuracy_line(key, counts, **(scored or {})))
        for n in range(1, 4):
            for at in threads:
                self.log.append(repetition_line(key, at, n, **(timed or {})))
        return key

    def failed(self, key: Key, reason: str, *, phase: str = "read", predicted: bool = False, **more: Any) -> None:
        told = {"phase": phase, "reason": reason, "predicted": predicted, **more}
        self.log.append({"kind": "failed", **key.to_json(), **told})

    def load(self) -> Run:
        return Run.load(self.folder)


INPUTS = CostInputs.load()
HOSTILE = 'a|b<script>alert(1)</script>[x](http://evil)`$\\frac$" onload="x\n\x1b[31m\u202e#1a1d21'


def entries_of(*runs: Run) -> list[Entry]:
    return gather(runs, INPUTS, [{} for _ in runs])


def sheets_of(*runs: Run) -> dict[str, Sheet]:
    entries = gather(runs, INPUTS, [versus_reference(run, seed=HEADER["seed"]) for run in runs])
    return {sheet.name: sheet for sheet in [*cell_sheets(entries, INPUTS), *setup_sheets(runs, entries, INPUTS)]}


def written(run: Run, out: Path) -> tuple[str, str]:
    """Markdown and HTML of a run."""
    report.write([run], out, INPUTS)
    return texts(out)


def texts(out: Path) -> tuple[str, str]:
    """Markdown and HTML of a report."""
    return (out / "report.md").read_text("utf-8"), (out / "report.html").read_text("utf-8")


def seen(value: Value) -> str:
    return f"{value.text} ({value.range})" if value.range else value.text


class Page(HTMLParser):
    """The tables of a page by the id of the heading above them, its tags, attributes and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.sorts: dict[str, list[list[str | None]]] = {}
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.scripts = ""
        self._section, self._in, self._cell = "", "", False
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attributes}
        self.tags.append(tag)
        self.attributes += given.items()
        if tag == "h2":
            self._section = given["id"]
        elif tag == "table":
            self.tables[self._section], self.sorts[self._section] = [], []
        elif tag == "tr":
            self.tables[self._section].append([])
            self.sorts[self._section].append([])
        elif tag in ("td", "th"):
            self.tables[self._section][-1].append("")
            self.sorts[self._section][-1].append(given.get("data-sort"))
            self._cell = True
        elif tag == "small":
            self.tables[self._section][-1][-1] += " ("
        elif tag == "script":
            self._in = "script"

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._cell = False
        elif tag == "small":
            self.tables[self._section][-1][-1] += ")"
        elif tag == "script":
            self._in = ""

    def handle_data(self, data: str) -> None:
        if self._cell:
            self.tables[self._section][-1][-1] += data
        elif self._in == "script":
            self.scripts += data


def markdown_tables(text: str) -> dict[str, list[list[str]]]:
    """The tables of a Markdown document by their headings, with what was escaped as it was."""
    found = {}
    for section in text.split("\n## ")[1:]:
        lines = [line for line in section.split("\n") if line.startswith("|")]
        cells = [re.split(r"(?<!\\) ?\| ?", line)[1:-1] for line in lines]
        found[section.split("\n")[0]] = [[re.sub(r"\\(.)", r"\1", cell) for cell in row] for row in cells]
    return found


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two levels and three constraints, one model that does not fit, one that fails, an untuned format."""
    made = MadeUp(tmp_path_factory.mktemp("several") / "today")
    made.cell("m-F32", "F32", hits=9, timed={"peak_rss_bytes": 150_000_000})
    made.cell("m-Q8_0", "Q8_0", hits=8)
    made.cell("m-Q8_0", "Q8_0", constraint="free", hits=4, timed={"decode_tokens_per_s": 900.0})
    made.cell("m-Q8_0", "Q8_0", form="multi_code", hits=7, scored={"tuned": False, "ceiling": None})
    made.log.append(model_line("big-F16", "F16"))
    made.failed(
        Key("big-F16", "made:dev", "multi_tag", "grounded"), "needs 15 GB, 7 are free", phase="memory", predicted=True
    )
    made.log.append(model_line("bad", ""))
    made.failed(Key("bad", "made:dev", "multi_tag", "gbnf"), "killed by SIGKILL")
    return made.load()


@pytest.fixture(scope="module")
def told_of_several(several: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of their report, which takes seconds to draw."""
    out = tmp_path_factory.mktemp("report") / "out"
    written(several, out)
    return out


# The front.

POINTS = st.lists(st.tuples(st.integers(0, 5).map(float), st.integers(0, 5).map(float)), max_size=12)


@given(points=POINTS, less=st.booleans())
def test_the_front_is_what_nothing_beats(points: list[tuple[float, float]], less: bool) -> None:
    sign = -1 if less else 1

    def beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
        better = (sign * (one[0] - other[0]), one[1] - other[1])
        return min(better) >= 0 and max(better) > 0

    expected = {i for i, p in enumerate(points) if not any(beats(q, p) for q in points)}
    found = front(points, less_is_better=less)
    assert set(found) == expected
    assert len(found) == len(set(found))
    ranked = [points[i][0] for i in found]
    assert ranked == sorted(ranked, reverse=not less), "best figure first"


def test_fronts_by_hand() -> None:
    assert front([]) == []
    assert front([(1.0, 0.5)]) == [0]
    # Of memory less is better: 100 MB for 0.8 and 50 MB for 0.7; 120 MB for 0.8 is beaten, 100 MB is there twice.
    points = [(100.0, 0.8), (50.0, 0.7), (120.0, 0.8), (100.0, 0.8)]
    assert sorted(front(points, less_is_better=True)) == [0, 1, 3]
    assert sorted(front(points)) == [2]


# Names in pictures.

SIZE = st.tuples(st.floats(5, 80), st.floats(5, 15))


@given(points=st.lists(st.tuples(st.floats(0, 300), st.floats(0, 200)), min_size=1, max_size=8), size=SIZE)
def test_no_name_hides_another(points: list[tuple[float, float]], size: tuple[float, float]) -> None:
    within = (0.0, 0.0, 300.0, 200.0)
    taken: list[Box] = []
    for point in points:
        box = free_place(point, size, taken, within, 1.0)
        if box:
            assert box[0] >= 0 and box[1] >= 0 and box[2] <= 300 and box[3] <= 200
            assert (box[2] - box[0], box[3] - box[1]) == pytest.approx(size)
            for other in taken:
                apart = box[0] >= other[2] or other[0] >= box[2] or box[1] >= other[3] or other[1] >= box[3]
                assert apart
            taken.append(box)


def test_a_name_goes_to_the_right_where_it_can_and_nowhere_where_it_cannot() -> None:
    box = free_place((50.0, 50.0), (20.0, 10.0), [], (0.0, 0.0, 200.0, 100.0), 1.0)
    assert box == (59.0, 45.0, 79.0, 55.0)
    left = free_place((190.0, 50.0), (20.0, 10.0), [], (0.0, 0.0, 200.0, 100.0), 1.0)
    assert left == (161.0, 45.0, 181.0, 55.0)
    assert free_place((50.0, 50.0), (500.0, 10.0), [], (0.0, 0.0, 200.0, 100.0), 1.0) is None


def test_cells_are_called_by_what_tells_them_apart(several: Run) -> None:
    entries = [entry for entry in entries_of(several) if entry.cell.accuracy]
    assert styles.names(entries[:2]) == ["F32", "Q8_0"]
    assert styles.names(entries[1:3]) == ["grounded", "free"]
    beside = styles.names(entries, beside_shapes=True)
    assert beside == ["F32 multi_tag", "Q8_0 multi_tag", "Q8_0 multi_tag", "Q8_0 multi_code"]
    assert styles.names(entries)[1:3] == ["Q8_0 multi_tag grounded", "Q8_0 multi_tag free"]
    assert styles.names(entries[:1]) == ["m F32"]
    assert styles.shorten("x" * 60 + "-Q4_K_M").endswith("-Q4_K_M")
    assert len(styles.shorten("x" * 60)) == 34


def test_colours_tell_models_apart_then_levels(tmp_path: Path) -> None:
    made = MadeUp(tmp_path / "run")
    for n in range(4):
        for level in ("F32", "Q8_0"):
            made.cell(f"m{n}-{level}", level, threads=())
    entries = entries_of(made.load())
    tints, meaning = styles.colours(entries[:6])
    assert len(set(tints)) == 6 and list(meaning) == ["m0 F32", "m0 Q8_0", "m1 F32", "m1 Q8_0", "m2 F32", "m2 Q8_0"]
    tints, meaning = styles.colours(entries)
    assert list(meaning) == ["F32", "Q8_0"] and tints[0] == tints[2] != tints[1]


def test_rare_levels_share_a_grey(tmp_path: Path) -> None:
    made = MadeUp(tmp_path / "run")
    for n in range(9):
        made.cell(f"m{n}-L{n}", f"L{n}", threads=())
    tints, meaning = styles.colours(entries_of(made.load()))
    assert list(meaning) == ["L0", "L1", "L2", "L3", "L4", "L5", "others"]
    assert tints[6] == tints[8] == meaning["others"]
    assert len(set(tints)) == 7


# Figures.


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (figures.number(0.0), "0"),
        (figures.number(3), "3"),
        (figures.number(1234567), "1,234,567"),
        (figures.number(3.0), "3.00"),
        (figures.number(0.00123456), "0.00123"),
        (figures.number(99.94), "99.9"),
        (figures.number(99.96), "100"),
        (figures.number(1234.6), "1,235"),
        (figures.number(None), "–"),
        (figures.score(0.80005), "0.8001"),
        (figures.score(0.5, 0.4, 0.6), "0.5000 (0.400–0.600)"),
        (figures.signed_value(-0.0123, -0.02, 0.001), "−0.0123 (−0.0200 to +0.0010)"),
        (figures.signed_value(-0.00001, 0.0, 0.0), "0.0000 (0.0000 to 0.0000)"),
        (figures.megabytes(10_200_000), "10.2"),
        (figures.stat(Stat(2e6, 1e6, 3e6), 1e6), "2.00 (1.00–3.00)"),
        (figures.stat(Stat(2.0, 2.0, 2.0)), "2.00"),
        (figures.stat(Stat(2.0, 1.9999, 2.0001)), "2.00"),
        (figures.stat(None), "–"),
        (figures.text("a\nb\x1b[0m"), "a b\ufffd[0m"),
        (figures.text(""), "–"),
    ],
)
def test_how_figures_are_written(value: Value, told: str) -> None:
    assert seen(value) == told


def test_costs_are_those_of_the_most_threads(several: Run) -> None:
    entry = entries_of(several)[1]
    speed = entry.cell.figure("documents_per_s", 2)
    assert speed and speed.median == pytest.approx(4.08)
    assert entry.costs == costs(speed.median, 91_000_002, None, INPUTS)
    row = sheets_of(several)["cost"].rows[1]
    assert entry.costs
    assert row["cost"].sort == entry.costs.cost
    assert row["cost"].text.startswith("~"), "it rests on assumptions"
    assert not row["hours_per_10000"].text.startswith("~"), "it was measured"
    assert row["ram"].text == "~4 GB"
    assert row["break_even"].text == "~100,000"


def test_measured_energy_counts_by_document_and_its_lack_is_explained(tmp_path: Path) -> None:
    made = MadeUp(tmp_path / "run")
    made.cell("m-Q8_0", timed={"energy_j": 8.0, "energy_told": ""})
    made.cell("n-Q8_0")
    sheets = sheets_of(made.load())
    measured, unmeasured = sheets["cost"].rows
    assert measured["kwh"].sort == pytest.approx(1000 * 2.0 / 3.6e6)
    assert not measured["kwh"].text.startswith("~")
    assert unmeasured["kwh"].text.startswith("~")
    assert [row["energy"].text for row in sheets["memory"].rows] == ["2.00", "2.00", "n/a", "n/a"]
    assert "n/a: no RAPL on this machine" in sheets["memory"].notes


def test_a_cell_that_reads_too_slowly_never_breaks_even(tmp_path: Path) -> None:
    made = MadeUp(tmp_path / "run")
    made.cell(timed={"documents_per_s": 0.03})
    made.cell("m-F32", "F32", timed={"documents_per_s": None})
    sheets = sheets_of(made.load())
    (row,) = sheets["cost"].rows
    assert seen(row["break_even"]) == "~never (reads 78,840 at most)"
    assert sheets["overview"].rows[1]["cost"].text == "–", "no speed, no costs"


# Sheets.


def test_sheets_are_whole(several: Run) -> None:
    for sheet in sheets_of(several).values():
        keys = [column.key for column in sheet.columns]
        assert len(set(keys)) == len(keys), sheet.name
        assert sheet.rows, sheet.name
        for row in sheet.rows:
            assert all(value.text for value in row.values()), sheet.name
            figures = {column.key for column in sheet.columns if not column.identifies}
            assert figures & row.keys(), f"{sheet.name}: a row without a figure"


def test_every_cell_is_in_the_report_with_its_state(several: Run) -> None:
    sheets = sheets_of(several)
    told = [(row["model"].text, row["level"].text, row["f1"].text) for row in sheets["overview"].rows]
    assert [t[:2] for t in told] == [("m", "F32"), *[("m", "Q8_0")] * 3, ("big", "F16"), ("bad", "–")]
    assert [t[2] for t in told[4:]] == ["does not fit", "failed"]
    assert [row["f1"].text for row in sheets["accuracy"].rows] == [t[2] for t in told]
    assert [row["reason"].text for row in sheets["failed"].rows] == ["needs 15 GB, 7 are free", "killed by SIGKILL"]
    assert [row["phase"].text for row in sheets["failed"].rows] == ["predicted not to fit, never started", "read"]
    assert [row["threads"].text for row in sheets["speed"].rows[-2:]] == ["does not fit", "failed"]


def test_what_could_be_timed_only_in_part_shows_both(tmp_path: Path) -> None:
    made = MadeUp(tmp_path / "run")
    key = made.cell(threads=(1,))
    made.failed(key, "killed", phase="repetition", threads=2)
    made.log.append(model_line("n", ""))
    sheets = sheets_of(made.load())
    assert [row["threads"].text for row in sheets["speed"].rows] == ["1", "2: failed"]
    assert sheets["accuracy"].rows[0]["f1"].sort is not None
    assert len(sheets["failed"].rows) == 1


def test_a_cell_that_is_not_measured_yet_says_so(tmp_path: Path) -> None:
    made = MadeUp(tmp_path / "run")
    key = Key("m-Q8_0", "made:dev", "multi_tag", "grounded")
    made.log.append(repetition_line(key, 1, 1))
    assert sheets_of(made.load())["overview"].rows[0]["f1"].text == "not measured"


def test_scores_stand_where_they_belong(several: Run) -> None:
    sheets = sheets_of(several)
    micro = several.cells[0].accuracy["scores"]  # type: ignore[index]
    row = sheets["accuracy"].rows[0]
    strict = micro["strict"]["micro"]
    assert seen(row["f1"]) == f"{strict['f1']:.4f} ({strict['low']:.3f}–{strict['high']:.3f})"
    assert row["precision"].sort == strict["precision"] and row["recall"].sort == strict["recall"]
    assert row["ceiling"].text == "0.9950" and sheets["accuracy"].rows[3]["ceiling"].text == "–"
    assert row["broken"].text == "3 of 24"
    assert seen(sheets["accuracy"].rows[3]["format"]) == "multi_code (untuned)"
    modes = sheets["modes"].rows[0]
    assert {mode: modes[mode].sort for mode in MODES} == {mode: micro[mode]["micro"]["f1"] for mode in MODES}
    assert modes["macro"].sort == micro["strict"]["macro"]["f1"]
    labels = sheets["labels"].rows[:2]
    assert [row["label"].text for row in labels] == list(LABELS)
    of = micro["strict"]["labels"]["Disease"]
    assert [labels[1][name].sort for name in ("tp", "fp", "fn")] == [of["tp"], of["fp"], of["fn"]]
    broken = sheets["broken"].rows[0]
    assert [broken[name].text for name in ("documents", "answers", "problems", "syntax", "cut", "salvaged")] == [
        "3 of 24",
        "4 of 48",
        "5",
        "2",
        "0",
        "1",
    ]


def test_predictions_of_other_tools_tell_less(tmp_path: Path) -> None:
    made = MadeUp(tmp_path / "run")
    broken = {"documents": 1, "answers": None, "problems": 2, "kinds": {"odd": 2}, "salvaged": None, "astray": 3}
    unread = {"missing": 1, "changed": 2, "failed": 0}
    made.cell("tool", "", threads=(), scored={"answers": None, "broken": broken, "unpredicted": unread})
    sheets = sheets_of(made.load())
    row = sheets["broken"].rows[0]
    told = {name: row[name].text for name in ("answers", "odd", "salvaged", "astray", "unread")}
    assert told == {"answers": "–", "odd": "2", "salvaged": "–", "astray": "3", "unread": "3"}
    assert "speed" not in sheets, "nothing was timed"


def test_speed_is_the_median_with_its_spread(several: Run) -> None:
    rows = sheets_of(several)["speed"].rows
    one, two = rows[2], rows[3]
    assert (one["threads"].text, two["threads"].text, two["repetitions"].text) == ("1", "2", "3")
    assert seen(two["documents"]) == "4.08 (4.04–4.12)"
    assert seen(one["decode"]) == "102 (101–103)"
    for waiting, told in zip(
        sheets_of(several)["waiting"].rows[2:4], (["0.400", "0.800"], ["0.200", "0.400"]), strict=True
    ):
        assert [waiting[name].text for name in ("p50", "p90")] == told
    memory = sheets_of(several)["memory"].rows[2]
    names = ("peak_rss_bytes", "anonymous_bytes", "file_bytes", "before_bytes", "on_disk", "cache_bytes")
    assert [memory[name].text for name in names] == ["91.0", "60.0", "30.0", "25.0", "10.2", "4.00"]
    decoding = sheets_of(several)["decoding"].rows[2]
    assert [decoding[name].text for name in ("calls_per_answer", "forced_share", "read")] == ["20.0", "0.400", "1.40"]


def test_differences_to_the_reference_are_those_of_compare(several: Run) -> None:
    expected = versus_reference(several, seed=HEADER["seed"])
    (row,) = sheets_of(several)["reference"].rows
    (key, versus) = next(iter(expected.items()))
    assert (key.model, row["model"].text, row["level"].text, row["reference"].text) == ("m-Q8_0", "m", "Q8_0", "F32")
    assert row["difference"].sort == versus["difference"] < 0
    assert (row["p"].sort, row["p_holm"].sort) == (versus["p"], versus["p_holm"])
    assert row["significant"].text == ("yes" if versus["significant"] else "no") == "yes"


@pytest.mark.usefixtures("undrawn")
def test_the_comparison_has_the_seed_of_the_run_and_the_reference_that_was_asked_for(
    several: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(compare, "versus_reference", lambda run, reference, seed: asked.append((reference, seed)) or {})
    report.tables([several], INPUTS)
    report.tables([several], INPUTS, reference="Q8_0")
    report.write([several], tmp_path / "out", INPUTS, reference="m-F32")
    assert asked == [(None, 7), ("Q8_0", 7), ("m-F32", 7)]


def test_unbeaten_cells_are_marked_with_what_they_are_unbeaten_at(several: Run) -> None:
    marks = [row["front"] for row in sheets_of(several)["overview"].rows]
    assert [mark.sort for mark in marks[:4]] == [3, 1, 1, None]
    told = [mark.text for mark in marks]
    # F32: the best F1. Q8_0: less memory. Q8_0 free: many more tokens, but no fewer bytes than Q8_0.
    assert told[:4] == ["memory, tokens/s, documents/s", "memory", "tokens/s", "–"]


def test_names_are_short_only_where_no_two_models_are_called_the_same(tmp_path: Path) -> None:
    made = MadeUp(tmp_path / "run")
    made.cell("m-Q8_0", "Q8_0", threads=())
    made.cell("m", "Q8_0", threads=())
    made.cell("n-F32", "F32", threads=())
    made.cell("n-F32-onnx", "F32", threads=())
    made.cell("o-int8-onnx", "int8", threads=())
    assert [e.model for e in entries_of(made.load())] == ["m-Q8_0", "m", "n-F32", "n-F32-onnx", "o"]


def test_several_runs_and_corpora_are_told_apart(tmp_path: Path) -> None:
    one, two = MadeUp(tmp_path / "a" / "run"), MadeUp(tmp_path / "b" / "run")
    one.cell()
    two.cell(hits=6, corpus="other:test")
    runs = [one.load(), two.load()]
    sheets = sheets_of(*runs)
    headings = [column.heading for column in sheets["overview"].columns[:3]]
    assert headings == ["run", "corpus", "model"]
    assert [row["run"].text for row in sheets["overview"].rows] == [str(run.folder) for run in runs]
    names = {path.name for path in report.write(runs, tmp_path / "out", INPUTS)}
    assert {"f1-memory-made-dev.png", "f1-memory-other-test.png", "formats-other-test.png"} <= names
    assert len(names) == 10


def test_cells_scored_on_other_documents_are_no_rivals(tmp_path: Path) -> None:
    made = MadeUp(tmp_path / "run")
    made.cell("m-Q8_0", "Q8_0", hits=9)
    made.cell("n-Q8_0", "Q8_0", hits=5, scored={"documents": 3})
    run = made.load()
    assert len(groups(entries_of(run))) == 2
    overview = sheets_of(run)["overview"]
    assert all("memory" in row["front"].text for row in overview.rows), "each is alone on its documents"
    assert any("not all cells were scored on the same documents" in note for note in overview.notes)


def test_the_setting_is_told_in_full(several: Run, told_of_several: Path) -> None:
    for told in texts(told_of_several):
        plain = told.replace("\\", "")
        for fact in ("Abacus 9000", "avx2 fma", "0.3.36", "ab" * 32, "c0ffee" * 10, "a row that could not be", "CC0"):
            assert fact in plain
        for name in INPUTS.entries:
            assert name in plain
    facts = {row["what"].text: row["value"].text for row in sheets_of(several)["runs"].rows}
    assert facts["seed"] == "7"
    assert facts["command"] == "bioner-edge bench run --models 'my models/'"
    assert facts["plain copy"] == "14.0 GB/s at 1 thread, 28.0 GB/s at 2 threads"
    kinds = {row["name"].text: row["kind"].text for row in sheets_of(several)["inputs"].rows}
    assert set(kinds.values()) == {"assumed"} and len(kinds) == len(INPUTS.entries)


@pytest.mark.usefixtures("undrawn")
def test_a_run_that_tells_nothing_of_its_machine(tmp_path: Path) -> None:
    nothing = dict.fromkeys(("machine", "settings", "versions", "command", "copy_bytes_per_s", "seed"))
    made = MadeUp(tmp_path / "run", **nothing)
    made.cell(threads=())
    made.log.append(CORPUS | {"notices": [f"notice {n}" for n in range(30)]})
    markdown, _ = written(made.load(), tmp_path / "out")
    assert "unknown" in markdown
    assert "notice 19" in markdown and "notice 20" not in markdown and "10 more notices" in markdown


def test_a_run_that_went_on_elsewhere_says_so(tmp_path: Path) -> None:
    made = MadeUp(tmp_path / "run")
    made.cell()
    made.log.append(HEADER | {"machine": {"processor": "another", "cores": 4}})
    assert "earlier parts of it were measured elsewhere" in sheets_of(made.load())["runs"].notes[0]


# Terminal, Markdown and HTML.


def test_markdown_and_html_say_the_same(several: Run, told_of_several: Path) -> None:
    markdown, html = texts(told_of_several)
    tables, page = markdown_tables(markdown), Page(html)
    sheets = sheets_of(several)
    assert list(page.tables) == list(sheets)
    for sheet in sheets.values():
        expected = [[seen(row.get(c.key, figures.MISSING)) for c in sheet.columns] for row in sheet.rows]
        heads = [column.heading for column in sheet.columns]
        assert tables[sheet.title] == [heads, ["---:" if c.numeric else "---" for c in sheet.columns], *expected]
        assert page.tables[sheet.name] == [heads, *expected]


def test_html_sorts_by_the_figures_themselves(several: Run, told_of_several: Path) -> None:
    page = Page(texts(told_of_several)[1])
    sheet = sheets_of(several)["overview"]
    column = [c.key for c in sheet.columns].index("f1")
    assert [row[column] for row in page.sorts["overview"][1:]] == [
        None if row["f1"].sort is None else str(row["f1"].sort) for row in sheet.rows
    ]


@pytest.mark.parametrize("width", [80, 100])
def test_the_terminal_shows_every_figure_whole(several: Run, width: int, tmp_path: Path) -> None:
    made = MadeUp(tmp_path / "long")
    made.cell("a-name-that-somebody-thought-up-for-a-model-Q8_0", constraint="llama-cpp-python")
    made.cell("a-name-that-somebody-thought-up-for-a-model-F32", "F32", constraint="llama-cpp-python")
    made.cell("another-name", "F32", hits=3, timed={"anonymous_bytes": 12_345_678_900, "decode_tokens_per_s": 12345.0})
    for run in (several, made.load()):
        terminal_shows(run, width)


def terminal_shows(several: Run, width: int) -> None:
    """Assert that it is all there, in so many columns."""
    drawn = io.StringIO()
    console = Console(file=drawn, width=width, highlight=False)
    tables = report.tables([several], INPUTS)
    for table in tables:
        console.print(table)
    text = drawn.getvalue()
    assert max(map(len, text.split("\n"))) <= width
    assert "…" not in text
    for name in ("accuracy", "reference", "speed", "waiting", "memory", "cost"):
        sheet = sheets_of(several)[name]
        for column in sheet.columns:
            for row in sheet.rows:
                value = row.get(column.key, figures.MISSING)
                if column.numeric and not column.lesser:
                    assert value.text in text, f"{name}.{column.key}"
                    assert value.range in text, f"{name}.{column.key}"


def test_the_tables_of_a_terminal(several: Run) -> None:
    titles = [str(table.title) for table in report.tables([several], INPUTS)]
    assert titles[:3] == ["Accuracy", "Against the reference level", "Speed"]
    assert titles[3:] == ["Waiting", "Memory and energy", "Cost", "Failed"]


def test_what_is_the_same_in_all_rows_is_said_once(tmp_path: Path) -> None:
    made = MadeUp(tmp_path / "run")
    made.cell("m-Q8_0", "Q8_0")
    made.cell("m-F32", "F32")
    (table, *_) = report.tables([made.load()], INPUTS)
    drawn = io.StringIO()
    Console(file=drawn, width=100).print(table)
    assert drawn.getvalue().count("grounded") == 1
    assert drawn.getvalue().count("multi_tag") == 1
    assert "Q8_0" in drawn.getvalue() and "F32" in drawn.getvalue()


def test_hostile_names_do_nothing(tmp_path: Path) -> None:
    made = MadeUp(tmp_path / "run")
    made.cell(HOSTILE, "Q8_0")
    made.cell("other", "F32")
    made.failed(Key("x", "made:dev", "f", "d"), HOSTILE)
    made.log.append(CORPUS | {"corpus": HOSTILE, "notices": [HOSTILE]})
    run = made.load()
    markdown, html = written(run, tmp_path / "out")
    page = Page(html)
    assert page.tags.count("script") == 1
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert not {"img", "iframe", "link", "object", "embed", "base", "form"} & set(page.tags)
    links = [value for name, value in page.attributes if name in ("src", "href", "xlink:href")]
    assert [link for link in links if not link.startswith("#")] == []
    for told in (markdown, html):
        assert "\x1b" not in told and "\u202e" not in told
    assert "<script>" not in re.sub(r"\\<", "", markdown)
    assert not re.search(r"(?<!\\)\]\((?!f1-|formats)", markdown)
    for rows in markdown_tables(markdown).values():
        assert len({len(row) for row in rows}) == 1, "a name has broken a table"
    for table in report.tables([run], INPUTS):
        drawn = io.StringIO()
        Console(file=drawn, width=100).print(table)
        assert "\x1b" not in drawn.getvalue()


def test_the_page_needs_nothing_else_and_runs_its_own_script_alone(told_of_several: Path) -> None:
    page = Page(texts(told_of_several)[1])
    policy = next(value for name, value in page.attributes if value.startswith("default-src"))
    digest = base64.b64encode(sha256(page.scripts.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(set(ids)) == len(ids)
    targets = {value[1:] for name, value in page.attributes if name in ("href", "xlink:href")}
    targets |= {found for _, value in page.attributes for found in re.findall(r"url\(#([^)]*)\)", value)}
    assert targets <= set(ids), "a reference to what is not there"


def svgs(html: str) -> list[ElementTree.Element]:
    """The pictures of a page, which must be XML."""
    declared = '<svg xmlns:xlink="http://www.w3.org/1999/xlink"'
    found = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    return [ElementTree.fromstring(svg.replace("<svg", declared, 1)) for svg in found]


def test_pictures_in_the_page_take_its_colours(tmp_path: Path) -> None:
    made = MadeUp(tmp_path / "run")
    made.cell("#1a1d21", "Q8_0")
    made.cell("n", "F32")
    _, html = written(made.load(), tmp_path / "out")
    found = svgs(html)
    assert len(found) == 4
    for svg in found:
        told = "".join(svg.itertext())
        assert "made:dev" in told
        styles_in = "".join(element.get("style", "") for element in svg.iter())
        assert "var(--ink)" in styles_in and "#1a1d21" not in styles_in
    assert "#1a1d21" in "".join(found[0].itertext()), "a name is no colour"


def test_the_same_run_gives_the_same_bytes(several: Run, told_of_several: Path, tmp_path: Path) -> None:
    """Here, and in a process with other hashes of strings."""
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from bioner_edge.benchmarks import report\nfrom bioner_edge.benchmarks.cost import CostInputs\n"
        "from bioner_edge.benchmarks.results import Run\n"
        "report.write([Run.load(Path(sys.argv[1]))], Path(sys.argv[2]), CostInputs.load())"
    )
    seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    command = [sys.executable, "-c", code, str(several.folder), str(tmp_path / "again")]
    subprocess.run(command, check=True, env=os.environ | {"PYTHONHASHSEED": seed}, cwd=tmp_path)
    files = sorted(path.name for path in told_of_several.iterdir())
    assert files == ["f1-documents.png", "f1-memory.png", "f1-tokens.png", "formats.png", "report.html", "report.md"]
    for name in files:
        assert (told_of_several / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name


# What may be missing.


def test_without_matplotlib_the_rest_is_written(several: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    told: list[str] = []
    paths = report.write([several], tmp_path / "out", INPUTS, told.append)
    assert [path.name for path in paths] == ["report.md", "report.html"]
    assert len(told) == 1 and "pip install 'bioner-edge[bench]'" in told[0] and "\n" not in told[0]
    assert "bioner-edge\\[bench\\]" in paths[0].read_text("utf-8")
    assert "no pictures" in paths[1].read_text("utf-8")


def every_name(names: Sequence[str], tmp_path: Path, **more: Any) -> list[str]:
    """The files of a report on models so called; any warning is an error."""
    made = MadeUp(tmp_path / "run")
    for name in names:
        made.cell(name, "Q8_0", **more)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        paths = report.write([made.load()], tmp_path / "out", INPUTS)
    for path in paths:
        assert path.suffix != ".png" or path.read_bytes().startswith(b"\x89PNG")
    return [path.name for path in paths]


ALL = ["f1-memory.png", "f1-tokens.png", "f1-documents.png", "formats.png", "report.md", "report.html"]


@pytest.mark.thorough(but=("not ASCII", "very long"))
@pytest.mark.parametrize(
    "names",
    [["one"], ["日本語モデル-é-ß", "नमूना", "\U0001f9ec"], ["x" * 300, "y" * 300], ["$a$", "$\\frac{$", "_^{"]],
    ids=["one cell", "not ASCII", "very long", "mathematics"],
)
def test_any_names_can_be_drawn(names: list[str], tmp_path: Path) -> None:
    assert every_name(names, tmp_path) == ALL


@pytest.mark.thorough(but=("24",))
@pytest.mark.parametrize("cells", [24, 100])
def test_more_cells_than_have_room_for_their_names(cells: int, tmp_path: Path) -> None:
    made = MadeUp(tmp_path / "run")
    for n in range(cells // 4):
        for decoding in ("grounded", "gbnf", "free", "text-filter"):
            timed = {
                "peak_rss_bytes": 10_000_000 * 1.3**n,
                "decode_tokens_per_s": 1000.0 - n,
                "documents_per_s": 1.0 + n,
            }
            made.cell(f"m{n}-Q8_0", "Q8_0", constraint=decoding, hits=n % 10, threads=(2,), timed=timed)
    paths = report.write([made.load()], tmp_path / "out", INPUTS)
    assert [path.name for path in paths] == ALL
    assert len(Page(paths[-1].read_text("utf-8")).tables["overview"]) == cells + 1


def test_nothing_timed_leaves_the_formats(tmp_path: Path) -> None:
    assert every_name(["m"], tmp_path, threads=()) == ["formats.png", "report.md", "report.html"]


def test_some_figures_missing_and_zero(tmp_path: Path) -> None:
    timed = {
        "peak_rss_bytes": None,
        "decode_tokens_per_s": 0.0,
        "ttft_s": None,
        "latencies_s": [],
        "documents_per_s": 0.0,
    }
    names = every_name(["m", "n"], tmp_path, timed=timed)
    assert names == [name for name in ALL if name != "f1-memory.png"]


def test_all_failed(tmp_path: Path) -> None:
    made = MadeUp(tmp_path / "run")
    made.failed(Key("m", "made:dev", "", "grounded"), "no such file")
    paths = report.write([made.load()], tmp_path / "out", INPUTS)
    assert [path.name for path in paths] == ["report.md", "report.html"]
    assert "no such file" in paths[0].read_text("utf-8")


def test_a_run_without_cells_is_no_report(tmp_path: Path) -> None:
    run = MadeUp(tmp_path / "run").load()
    with pytest.raises(InputError, match="nothing was measured in this run"):
        report.write([run], tmp_path / "out", INPUTS)
    assert not (tmp_path / "out").exists()


def test_nothing_is_left_half_written(several: Run, told_of_several: Path, tmp_path: Path) -> None:
    assert not list(told_of_several.glob("*.partial"))
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"f1-memory\.png: cannot be written: "):
        report.write([several], tmp_path / "file", INPUTS)


def test_the_axes_know_which_way_is_better() -> None:
    assert [(axis.name, axis.less_is_better) for axis in AXES] == [
        ("peak_rss_bytes", True),
        ("decode_tokens_per_s", False),
        ("documents_per_s", False),
    ]


# In a browser, where there is one.

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
CLICKS = """
<script>
const out = document.createElement("pre");
out.id = "result";
const table = document.querySelector("table");
const heading = (name) => [...table.querySelectorAll("th")].find((th) => th.textContent === name);
const told = (n) => [...table.tBodies[0].rows].map((row) => row.cells[n].innerText.split("\\n")[0]).join("; ");
for (const [name, column] of [["strict F1", 4], ["strict F1", 4], ["level", 1]]) {
  heading(name).firstChild.click();
  out.append(told(column), "|", heading(name).getAttribute("aria-sort"), "|");
}
out.append(table.querySelectorAll("th[aria-sort]").length);
document.body.append(out);
</script>
"""


def dumped(path: Path) -> str:
    """A page as a browser has it once its scripts have run."""
    assert BROWSER
    profile = f"--user-data-dir={path.parent / 'profile'}"
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", profile, "--dump-dom", path.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
def test_a_click_on_a_heading_sorts(several: Run, tmp_path: Path) -> None:
    _, html = written(several, tmp_path / "out")
    ours = dumped(tmp_path / "out" / "report.html")
    assert '<button type="button" disabled' not in ours, "our own script is not allowed to run"
    clicked = tmp_path / "clicked.html"
    policy = re.search(r"<meta http-equiv[^>]*>", html)
    assert policy
    clicked.write_text(html.replace(policy.group(), "").replace("</body>", CLICKS + "</body>"), "utf-8")
    found = re.search(r'<pre id="result">(.*?)</pre>', dumped(clicked), re.DOTALL)
    assert found
    down, descending, up, ascending, levels, _, marked = found.group(1).split("|")
    scores = [row["f1"] for row in sheets_of(several)["overview"].rows]
    ranked = [s.text for s in sorted((s for s in scores if s.sort is not None), key=lambda s: s.sort or 0)]
    assert (descending, ascending, marked) == ("descending", "ascending", "1")
    assert down.split("; ") == [*ranked[::-1], "failed", "does not fit"], "words stand behind figures"
    assert up.split("; ") == [*ranked, "does not fit", "failed"]
    assert levels.split("; ") == ["F16", "F32", "Q8_0", "Q8_0", "Q8_0", "–"], "what is missing is last"
