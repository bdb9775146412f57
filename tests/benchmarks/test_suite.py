"""Runs of a tiny random model and of the bundled one on texts of ours: what is measured, resumed, refused, failed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import pytest

import bioner_edge
from bioner_edge.benchmarks import launch as launching
from bioner_edge.benchmarks import suite as suites
from bioner_edge.benchmarks.comparing.compare import compare
from bioner_edge.benchmarks.launch import RunRequest, launch
from bioner_edge.benchmarks.process import Failure
from bioner_edge.benchmarks.results import Cell, Key, Log, Run
from bioner_edge.benchmarks.suite import Settings
from bioner_edge.document import Document
from bioner_edge.errors import InputError, UsageError
from bioner_edge.io import journal, jsonl
from bioner_edge.io.lock import open_locked
from bioner_edge.io.reading import read_file
from bioner_edge.models import memory
from bioner_edge.report import Report
from bioner_edge.text.sentences import split_sentences

ROOT = Path(__file__).parents[2]
EXAMPLES = Path(bioner_edge.__file__).parent / "examples" / "abstracts.pubtator"
BUNDLED = Path(bioner_edge.__file__).parent / "data" / "chemdis-9m-Q8_0.gguf"
TEXTS = [
    ("a", "Aspirin relieved headache in 12 of 30 rats.", [(0, 7, "Chemical"), (17, 25, "Disease")]),
    ("b", "Naloxone reverses clonidine.", [(0, 8, "Chemical"), (18, 27, "Chemical")]),
    ("c", "Renal failure followed.", [(0, 13, "Disease")]),
]
QUICK = Settings((1,), repetitions=2, timed=2)
Spy = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def here(request: pytest.FixtureRequest) -> None:
    """Measured in this process, but where the processes are what is tested."""
    if request.node.originalname not in ("test_every_cell_is_read_scored_and_timed", "test_two_runs_give_the_same"):
        request.getfixturevalue("measured_here")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "gold.jsonl"
    rows = [
        {"id": i, "text": text, "entities": [{"start": a, "end": b, "label": label} for a, b, label in entities]}
        for i, text, entities in TEXTS
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def asked(model: Path, corpus: Path, settings: Settings = QUICK, **more: Any) -> RunRequest:
    return RunRequest([str(corpus)], settings, [str(model)], **more)


def found(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The predictions of a run without what they took, which is never the same twice."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for path in sorted((folder / "predictions").iterdir()):
        rows[path.name] = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        for row in rows[path.name]:
            row["cost"].pop("seconds")
    return rows


def scores(run: Run) -> list[Any]:
    return [cell.accuracy["scores"] for cell in run.cells if cell.accuracy]


def test_every_cell_is_read_scored_and_timed(tiny_model: Path, corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run, suite = launch(asked(tiny_model, corpus, constraints=["free", "grounded"]), out)

    keys = [Key("tiny-F32", str(corpus), "multi_tag", constraint) for constraint in ("free", "grounded")]
    assert [cell.key for cell in run.cells] == keys
    for cell in run.cells:
        assert cell.failed is None and cell.accuracy is not None
        assert cell.accuracy["documents"] == 3 and cell.accuracy["labels"] == ["Chemical", "Disease"]
        assert cell.accuracy["tuned"] and cell.accuracy["ceiling"]["f1"] == 1.0
        assert [line["number"] for line in cell.repetitions] == [1, 2]
        assert all(line["documents"] == 2 and len(line["latencies_s"]) == 2 for line in cell.repetitions)
        tallies = cell.tallies()
        assert tallies.documents == ["a", "b", "c"]
        assert tallies.counts[0, :, :, 3].sum() == 5  # gold entities, strict
    grounded = run.cells[1].accuracy
    assert grounded and grounded["broken"]["documents"] == grounded["broken"]["astray"] == 0
    assert run.cells[0].about["sha256"] == run.cells[1].about["sha256"] != ""
    assert run.header["settings"]["repetitions"] == 2 and run.header["copy_bytes_per_s"]["1"] > 0
    share = run.cells[0].repetitions[0]["bandwidth_share"]
    assert share == pytest.approx(run.cells[0].repetitions[0]["read_bytes_per_s"] / run.header["copy_bytes_per_s"]["1"])
    assert suite.extract_s > 0
    assert run.corpora[str(corpus)]["entities"] == 5


def test_a_run_that_is_whole_is_not_measured_again(
    tiny_model: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    launch(asked(tiny_model, corpus), out)
    before = (out / "results.jsonl").read_bytes()

    def never(*_: Any, **__: Any) -> dict[str, Any]:
        raise AssertionError("a process was started")

    monkeypatch.setattr(suites, "run_module", never)
    launch(asked(tiny_model, corpus), out)
    after = (out / "results.jsonl").read_bytes()
    assert after.startswith(before)
    assert [json.loads(line)["kind"] for line in after[len(before) :].splitlines()] == ["run"]


@pytest.mark.thorough(but=("1", "6"))
@pytest.mark.parametrize("call", [1, 2, 4, 6])
def test_a_run_that_was_broken_off_is_taken_up(
    call: int, tiny_model: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = launch(asked(tiny_model, corpus, constraints=["free", "gbnf"]), tmp_path / "whole")
    out, calls, apart = tmp_path / "broken", 0, suites.run_module

    def stopped(*arguments: Any, **more: Any) -> dict[str, Any]:
        nonlocal calls
        calls += 1
        if calls == call:
            raise KeyboardInterrupt
        return apart(*arguments, **more)

    monkeypatch.setattr(suites, "run_module", stopped)
    with pytest.raises(KeyboardInterrupt):
        launch(asked(tiny_model, corpus, constraints=["free", "gbnf"]), out)
    with (out / "results.jsonl").open("ab") as stream:
        stream.write(b'{"kind": "accu')  # as a power cut leaves it

    again, _ = launch(asked(tiny_model, corpus, constraints=["free", "gbnf"]), out)
    assert found(out) == found(tmp_path / "whole")
    assert scores(again) == scores(whole)
    assert [[line["number"] for line in cell.repetitions] for cell in again.cells] == [[1, 2], [1, 2]]
    kinds = [line["kind"] for line in Log(out).lines()]
    assert kinds.count("run") == 2 and kinds.count("model") == kinds.count("corpus") == 1
    assert kinds.count("accuracy") == 2


def test_predictions_that_were_broken_off_go_on(tiny_model: Path, corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    once = Settings((1,), repetitions=0)
    launch(asked(tiny_model, corpus, once), out)
    wanted = found(out)
    (path,) = (out / "predictions").iterdir()
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"\n") + 20])  # one document, and a piece of the next
    lines = (out / "results.jsonl").read_text("utf-8").splitlines(keepends=True)
    (out / "results.jsonl").write_text("".join(line for line in lines if '"accuracy"' not in line), "utf-8")

    launch(asked(tiny_model, corpus, once), out)
    assert found(out) == wanted
    assert path.read_bytes().startswith(data[: data.index(b"\n") + 1])


@pytest.mark.thorough(but=("grounded",))
@pytest.mark.parametrize("constraint", ["free", "gbnf", "grounded"])
def test_two_runs_give_the_same(constraint: str, tiny_model: Path, corpus: Path, tmp_path: Path) -> None:
    settings = Settings((1,), repetitions=0, seed=7)
    runs = [
        launch(asked(tiny_model, corpus, settings, constraints=[constraint]), tmp_path / name)[0]
        for name in ("one", "other")
    ]
    assert found(tmp_path / "one") == found(tmp_path / "other")
    assert scores(runs[0]) == scores(runs[1])


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (Settings((1,), limit=1, repetitions=2, timed=2), "limit was None, now it is 1"),
        (Settings((1,), repetitions=3, timed=2), "repetitions was 2, now it is 3"),
        (Settings((1,), repetitions=2, timed=2, seed=1), "seed was 0, now it is 1"),
        (Settings((1,), repetitions=2, timed=2, labels=("Disease",)), "labels was None, now it is .'Disease'"),
    ],
)
def test_a_run_of_other_settings_is_refused(
    settings: Settings, told: str, tiny_model: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    monkeypatch.setattr(suites.Suite, "run", lambda suite: None)
    launch(asked(tiny_model, corpus), out)
    before = (out / "results.jsonl").read_bytes()
    with pytest.raises(UsageError, match=told):
        launch(asked(tiny_model, corpus, settings), out)
    assert (out / "results.jsonl").read_bytes() == before


def test_a_corpus_that_has_changed_is_refused(tiny_model: Path, corpus: Path, tmp_path: Path) -> None:
    out, settings = tmp_path / "run", Settings((1,), repetitions=0)
    launch(asked(tiny_model, corpus, settings), out)
    corpus.write_text(corpus.read_text("utf-8").replace("Naloxone", "Naloxont"), "utf-8")
    with pytest.raises(UsageError, match="has changed since the run was started"):
        launch(asked(tiny_model, corpus, settings), out)


def test_two_runs_do_not_write_into_one_folder(tiny_model: Path, corpus: Path, tmp_path: Path) -> None:
    out, settings = tmp_path / "run", Settings((1,), repetitions=0)
    launch(asked(tiny_model, corpus, settings), out)
    with (
        open_locked(out / "results.jsonl"),
        pytest.raises(UsageError, match=r"results\.jsonl: another process is writing to it"),
    ):
        launch(asked(tiny_model, corpus, settings), out)
    # And what a process that lost its parent still writes to is left to it.
    (path,) = (out / "predictions").iterdir()
    lines = (out / "results.jsonl").read_text("utf-8").splitlines(keepends=True)
    (out / "results.jsonl").write_text("".join(line for line in lines if '"accuracy"' not in line), "utf-8")
    with open_locked(path):
        (cell,) = launch(asked(tiny_model, corpus, settings), out)[0].cells
    assert cell.failed and "another process is writing to it" in cell.failed["reason"]


def test_more_cells_can_be_added(tiny_model: Path, corpus: Path, tmp_path: Path) -> None:
    out, settings = tmp_path / "run", Settings((1,), repetitions=0)
    launch(asked(tiny_model, corpus, settings), out)
    run, _ = launch(asked(tiny_model, corpus, settings, formats="multi_tag,multi_term", constraints=["gbnf"]), out)
    assert {(cell.key.format, cell.key.constraint) for cell in run.cells} == {
        ("multi_tag", "grounded"),
        ("multi_tag", "gbnf"),
        ("multi_term", "gbnf"),
    }
    (untuned,) = (cell for cell in run.cells if cell.key.format == "multi_term")
    assert untuned.accuracy and not untuned.accuracy["tuned"]


@pytest.fixture
def damaged(tiny_model: Path, tmp_path: Path) -> Path:
    """A folder with a sound model and one whose end is missing, which nothing but loading it finds out."""
    folder = tmp_path / "models"
    folder.mkdir()
    for suffix in (".gguf", ".json"):
        shutil.copy(tiny_model.with_suffix(suffix), folder)
    data = tiny_model.read_bytes()
    (folder / "damaged.gguf").write_bytes(data[: len(data) // 2])
    return folder


def test_a_model_that_cannot_be_loaded_is_a_row(damaged: Path, corpus: Path, tmp_path: Path) -> None:
    run, _ = launch(asked(damaged, corpus, Settings((1,), repetitions=1, timed=1)), tmp_path / "run")
    by_model = {cell.key.model: cell for cell in run.cells}
    assert set(by_model) == {"damaged", "tiny-F32"}
    assert by_model["tiny-F32"].failed is None and len(by_model["tiny-F32"].repetitions) == 1
    failed = by_model["damaged"].failed
    assert failed and "damaged.gguf" in failed["reason"] and not failed["predicted"]
    assert "\n" not in failed["reason"] and by_model["damaged"].accuracy is None


def test_a_model_that_will_not_fit_is_predicted(
    tiny_model: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "available", lambda: 1 << 20)
    out, settings = tmp_path / "run", Settings((1,), repetitions=0)
    run, _ = launch(asked(tiny_model, corpus, settings), out)
    (cell,) = run.cells
    assert cell.failed and cell.failed["predicted"] and "of memory, 0.00 GB are free" in cell.failed["reason"]
    assert not (out / "predictions").exists()

    monkeypatch.setattr(memory, "available", lambda: 1 << 40)  # and what has failed is tried again
    (cell,) = launch(asked(tiny_model, corpus, settings), out)[0].cells
    assert cell.failed is None and cell.accuracy


def test_a_repetition_that_fails_does_not_hide_the_others(
    tiny_model: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    apart = suites.run_module

    def failing(module: str, spec: dict[str, Any], *more: Any) -> dict[str, Any]:
        if spec["phase"] == "repetition" and spec["threads"] == 2:
            raise Failure("killed by SIGKILL")
        return apart(module, {**spec, "threads": 1}, *more)

    monkeypatch.setattr(suites, "run_module", failing)
    settings = Settings((1, 2), repetitions=2, timed=1)
    (cell,) = launch(asked(tiny_model, corpus, settings), tmp_path / "run")[0].cells
    assert cell.threads == [1] and len(cell.repetitions) == 2
    assert cell.failed and cell.failed["threads"] == 2 and cell.failed["reason"] == "killed by SIGKILL"
    tried = [line for line in Log(tmp_path / "run").lines() if line["kind"] == "failed"]
    assert len(tried) == 1  # a second one would fail too, and may take hours


def test_a_disk_that_is_full_is_told_with_the_file(
    tiny_model: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system names no file where writing fails. Where not even the failure can be noted, the run ends."""
    out, settings = tmp_path / "run", Settings((1,), repetitions=0)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        (cell,) = launch(asked(tiny_model, corpus, settings), out)[0].cells
    counts = out / "counts" / f"{cell.key.slug}.json"
    assert cell.failed and cell.failed["reason"] == f"{counts}: No space left on device"
    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left on device") as caught:
        patch.setattr(suites.predictions, "score_predictions", lambda *_: patch.setattr(journal, "append", full))
        launch(asked(tiny_model, corpus, settings), out)
    assert caught.value.filename == str(out / "results.jsonl")
    assert launch(asked(tiny_model, corpus, settings), out)[0].cells[0].accuracy


