"""`bioner-edge doctor`: what processors and builds say is read right, and no machine makes it crash."""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from bioner_edge import doctor
from bioner_edge.cli.doctor import doctor as command
from bioner_edge.doctor import STATUSES, Finding, child, examine
from bioner_edge.errors import ModelError
from bioner_edge.hardware.cpu_features import Cores, Processor
from bioner_edge.models import memory

NATIVE = (
    "CPU : SSE3 = 1 | SSSE3 = 1 | AVX = 1 | AVX2 = 1 | F16C = 1 | FMA = 1 | AVX512 = 1 | OPENMP = 1 | REPACK = 1 | "
)
PORTABLE = "CPU : LLAMAFILE = 1 | OPENMP = 1 | REPACK = 1 | "
APPLE = "Metal : EMBED_LIBRARY = 1 | CPU : NEON = 1 | ARM_FMA = 1 | FP16_VA = 1 | DOTPROD = 1 | ACCELERATE = 1 | "


def only(name: str) -> list[Finding]:
    """What one check finds."""
    return list(doctor._CHECKS[name](name))


# --- Processor and build against each other


def judged(monkeypatch: pytest.MonkeyPatch, has: set[str] | None, says: str) -> Finding:
    monkeypatch.setattr(doctor, "processor", lambda: Processor("CPU X", None if has is None else frozenset(has)))
    monkeypatch.setattr(doctor, "version", lambda library: "0.3.36")
    monkeypatch.setattr(doctor, "run_python", lambda code: says)
    (finding,) = only("processor")
    return finding


def test_features_that_a_build_leaves_unused_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    found = judged(monkeypatch, {"AVX", "AVX2"}, PORTABLE)
    assert found.status == "warning" and "CPU X has AVX, AVX2, which" in found.message
    assert "GGML_NATIVE=ON" in found.remedy and found.remedy.endswith("llama-cpp-python==0.3.36")
    assert "--no-cache-dir" in found.remedy and "--no-binary" in found.remedy


def test_features_that_the_processor_lacks_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    found = judged(monkeypatch, {"SSE3", "SSSE3", "AVX", "AVX2", "BMI2"}, NATIVE)
    assert found.status == "error" and "lacks AVX512, F16C, FMA," in found.message and found.remedy


@pytest.mark.parametrize("late", ["AMX_INT8", "AVX_VNNI"])
def test_features_that_an_old_kernel_does_not_know_are_a_warning(monkeypatch: pytest.MonkeyPatch, late: str) -> None:
    says = f"{NATIVE}{late} = 1 | "
    has = {"SSE3", "SSSE3", "AVX", "AVX2", "F16C", "FMA", "AVX512"}
    found = judged(monkeypatch, has, says)
    assert (
        found.status == "warning" and f"does not report {late}, which llama.cpp 0.3.36 was built for" in found.message
    )
    assert "if a speed is shown below" in found.remedy and found.remedy.endswith("llama-cpp-python==0.3.36")
    assert late in found.facts["built_for"] and late not in found.facts["has"]
    assert judged(monkeypatch, has | {late}, says).status == "ok"
    lacking = judged(monkeypatch, has - {"AVX512"}, says)
    assert lacking.status == "error" and "lacks AVX512, which" in lacking.message
    others = judged(monkeypatch, {"AVX"}, "CPU : AVX = 1 | AVX512_VNNI = 1 | ")
    assert others.status == "error"


def test_a_build_for_this_processor_is_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    found = judged(monkeypatch, {"NEON", "ARM_FMA", "FP16_VA", "DOTPROD"}, APPLE)
    assert found.status == "ok" and "NEON" in found.message and not found.remedy
    assert judged(monkeypatch, None, NATIVE).status == "unknown"
    assert judged(monkeypatch, {"AVX"}, "?").status == "unknown"


def test_a_build_that_cannot_be_loaded_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(code: str) -> Any:
        raise ModelError("its process was ended by SIGILL")

    monkeypatch.setattr(doctor, "run_python", fails)
    (found,) = only("processor")
    assert found.status == "error" and "SIGILL" in found.message and "--force-reinstall" in found.remedy
    monkeypatch.setattr(doctor, "version", lambda library: None)
    (found,) = only("processor")
    assert (
        found.status == "ok" and "only ONNX models can be run" in found.message and "bioner-edge[llama]" in found.remedy
    )


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "SIGILL"),
        ("import no_such_module", "No module named 'no_such_module'"),
        ("raise SystemExit(3)", "exit code 3"),
    ],
)
def test_a_process_that_ends_badly_is_told(code: str, told: str) -> None:
    with pytest.raises(ModelError, match=told):
        child.run_python(code)


def test_a_process_that_prints_more_is_read_by_its_last_line() -> None:
    assert child.run_python("print('a warning'); print([1])") == [1]


