"""A llama.cpp or an onnxruntime that is installed, but lacks a library of the system's, is one line that says so."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import bioner_edge

DATA = Path(bioner_edge.__file__).parent / "data"
GGUF, ONNX = str(DATA / "chemdis-9m-Q8_0.gguf"), str(DATA / "chemdis-9m-int8-onnx")
NO_GOMP = "libgomp.so.1: cannot open shared object file: No such file or directory"
LLAMA = (
    f"llama.cpp is installed, but cannot be loaded: {NO_GOMP}; install the library that is missing (libgomp.so.1: apt"
)


@pytest.fixture
def lacking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both as their importing ends where a library is missing."""
    broken = {
        "llama_cpp": f"raise RuntimeError(\"Failed to load shared library '/x/lib/libllama.so': {NO_GOMP}\")",
        "onnxruntime": f"raise ImportError({NO_GOMP!r}, name='onnxruntime.capi.state')",
    }
    for name, code in broken.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(code + "\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


def run(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    code = "from bioner_edge.cli import main; main()"
    command = [sys.executable, "-P", "-c", code, *arguments]
    return subprocess.run(command, input=given, capture_output=True, text=True, env=os.environ)


@pytest.mark.usefixtures("lacking")
@pytest.mark.thorough(only=("arguments1-*", "arguments3-*"))
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["extract"], LLAMA),
        (["extract", "--model", GGUF], LLAMA),
        (["verify", GGUF], LLAMA),
        (["formats", "show", "multi_tag", "--model", GGUF], LLAMA),
        (["extract", "--model", ONNX], f"{ONNX}: onnxruntime is installed, but cannot be loaded: {NO_GOMP}; install"),
    ],
)
def test_told_in_one_line(arguments: list[str], told: str) -> None:
    done = run(*arguments, given="Aspirin eased asthma.")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"bioner-edge: {told}") and done.stderr.count("\n") == 1, done.stderr


@pytest.mark.usefixtures("lacking")
def test_the_doctor_names_the_library() -> None:
    done = run("doctor", "--json")
    assert done.returncode == 1 and NO_GOMP in done.stdout and "Traceback" not in done.stdout + done.stderr


@pytest.mark.usefixtures("lacking")
def test_a_measuring_process_says_so_too() -> None:
    asked = {"model": GGUF, "format": "multi_tag", "labels": ["Disease"], "guidelines": None}
    for constraint in ("grounded", "llama-cpp-python"):
        code = "from bioner_edge.benchmarks.baselines import load_reader; "
        code += f"load_reader(**{asked}, constraint={constraint!r})"
        done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
        assert done.stderr.splitlines()[-1].startswith(f"bioner_edge.errors.ModelError: {LLAMA}")
