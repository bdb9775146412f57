"""The kernels of llama.cpp that are used are those that were seen to work, tried in a process of their own."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from bioner_edge.backends import kernel_trial, kernels
from bioner_edge.backends.kernels import KERNELS
from bioner_edge.errors import ModelError
from bioner_edge.hardware.cpu_features import Processor, of_build, processor

AMX = "CPU : AVX512 = 1 | AMX_INT8 = 1 | REPACK = 1 | "
PLAIN = "CPU : AVX512 = 1 | REPACK = 1 | "
XEON = Processor("A Xeon", frozenset({"AVX512", "AMX_INT8"}))


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str | None]:
    """Which kernels fail and why, to be filled; trials are not run but looked up, and noted under "asked"."""
    fails: dict[str, str | None] = {"asked": ""}

    def trial(model: Path, chosen: str) -> str | None:
        fails["asked"] = f"{fails['asked']} {chosen}".strip()
        return fails.get(chosen)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(kernels, "processor", lambda: XEON)
    monkeypatch.setattr(kernels, "trial", trial)
    return fails


@pytest.fixture
def library(tmp_path: Path) -> Path:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "libggml-cpu.so").write_bytes(b"x")
    return tmp_path / "lib"


def test_without_amx_nothing_is_tried(
    tried: dict[str, str | None], library: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert kernels.choose(tiny_model, library, PLAIN) == "all"
    monkeypatch.setattr(kernels, "processor", lambda: Processor("An EPYC", frozenset({"AVX512"})))
    assert kernels.choose(tiny_model, library, AMX) == "all"
    assert tried["asked"] == "" and not (library.parent / "cache").exists()


@pytest.mark.parametrize(
    ("fails", "chosen"),
    [((), "all"), (("all",), "no-amx"), (("all", "no-amx"), "plain")],
)
def test_the_fastest_that_work_are_taken_and_kept(
    tried: dict[str, str | None], library: Path, tiny_model: Path, fails: tuple[str, ...], chosen: str
) -> None:
    tried |= dict.fromkeys(fails, "signal 11")
    assert kernels.choose(tiny_model, library, AMX) == chosen
    assert tried["asked"] == " ".join(KERNELS[: KERNELS.index(chosen) + 1])
    tried["asked"] = ""
    assert kernels.choose(tiny_model, library, AMX) == chosen and tried["asked"] == ""


def test_where_nothing_works_that_is_an_error(tried: dict[str, str | None], library: Path, tiny_model: Path) -> None:
    tried |= dict.fromkeys(KERNELS, "signal 4")
    with pytest.raises(ModelError, match=r"no kernels of llama\.cpp work on this processor: signal 4; take an ONNX"):
        kernels.choose(tiny_model, library, AMX)


def test_an_answer_is_of_one_library_and_processor(
    tried: dict[str, str | None], library: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernels.choose(tiny_model, library, AMX)
    tried |= {"asked": "", "all": "signal 11"}
    (library / "libggml-cpu.so").write_bytes(b"another build")
    assert kernels.choose(tiny_model, library, AMX) == "no-amx"
    monkeypatch.setattr(kernels, "processor", lambda: Processor("Another Xeon", XEON.features))
    tried["asked"] = ""
    assert kernels.choose(tiny_model, library, AMX) == "no-amx" and tried["asked"] == "all no-amx"


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff", b'{"a": 7}'])
def test_a_damaged_cache_costs_a_trial(
    tried: dict[str, str | None], library: Path, tiny_model: Path, data: bytes
) -> None:
    cache = kernels._cache_file()
    cache.parent.mkdir(parents=True)
    cache.write_bytes(data)
    assert kernels.choose(tiny_model, library, AMX) == "all" and tried["asked"] == "all"
    assert "all" in json.loads(cache.read_bytes()).values()


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/proc").exists(), reason="everything can be written")
def test_a_cache_that_cannot_be_written_costs_a_trial(
    tried: dict[str, str | None], library: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    for _ in range(2):
        assert kernels.choose(tiny_model, library, AMX) == "all"
    assert tried["asked"] == "all all"


def test_a_trial_runs_in_a_process_of_its_own(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for chosen in KERNELS:
        assert kernels.trial(tiny_model, chosen) is None
    (tmp_path / "not.gguf").write_bytes(b"x")
    assert "llama.cpp cannot load it" in str(kernels.trial(tmp_path / "not.gguf", "all"))
    dies = tmp_path / "python"
    dies.write_text("#!/bin/sh\nkill -SEGV $$\n")
    dies.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(dies))
    assert kernels.trial(tiny_model, "all") == "signal 11"


def test_logits_that_are_not_those_of_plain_kernels_fail(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bioner_edge.backends import llama_cpp

    assert kernel_trial.main(tiny_model, "all") is None
    evaluate, count = llama_cpp.LlamaCpp.eval, 0

    def garbled(*arguments: object) -> object:
        nonlocal count
        count += 1
        logits = evaluate(*arguments)  # type: ignore[arg-type]
        return logits if count > 2 else np.roll(logits, 1)  # the first model's alone

    monkeypatch.setattr(llama_cpp.LlamaCpp, "eval", garbled)
    assert "standard deviations away" in str(kernel_trial.main(tiny_model, "all"))


@pytest.mark.skipif(sys.platform != "linux", reason="a rule of Linux")
def test_the_signal_stack_is_small_only_while_a_model_is_loaded() -> None:
    def stack() -> str:
        import ctypes

        class Stack(ctypes.Structure):
            _fields_ = (("sp", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))

        found = Stack()
        assert ctypes.CDLL(None).sigaltstack(None, ctypes.byref(found)) == 0
        return f"{found.size} {found.flags}"

    before = stack()
    with kernels.loading("no-amx") as repacked:
        assert repacked and stack().startswith("2048 ")
        os.write(2, b"AMX is not ready to be used!\n")  # what llama.cpp says then; nobody asked
    assert stack() == before
    with kernels.loading("plain") as repacked:
        assert not repacked and stack() == before


def test_amx_where_the_processor_has_it(tiny_model: Path) -> None:
    """The build that is installed, on this processor: whatever it was built with, extraction works."""
    from bioner_edge.backends.llama_cpp import LlamaCpp
    from bioner_edge.backends.native import library

    _, says = library()
    if "AMX_INT8" not in (processor().features or ()):
        pytest.skip(f"{processor().name} has no AMX")
    if "AMX_INT8" not in (of_build(says) or ()):
        pytest.skip("llama.cpp was built without AMX here, as `make demo` does")
    assert kernels.choose(tiny_model, *library()) in KERNELS
    with LlamaCpp(tiny_model) as backend:
        assert np.isfinite(backend.eval(backend.new_sequence(), [1, 2])).all()