def test_amx_that_our_builds_leave_out_is_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    has = {"SSE3", "SSSE3", "AVX", "AVX2", "F16C", "FMA", "AVX512"}
    assert judged(monkeypatch, has | {"AMX_INT8"}, NATIVE).status == "ok"
    built = judged(monkeypatch, has | {"AMX_INT8"}, f"{NATIVE}AMX_INT8 = 1 | ")
    assert (
        built.status == "ok"
        and "AMX_INT8" not in built.message
        and "whether its AMX kernels work is tried below" in built.message
    )


@pytest.mark.parametrize(
    ("used", "failed", "certain", "status", "told"),
    [
        ("all", None, False, "ok", "works with all kernels"),
        ("no-amx", None, False, "warning", "their tile configuration. AMX is left out, and everything works"),
        ("plain", None, False, "warning", "no repacked kernels are used"),
        ("all", "SIGILL", True, "error", "a step of several tokens fails with llama.cpp 0.3.36: SIGILL"),
        ("no-amx", "no answer in 600 s", False, "unknown", "could not be tried: no answer in 600 s"),
    ],
)
def test_kernels_that_do_not_work_are_named_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, used: str, failed: str | None, certain: bool, status: str, told: str
) -> None:
    monkeypatch.setattr(doctor, "version", lambda library: "0.3.36")
    monkeypatch.setattr(doctor, "run_python", lambda code: {"used": used, "failed": failed, "certain": certain})
    (found,) = only("kernels")
    assert found.status == status and told in found.message
    assert bool(found.remedy) == (status in ("warning", "error"))
    assert "CFLAGS=-U__AMX_INT8__ " in found.remedy or not found.remedy


def test_a_process_that_takes_too_long_ends_with_what_it_started(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, gone: Callable[[int], None]
) -> None:
    monkeypatch.setattr(child, "MOST_S", 2)
    code = "import pathlib, subprocess; process = subprocess.Popen(['sleep', '600']); "
    code += f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(process.pid)); process.wait()"
    with pytest.raises(TimeoutError, match="no answer in 2 s"):
        child.run_python(code)
    gone(int((tmp_path / "pid").read_text()))


# --- Cores


@pytest.mark.parametrize(
    ("cores", "status", "told", "remedy"),
    [
        (Cores(4, 4, 4, None, 0.1), "ok", "4 threads will be used", ""),
        (Cores(2, 8, None, None, None), "ok", "2 threads will be used, of 8 that the machine has", ""),
        (Cores(8, 8, 4, None, 0.1), "ok", "they share 4 cores, as hyper-threads", "--threads 4 may"),
        (
            Cores(2, 8, 8, 2.5, 0.1),
            "ok",
            "2 threads will be used, of 8 that the machine has; a control group grants",
            "",
        ),
        (Cores(2, 2, 2, None, 2.3), "warning", "keep 2.3 of them busy", "look again"),
    ],
)
def test_cores_are_judged(monkeypatch: pytest.MonkeyPatch, cores: Cores, status: str, told: str, remedy: str) -> None:
    monkeypatch.setattr(doctor.Cores, "here", classmethod(lambda cls: cores))
    (found,) = only("cores")
    assert found.status == status and told in found.message and found.remedy.startswith(remedy)
    assert bool(found.remedy) == bool(remedy) and found.facts["used"] == cores.used


# --- Memory


@pytest.mark.parametrize(("free", "status"), [(None, "unknown"), (10**8, "warning"), (10**10, "ok")])
def test_free_memory_is_judged(monkeypatch: pytest.MonkeyPatch, free: int | None, status: str) -> None:
    monkeypatch.setattr(memory, "available", lambda: free)
    (found,) = only("memory")
    assert found.status == status and found.facts["free_bytes"] == free


def test_a_full_disk_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    for free, status in ((1 << 20, "warning"), (1 << 40, "ok")):
        monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path, free=free: type("", (), {"free": free}))
        (found,) = only("disk")
        assert found.status == status and bool(found.remedy) == (status == "warning")


# --- What is installed


def installed(monkeypatch: pytest.MonkeyPatch, wanted: list[str], versions: dict[str, str]) -> list[Finding]:
    monkeypatch.setattr(metadata, "requires", lambda name: wanted)
    monkeypatch.setattr(doctor, "version", versions.get)
    return only("libraries")


def test_libraries_that_are_missing_or_of_another_version_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ["numpy>=1.26", "rich>=13.7", 'peft>=0.18; extra == "tune"']
    wanted += ['llama-cpp-python==0.3.36; extra == "llama"', 'gguf>=0.17 ; extra == "llama"']
    versions = {"llama-cpp-python": "0.3.30", "rich": "15.0.0", "torch": "2.13.0+cpu"}
    found = installed(monkeypatch, wanted, versions)
    errors = [finding.message for finding in found if finding.status == "error"]
    assert errors == [
        "numpy is not installed",
        "llama-cpp-python 0.3.30 is installed, but llama-cpp-python==0.3.36 is needed",
    ]
    remedies = ["pip install 'numpy>=1.26'", "pip install 'llama-cpp-python==0.3.36'"]
    assert [f.remedy for f in found if f.status == "error"] == remedies
    assert "torch 2.13.0+cpu, transformers –" in found[-1].message and found[-1].status == "ok"