class Heard(Report):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def step(self, text: str) -> None:
        self.lines.append(text)


def test_a_document_that_cannot_be_read_costs_itself_alone(
    tiny_model: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a character, which no file can hold as it is."""
    whole = launching.open_corpus(str(corpus))
    bad = Document("bad", "Aspirin \ud800.", whole.documents[0].entities[:1])
    broken = replace(whole, documents=[*whole.documents[:1], bad, *whole.documents[1:]])
    monkeypatch.setattr(launching, "open_corpus", lambda name: broken)
    heard = Heard()
    settings = Settings((1,), repetitions=1, timed=3)
    run, _ = launch(asked(tiny_model, corpus, settings, constraints=["free", "grounded"]), tmp_path / "run", heard)
    for cell in run.cells:
        assert cell.failed is None and cell.accuracy and cell.accuracy["documents"] == 4
        assert sum(cell.accuracy["unpredicted"].values()) == 1
        (line,) = cell.repetitions
        assert line["documents"] == 2 and line["unread"] == ["bad"]
    told = [line for line in heard.lines if line.startswith("warning: tiny")]
    assert len(told) == 2 and told[0].endswith("1 documents could not be read, and count as missed: bad")


@pytest.mark.parametrize("error", [ValueError("Aspirin"), InputError("no gold"), RecursionError()])
def test_what_goes_wrong_with_one_cell_is_its_own(
    error: Exception, tiny_model: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score = suites.predictions.score_predictions

    def failing(files: list[str], *more: Any) -> Any:
        if "free" in files[0]:
            raise error
        return score(files, *more)

    monkeypatch.setattr(suites.predictions, "score_predictions", failing)
    settings = Settings((1,), repetitions=1, timed=1)
    run, _ = launch(asked(tiny_model, corpus, settings, constraints=["free", "grounded"]), tmp_path / "run")
    free, grounded = sorted(run.cells, key=lambda cell: cell.key.constraint)
    assert free.failed and free.accuracy is None and "Aspirin" not in free.failed["reason"]
    assert "no gold" in free.failed["reason"] or f"{type(error).__name__} in test_suite.py:" in free.failed["reason"]
    assert grounded.failed is None and grounded.accuracy and len(grounded.repetitions) == 1


def test_a_corpus_without_a_label_in_common_is_a_row(tiny_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "genes.jsonl"
    gene = {"start": 0, "end": 4, "label": "Gene"}
    path.write_text(json.dumps({"id": "1", "text": "TP53 and MDM2.", "entities": [gene]}) + "\n", "utf-8")
    (cell,) = launch(asked(tiny_model, path, Settings((1,), repetitions=0)), tmp_path / "run")[0].cells
    assert cell.failed and "no label in common" in cell.failed["reason"]


def misplaced(model: Path) -> bytes:
    """A file whose query matrices have their rows in another order, as where a conversion forgets to permute them."""
    data = bytearray(model.read_bytes())
    for tensor in gguf.GGUFReader(model).tensors:
        if "attn_q" in tensor.name:
            rows, start, size = 256, tensor.data_offset, tensor.n_bytes // 256
            order = [data[start + row * size :][:size] for row in range(rows)]
            data[start : start + tensor.n_bytes] = b"".join(reversed(order))
    return bytes(data)


def test_quantization_is_told_from_damage(tmp_path: Path) -> None:
    """The same file twice is no difference; a file whose weights are broken, on the same texts, is one."""
    settings = Settings((1,), repetitions=0, labels=("Chemical", "Disease"))
    shutil.copy(BUNDLED, tmp_path / "same-Q8_0.gguf")
    (tmp_path / "broken-Q8_0.gguf").write_bytes(misplaced(BUNDLED))
    corpus = tmp_path / "sentences.jsonl"
    with corpus.open("w", encoding="utf-8") as stream:
        for document in read_file(EXAMPLES, lambda notice: None):
            for number, sentence in enumerate(list(split_sentences(document))[::2]):
                jsonl.write(replace(sentence, id=f"{document.id}-{number}"), stream)

    def measured(model: str, out: str) -> Run:
        return launch(asked(tmp_path / f"{model}-Q8_0.gguf", corpus, settings, formats="multi_tag"), tmp_path / out)[0]

    first = measured("same", "first")
    same = compare([first, measured("same", "second")]).pairs[0]
    assert same.p_holm == 1.0 and not same.significant and same.difference.differing == 0
    broken = compare([first, measured("broken", "third")]).pairs[0]
    assert broken.significant and broken.difference.difference < -0.2


def test_lines_of_results_that_are_none_are_refused(tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").write_text('{"kind": "run"}\nnonsense\n{"kind": "run"}\n', "utf-8")
    with pytest.raises(InputError, match=r"results\.jsonl:2: not a line of JSON"):
        Run.load(tmp_path)
    with pytest.raises(InputError, match="no run of `bioner-edge bench`"):
        Run.load(tmp_path / "nowhere")


def test_keys_have_file_names_of_their_own() -> None:
    keys = [
        Key("m-Q8_0", "bc5cdr:dev", "multi_tag", "free"),
        Key("m-Q8_0", "bc5cdr/dev", "multi_tag", "free"),
        Key("m-Q8_0", "bc5cdr-dev", "multi_tag", "free"),
        Key("m-Q8_0", "bc5cdr+dev", "multi_tag", "free"),
        Key("../../m", "дев", "multi_tag", "free"),
        Key("m" * 300, "c", "multi_tag", "free"),
        Key("m" * 301, "c", "multi_tag", "free"),
    ]
    slugs = [key.slug for key in keys]
    assert len(set(slugs)) == len(slugs)
    assert all("/" not in slug and len(slug) < 200 for slug in slugs)
    assert slugs[0] == "m-Q8_0__bc5cdr+dev__multi_tag__free"


def test_a_failure_is_over_once_it_was_done() -> None:
    key = Key("m", "c", "f", "d")
    cell = Cell(key, Path())
    cell.add("failed", {"phase": "read", "reason": "x"})
    cell.add("accuracy", {})
    assert cell.failed is None
    cell.add("failed", {"phase": "repetition", "threads": 2, "reason": "x"})
    cell.add("repetition", {"threads": 1})
    assert cell.failed is not None
    cell.add("repetition", {"threads": 2})
    assert cell.failed is None
