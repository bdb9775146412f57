"""`bioner-edge bench` and `bioner-edge compare`: what they print, leave behind, and exit with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import bioner_edge
from bioner_edge.benchmarks.results import Log, Run

EXAMPLES = str(Path(bioner_edge.__file__).parent / "examples" / "abstracts.pubtator")
Command = Callable[..., tuple[int, str, list[str]]]


@pytest.fixture
def drawing(cli: Command, tiny_default: None, measured_here: None) -> Command:
    """`cli`, with the tiny model as the default; what it finds is nonsense."""
    return cli


@pytest.fixture
def run(drawing: Command, undrawn: None) -> Command:
    """The same, whose reports have no pictures."""
    return drawing


def last(out: str) -> dict[str, Any]:
    """The JSON object in the last line."""
    told: dict[str, Any] = json.loads(out.splitlines()[-1])
    return told


def gold_as_predictions(path: Path, shift: int = 0) -> Path:
    """A file that predicts what the examples' own annotations say, moved by some characters."""
    lines = Path(EXAMPLES).read_text("utf-8").splitlines()
    documents: dict[str, dict[str, Any]] = {}
    for line in lines:
        if "|t|" in line:
            name, _, title = line.split("|", 2)
            documents[name] = {"id": name, "text": title, "entities": []}
        elif "|a|" in line:
            documents[line.split("|")[0]]["text"] += " " + line.split("|", 2)[2]
        elif line:
            name, start, end, _, label = line.split("\t")[:5]
            span = {"start": int(start) + shift, "end": int(end) + shift, "label": label}
            documents[name]["entities"].append(span)
    path.write_text("".join(json.dumps(row) + "\n" for row in documents.values()), "utf-8")
    return path


def test_run_leaves_results_and_reports(drawing: Command) -> None:
    code, out, err = drawing(
        *("bench", "run", "--corpus", EXAMPLES, "--out", "r", "--threads", "1"),
        *("--limit", "2", "--repetitions", "1", "--timed", "1", "--constraints", "free,grounded"),
    )
    assert code == 0, err
    told = last(out)
    assert (told["run"], told["cells"], told["failed"]) == ("r", 2, 0)
    assert 0 < told["outside_extract"] < 1
    files = {Path(file).name for file in told["files"]}
    assert {"report.md", "report.html"} <= files and any(name.endswith(".png") for name in files)
    assert all(Path(file).stat().st_size for file in told["files"])
    assert "Accuracy" in out and "Speed" in out and "grounded" in out
    assert any("strict F1" in line for line in err)
    assert Run.load(Path("r")).header["command"][:3] == ["bioner-edge", "bench", "run"]


def test_a_failed_cell_is_seen_and_the_exit_code_says_so(run: Command) -> None:
    Path("broken.gguf").write_bytes(b"GGUF" + bytes(20))
    code, out, err = run(
        "bench", "run", "--models", "broken.gguf", "--corpus", EXAMPLES, "--out", "r", "--repetitions", "0"
    )
    assert code == 1 and last(out)["failed"] == last(out)["cells"] == 1
    assert "failed" in out.lower() and any("broken.gguf" in line for line in err)
    assert "broken" in Path("r/report.md").read_text("utf-8")


