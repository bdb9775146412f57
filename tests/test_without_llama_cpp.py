"""What is to be had of formats and models where llama.cpp is not installed, as where nothing can be compiled."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BLOCKED = """
import sys
sys.modules.update(dict.fromkeys(("llama_cpp", "gguf")))  # importing them is a ModuleNotFoundError
from bioner_edge.cli import main
main()
"""


def run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-c", BLOCKED, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "gold.jsonl"
    row = {"id": "1", "text": "Aspirin eased asthma.", "entities": [{"start": 0, "end": 7, "label": "Chemical"}]}
    path.write_text(json.dumps(row) + "\n", "utf-8")
    return path


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["formats"], "as chemdis-9m-int8-onnx counts them"),
        (["formats", "show", "multi_tag"], "tokens of chemdis-9m-int8-onnx"),
        (["formats", "show", "conv_term", "--prompt", "Aspirin helps."], "Aspirin helps."),
        (["formats", "show", "multi_code", "--gbnf"], "root ::="),
        (["formats", "show", "multi_tag", "--model", "chemdis-9m-onnx"], "tokens of chemdis-9m-int8-onnx"),
        (["models"], "chemdis-9m-onnx"),
        (["models", "list", "--json"], "chemdis-9m-onnx"),
        (["models", "show", "chemdis-9m"], "sha256"),
        (["models", "show", "chemdis-9m-onnx", "--json"], "sha256"),
        (["models", "verify", "chemdis-9m", "chemdis-9m-onnx"], "ok  "),
    ],
)
def test_works(arguments: list[str], shown: str) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert shown in done.stdout


def test_a_corpus_is_checked(corpus: Path) -> None:
    done = run("formats", "check", str(corpus), "--json")
    assert (done.returncode, done.stderr) == (0, "")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == 12 and all(row["f1"] == 1.0 and row["tokens_per_document"] > 0 for row in rows)


def test_a_gguf_model_is_named_with_what_it_needs() -> None:
    done = run("formats", "show", "multi_tag", "--model", "chemdis-9m")
    told = "a GGUF model needs llama.cpp: pip install 'bioner-edge[llama]'"
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and told in done.stderr
