"""Which cells a run has: models behind names, files and folders, formats, constraints, labels."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import bioner_edge
from bioner_edge.benchmarks.baselines import ROWS
from bioner_edge.benchmarks.plan import Candidate, Task, find_models, left_out, tasks
from bioner_edge.corpora.named import open_corpus
from bioner_edge.errors import ModelError, UsageError
from bioner_edge.formats import FORMATS
from bioner_edge.models import memory
from bioner_edge.models.manifest import sha256

DATA = Path(bioner_edge.__file__).parent / "data"
EXAMPLES = str(Path(bioner_edge.__file__).parent / "examples" / "abstracts.pubtator")


def planned(
    models: list[Candidate], formats: str = "tuned", *constraints: str, labels: list[str] | None = None
) -> list[Task]:
    return list(tasks(models, [open_corpus(EXAMPLES)], formats, constraints or ("grounded",), labels))


def test_without_a_name_it_is_the_bundled_model() -> None:
    (model,) = find_models([])
    assert (model.name, model.level, model.runtime) == ("chemdis-9m-Q8_0", "Q8_0", "llama.cpp")
    assert model.broken is None and model.sha256 == sha256(model.path) and model.bytes == model.path.stat().st_size
    assert model.needed_bytes == memory.estimate(model.path)


def test_names_files_and_folders() -> None:
    models = find_models(["chemdis-9m-onnx", str(DATA / "chemdis-9m-lists-Q8_0.gguf"), str(DATA)])
    assert [model.name for model in models] == ["chemdis-9m-int8-onnx", "chemdis-9m-lists-Q8_0", "chemdis-9m-Q8_0"]
    assert [model.runtime for model in models] == ["onnxruntime", "llama.cpp", "llama.cpp"]
    assert all(model.broken is None and len(model.sha256) == 64 for model in models)


def test_two_files_of_one_name_are_told_apart(tmp_path: Path) -> None:
    shutil.copy(DATA / "chemdis-9m-Q8_0.gguf", tmp_path)
    models = find_models(["chemdis-9m", str(tmp_path / "chemdis-9m-Q8_0.gguf")])
    assert [model.name for model in models] == [f"chemdis-9m-Q8_0@{DATA}", f"chemdis-9m-Q8_0@{tmp_path}"]
    assert models[1].manifest is None and models[1].level == "Q8_0"  # by its name


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("chemdis", "unknown model 'chemdis'; known: chemdis-9m, "),
        ("nowhere/x.gguf", "nowhere/x.gguf: no such model file"),
        (".", ".: no GGUF file and no ONNX folder in it"),
    ],
)
def test_what_is_not_there_is_refused(name: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError) as refused:
        find_models([name])
    assert str(refused.value).startswith(told)


def test_what_is_there_and_damaged_is_a_row_of_every_corpus_and_decoding(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUF and nothing else")
    models = find_models([str(tmp_path)])
    cells = planned(models, "tuned", "free", "grounded")
    assert len(cells) == 2 and all(cell.broken == models[0].broken for cell in cells)
    assert models[0].broken and "x.gguf" in models[0].broken


@pytest.mark.parametrize(
    ("formats", "wanted"),
    [
        ("tuned", ["multi_code", "conv_term"]),
        ("default", ["multi_code"]),
        ("all", list(FORMATS)),
        ("multi_bio,multi_code", ["multi_bio", "multi_code"]),
    ],
)
def test_formats(formats: str, wanted: list[str]) -> None:
    cells = planned(find_models(["chemdis-9m-lists"]), formats)
    assert [cell.key.format for cell in cells] == wanted
    assert all(cell.tuned == (cell.key.format in ("multi_code", "conv_term")) for cell in cells)


def test_a_file_without_a_manifest_needs_a_format_and_takes_the_labels_of_the_corpus(tmp_path: Path) -> None:
    shutil.copy(DATA / "chemdis-9m-Q8_0.gguf", tmp_path / "mine.gguf")
    models = find_models([str(tmp_path / "mine.gguf")])
    (cell,) = planned(models)
    assert cell.broken and "--formats" in cell.broken
    (cell,) = planned(models, "multi_tag")
    assert cell.broken is None and cell.asked == cell.scored == ("Chemical", "Disease") and not cell.tuned


def test_labels_are_the_models_and_scored_where_the_corpus_has_them(tmp_path: Path) -> None:
    (cell,) = planned(find_models([]), labels=["Disease", "Gene"])
    assert cell.asked == ("Disease", "Gene") and cell.scored == ("Disease",)
    assert {entity.label for document in cell.corpus.documents for entity in document.entities} == {"Disease"}


def test_the_default_constraint_is_that_of_each_manifest() -> None:
    models = find_models(["chemdis-9m", "chemdis-9m-lists"])
    cells = planned(models, "default", "default", "gbnf")
    assert [(cell.model.name[:12], cell.key.constraint) for cell in cells] == [
        ("chemdis-9m-Q", "grounded"),
        ("chemdis-9m-Q", "gbnf"),
        ("chemdis-9m-l", "gbnf"),
    ]


def test_llama_cpps_own_ways_are_not_for_onnx_models() -> None:
    models = find_models(["chemdis-9m", "chemdis-9m-onnx"])
    cells = planned(models, "tuned", *ROWS)
    assert [cell.key.constraint for cell in cells if cell.model is models[0]] == list(ROWS)
    assert {cell.key.constraint for cell in cells if cell.model is models[1]} == {
        "free",
        "gbnf",
        "grounded",
        "text-filter",
    }


def test_what_is_left_out_is_named() -> None:
    models = find_models(["chemdis-9m", "chemdis-9m-onnx"])
    cells = planned(models, "tuned", "grounded", "llama-gbnf", labels=["Disease"])
    assert left_out(models, cells, ["grounded", "llama-gbnf"]) == [
        "llama-gbnf is left out for ONNX models: it is llama.cpp's",
        f"{EXAMPLES}: not scored, as chemdis-9m-Q8_0 is not asked for it: Chemical",
        f"{EXAMPLES}: not scored, as chemdis-9m-int8-onnx is not asked for it: Chemical",
    ]
    assert left_out(models[:1], planned(models[:1]), ["llama-gbnf"]) == []


@pytest.mark.parametrize(
    ("formats", "constraint", "told"),
    [
        ("multi_tags", "free", "unknown format 'multi_tags'; known: tuned, default, all, conv_term"),
        ("tuned", "grounde", "unknown constraint 'grounde'; known: default, free, gbnf, grounded, llama-gbnf"),
    ],
)
def test_unknown_formats_and_constraints_are_refused(formats: str, constraint: str, told: str) -> None:
    with pytest.raises(UsageError) as refused:
        planned(find_models([]), formats, constraint)
    assert str(refused.value).startswith(told)


def test_a_label_that_a_format_cannot_write_is_a_row() -> None:
    (cell,) = planned(find_models([]), "multi_code", labels=["Disease", "2,3"])
    assert cell.broken and "2,3" in cell.broken


def test_the_line_of_a_model_is_json(tmp_path: Path) -> None:
    line = json.loads(json.dumps(find_models([])[0].to_json()))
    assert line["kind"] == "model" and line["model"] == "chemdis-9m-Q8_0" and line["labels"] == ["Chemical", "Disease"]
    assert line["formats"] == ["multi_tag"] and 8 < line["bits_per_weight"] < 9