def test_an_interruption_says_how_to_go_on(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("bioner_edge.benchmarks.suite.run_module", stopped)
    code, out, err = run("bench", "run", "--corpus", EXAMPLES, "--out", "r", "--repetitions", "0", "--quiet")
    assert (code, out) == (130, "")
    assert err == ["bioner-edge: interrupted; the same command resumes the run in r"]
    assert [line["kind"] for line in Log(Path("r")).lines()] == ["run", "model", "corpus"]


def test_quiet_says_nothing_beside_the_tables(run: Command) -> None:
    code, _, err = run(
        "bench", "run", "--corpus", EXAMPLES, "--out", "r", "--repetitions", "0", "--limit", "1", "--quiet"
    )
    assert (code, err) == (0, [])


def test_threads_beyond_the_cores_are_left_out_with_a_warning(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bioner_edge.hardware.threads.cores", lambda: 2)
    _, _, err = run(
        *("bench", "run", "--corpus", EXAMPLES, "--out", "r", "--limit", "1", "--repetitions", "0"),
        *("--threads", "1,2,64"),
    )
    assert err[0] == "bioner-edge: warning: 64 threads are skipped: this process may use 2 cores"
    assert Run.load(Path("r")).header["settings"]["threads"] == [1, 2]


def test_the_same_twice_is_the_same(run: Command) -> None:
    tables = []
    for name in ("one", "two"):
        _, out, _ = run("bench", "run", "--corpus", EXAMPLES, "--out", name, "--repetitions", "0", "--limit", "2")
        tables.append(out.splitlines()[:-1])
    assert tables[0] == tables[1]

    code, out, _ = run("compare", "one", "two")
    (pair,) = last(out)["pairs"]
    assert code == 0 and pair["p_holm"] == 1.0 and not pair["significant"] and pair["differing"] == 0
    assert "1.0000" in out


def test_report_again_and_of_several_runs(run: Command) -> None:
    predictions = gold_as_predictions(Path("gold.jsonl"))
    run("bench", "run", "--corpus", EXAMPLES, "--out", "one", "--repetitions", "0")
    run("bench", "score", str(predictions), EXAMPLES, "--out", "theirs", "--name", "oracle")
    before = Path("one/report.html").read_bytes()
    code, _, _ = run("bench", "report", "one")
    assert code == 0 and Path("one/report.html").read_bytes() == before
    code, out, _ = run("bench", "report", "one", "theirs", "--out", "both")
    assert code == 0 and "oracle" in out and "tiny" in out and last(out)["runs"] == ["one", "theirs"]
    assert "oracle" in Path("both/report.md").read_text("utf-8")


def test_prices_of_ones_own(run: Command) -> None:
    Path("cost.toml").write_text('[electricity_price]\nvalue = 0.5\nkind = "measured"\nsource = "our bill"\n')
    code, _, err = run(
        *("bench", "run", "--corpus", EXAMPLES, "--out", "r", "--limit", "1"),
        *("--repetitions", "1", "--timed", "1", "--cost", "cost.toml"),
    )
    assert code == 0, err
    assert "our bill" in Path("r/report.md").read_text("utf-8")


def test_score_of_what_is_right(run: Command) -> None:
    code, out, err = run("bench", "score", str(gold_as_predictions(Path("p.jsonl"))), EXAMPLES)
    assert (code, err) == (0, [])
    assert {last(out)["scores"][mode]["micro"]["f1"] for mode in ("strict", "exact", "relaxed", "surface")} == {1.0}


def test_score_of_what_is_beside_it(run: Command) -> None:
    code, out, _ = run("bench", "score", str(gold_as_predictions(Path("p.jsonl"), shift=1)), EXAMPLES, "--json")
    assert code == 0 and len(out.splitlines()) == 1
    scores = last(out)["scores"]
    assert scores["strict"]["micro"]["f1"] == 0.0 and scores["relaxed"]["micro"]["f1"] > 0.9


def test_score_names_what_is_missing(run: Command) -> None:
    predictions = gold_as_predictions(Path("p.jsonl"))
    lines = predictions.read_text("utf-8").splitlines(keepends=True)
    predictions.write_text("".join(lines[1:]), "utf-8")
    code, out, _ = run("bench", "score", str(predictions), EXAMPLES)
    assert code == 1 and "1 gold documents have no prediction" in out
    assert last(out)["unpredicted"]["missing"] == 1


def test_score_with_other_names_of_labels(run: Command) -> None:
    predictions = gold_as_predictions(Path("p.jsonl"))
    predictions.write_text(predictions.read_text("utf-8").replace('"Chemical"', '"DRUG"'), "utf-8")
    code, out, _ = run("bench", "score", str(predictions), EXAMPLES, "--map", "DRUG=Chemical")
    assert code == 0 and last(out)["scores"]["strict"]["micro"]["f1"] == 1.0
    _, out, _ = run("bench", "score", str(predictions), EXAMPLES, "--labels", "Disease")
    assert last(out)["labels"] == ["Disease"] and last(out)["scores"]["strict"]["micro"]["f1"] == 1.0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["run", "--corpus", "bc5cdr", "--out", "r"], "bc5cdr: which split? bc5cdr:train, bc5cdr:dev, bc5cdr:test"),
        (["run", "--corpus", "bc6cdr:dev", "--out", "r"], "unknown corpus 'bc6cdr:dev'; known: bc5cdr, "),
        (
            ["run", "--corpus", EXAMPLES, "--out", "r", "--threads", "1,x"],
            "--threads '1,x': 'x' is not a number of threads",
        ),
        (["run", "--corpus", EXAMPLES, "--out", "r", "--threads", "9999"], "--threads 9999: this process may use "),
        (["run", "--corpus", EXAMPLES, "--out", "r", "--models", "nowhere.gguf"], "nowhere.gguf: no such model file"),
        (
            ["run", "--corpus", EXAMPLES, "--out", "r", "--formats", "xml"],
            "unknown format 'xml'; known: tuned, default, ",
        ),
        (
            ["run", "--corpus", EXAMPLES, "--out", "r", "--constraints", "xml"],
            "unknown constraint 'xml'; known: default, free, ",
        ),
        (["run", "--corpus", EXAMPLES, "--out", "r", "--cost", "no.toml"], "no.toml: "),
        (["run", "--corpus", EXAMPLES, "--out", "r", "--reference", "Q9"], "unknown reference 'Q9'; known: "),
        (["score", EXAMPLES], "name the predictions, then the corpus: bioner-edge bench score found.jsonl bc5cdr:dev"),
        (["score", EXAMPLES, EXAMPLES, "--map", "x"], "--map 'x': 'x' is not THEIRS=OURS"),
        (["report", "nowhere"], "nowhere: no run of `bioner-edge bench` in this folder"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], told: str, run: Command) -> None:
    code, out, err = run("bench", *arguments)
    assert (code, out) == (2, "") and len(err) == 1
    assert err[0].startswith(f"bioner-edge: {told}")
    assert not Path("r").exists()


def test_compare_of_what_is_no_run(run: Command) -> None:
    assert run("compare", "here", "there") == (
        2,
        "",
        ["bioner-edge: here: no run of `bioner-edge bench` in this folder"],
    )