def test_a_checkout_that_is_not_installed_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str) -> list[str]:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", unknown)
    assert [finding.status for finding in only("libraries")] == ["unknown"]


# --- Models and corpora


def test_a_damaged_model_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models.toml").write_text(
        '[models.mine]\nfile = "m.gguf"\nsha256 = "'
        + "0" * 64
        + '"\nformats = []\nlabels = []\nlicense = "MIT"\ndescription = "x"\n'
    )
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    monkeypatch.setenv("BIONER_MODELS", str(tmp_path))
    found = {finding.message.partition(":")[0]: finding for finding in only("models")}
    assert found["mine"].status == "error" and found["mine"].remedy
    assert found["chemdis-9m"].status == "ok"


def test_corpora_may_be_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIONER_CORPORA", str(tmp_path / "none"))
    (found,) = only("corpora")
    assert found.status == "ok" and "set $BIONER_CORPORA" in found.message
    for name in ("bc5cdr/dev.PubTator.txt", "bc5cdr/test.PubTator.txt", "jnlpba/train/1.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    monkeypatch.setenv("BIONER_CORPORA", str(tmp_path))
    (found,) = only("corpora")
    assert found.message.startswith("3 splits of 2 corpora") and "bc5cdr:dev" in found.facts["found"]


@pytest.mark.parametrize("name", ["processor", "kernels", "speed"])
def test_what_a_process_of_its_own_imports_exists(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    codes: list[str] = []

    def record(code: str) -> Any:
        codes.append(code)
        raise ModelError("recorded")

    monkeypatch.setattr(doctor, "run_python", record)
    monkeypatch.setattr(doctor, "version", lambda library: "0.3.36")
    with suppress(ModelError):
        only(name)
    (code,) = codes
    imports = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.ImportFrom)]
    assert imports
    for node in imports:
        module = importlib.import_module(str(node.module))
        assert all(hasattr(module, alias.name) for alias in node.names), code


# --- The whole


@pytest.mark.parametrize("error", [OSError("unreadable"), KeyError("x"), RuntimeError("odd"), TimeoutError("busy")])
def test_no_check_can_end_it(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fails(name: str) -> Any:
        yield Finding(name, "ok", "so far")
        raise error

    monkeypatch.setattr(doctor, "_CHECKS", {"first": fails, "second": lambda name: iter([Finding(name, "ok", "well")])})
    found = list(examine())
    assert [(f.name, f.status) for f in found] == [("first", "ok"), ("first", "unknown"), ("second", "ok")]
    assert type(error).__name__ in found[1].message


def test_a_mistake_of_the_user_is_told_in_its_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(name: str) -> Any:
        raise ModelError("m.gguf: no such model file")

    monkeypatch.setattr(doctor, "_CHECKS", {"models": fails})
    assert list(examine()) == [Finding("models", "error", "m.gguf: no such model file")]


def test_it_loads_neither_torch_nor_a_runtime_into_its_own_process() -> None:
    code = (
        "import sys; from bioner_edge import doctor; list(doctor.examine()); "
        "print(sorted({'torch', 'transformers', 'llama_cpp', 'onnxruntime'} & sys.modules.keys()))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    assert run.stdout == "[]\n"


def called(monkeypatch: pytest.MonkeyPatch, found: list[Finding], *arguments: str) -> Any:
    monkeypatch.setattr(doctor, "examine", lambda: iter(found))
    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, list(arguments))


@pytest.mark.parametrize("status", STATUSES)
def test_only_an_error_is_a_failure(monkeypatch: pytest.MonkeyPatch, status: str) -> None:
    found = [Finding("one", "ok", "fine"), Finding("two", status, "so so", "do this"), Finding("three", "ok", "fine")]
    result = called(monkeypatch, found)
    assert result.exit_code == (1 if status == "error" else 0)
    assert "so so" in result.stdout and "→ do this" in result.stdout


def test_json_is_one_object_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [Finding("disk", "warning", "little", "more", {"free_bytes": 1}), Finding("cores", "unknown", "?")]
    result = called(monkeypatch, found, "--json")
    assert json.loads(result.stdout) == {
        "status": "warning",
        "checks": [
            {"check": "disk", "status": "warning", "told": "little", "remedy": "more", "free_bytes": 1},
            {"check": "cores", "status": "unknown", "told": "?", "remedy": ""},
        ],
    }


def test_what_fits_is_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = {"1B": {"Q8_0": 10**9, "F16": 3 * 10**9}}
    text = called(
        monkeypatch, [Finding("memory", "ok", "x", "", {"free_bytes": 2 * 10**9, "needed_bytes": needed})]
    ).stdout
    assert "1.0 GB ✓" in text and "3.0 GB ✗" in text and "2.0 GB free" in text
    text = called(
        monkeypatch, [Finding("memory", "unknown", "x", "", {"free_bytes": None, "needed_bytes": needed})]
    ).stdout
    assert "3.0 GB" in text and "✗" not in text and "✓" not in text
