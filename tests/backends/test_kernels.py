"""The kernels of llama.cpp that are used are those that were seen to work, tried in a process of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from itertools import permutations, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bioner_edge.backends import amx, kernel_trial, kernels, native
from bioner_edge.backends.kernels import KERNELS, WRONG, FailedTrial
from bioner_edge.errors import ModelError
from bioner_edge.hardware.cpu_features import Processor, build_features, processor

AMX = "CPU : AVX512 = 1 | AMX_INT8 = 1 | REPACK = 1 | "
PLAIN = "CPU : AVX512 = 1 | REPACK = 1 | "
XEON = Processor("A Xeon", frozenset({"AVX512", "AMX_INT8"}))


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Trials:
    """Trials are not run but looked up, on a processor and in a build that have AMX."""
    found = Trials()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(kernels, "processor", lambda: XEON)
    monkeypatch.setattr(kernels, "trial", found)
    return found


class Trials:
    """`fails` says which kernels fail and how; `asked` has those that were tried."""

    def __init__(self) -> None:
        self.fails: dict[str, FailedTrial] = {}
        self.asked: list[str] = []

    def __call__(self, model: Path, chosen: str) -> FailedTrial | None:
        self.asked.append(chosen)
        return self.fails.get(chosen)


CRASH = FailedTrial("SIGSEGV", certain=True)


@pytest.fixture
def library(tmp_path: Path) -> Path:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "libggml-cpu.so").write_bytes(b"x")
    return tmp_path / "lib"


def made(path: Path, *tensors: tuple[str, tuple[int, ...]]) -> Path:
    """A GGUF header with tensors of these types and shapes (ggml's: the length of a row first)."""
    import gguf

    writer = gguf.GGUFWriter(path, "llama")
    for number, (kind, shape) in enumerate(tensors):
        type_ = gguf.GGMLQuantizationType[kind]
        data = np.zeros(gguf.quant_shape_to_byte_shape(shape[::-1], type_), np.uint8)
        writer.add_tensor(f"blk.{number}.attn_q.weight", data, raw_dtype=type_)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A file with weights that AMX has kernels for."""
    return made(tmp_path / "m.gguf", ("Q8_0", (64, 64)), ("F32", (64,)))


def test_without_amx_nothing_is_tried(
    trials: Trials, library: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert kernels.choose(model, library, PLAIN) == "all"
    monkeypatch.setattr(kernels, "processor", lambda: Processor("An EPYC", frozenset({"AVX512"})))
    assert kernels.choose(model, library, AMX) == "all"
    assert not trials.asked and not (library.parent / "cache").exists()


@pytest.mark.parametrize(
    ("fails", "chosen"),
    [((), "all"), (("all",), "no-amx"), (("all", "no-amx"), "plain")],
)
def test_the_fastest_that_work_are_taken_and_kept(
    trials: Trials, library: Path, model: Path, fails: tuple[str, ...], chosen: str
) -> None:
    trials.fails = dict.fromkeys(fails, CRASH)
    assert kernels.choose(model, library, AMX) == chosen
    assert trials.asked == list(KERNELS[: KERNELS.index(chosen) + 1])
    trials.asked.clear()
    assert kernels.choose(model, library, AMX) == chosen and not trials.asked


def test_where_nothing_works_that_is_an_error(trials: Trials, library: Path, model: Path) -> None:
    trials.fails = dict.fromkeys(KERNELS, FailedTrial("SIGILL", certain=True))
    with pytest.raises(ModelError, match=r"no kernels of llama\.cpp work on this processor: SIGILL; take an ONNX"):
        kernels.choose(model, library, AMX)


@pytest.mark.parametrize(("crash", "chosen"), [((), "no-amx"), (("all",), "plain"), (("all", "no-amx"), "plain")])
def test_what_says_nothing_of_kernels_is_not_kept(
    trials: Trials, library: Path, model: Path, crash: tuple[str, ...], chosen: str
) -> None:
    """Memory that ran out, a slow disk or a file that cannot be loaded: the next kernels are taken, this once."""
    unsure = dict.fromkeys(KERNELS, FailedTrial("SIGKILL, perhaps because memory ran out", certain=False))
    trials.fails = unsure | dict.fromkeys(crash, CRASH)
    assert kernels.choose(model, library, AMX) == chosen
    assert trials.asked == list(KERNELS[: len(crash) + 1])
    trials.fails.clear()
    assert kernels.choose(model, library, AMX) == "all"


def test_an_answer_is_of_one_library_and_processor(
    trials: Trials, library: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernels.choose(model, library, AMX)
    trials.fails = {"all": CRASH}
    (library / "libggml-cpu.so").write_bytes(b"another build")
    assert kernels.choose(model, library, AMX) == "no-amx"
    monkeypatch.setattr(kernels, "processor", lambda: Processor("Another Xeon", XEON.features))
    trials.asked.clear()
    assert kernels.choose(model, library, AMX) == "no-amx" and trials.asked == ["all", "no-amx"]


def test_an_answer_is_of_weights_of_one_kind(trials: Trials, library: Path, tmp_path: Path) -> None:
    """A model some of whose matrices AMX has no kernels for says nothing of one all of whose it has."""
    toy = made(tmp_path / "toy.gguf", ("Q8_0", (64, 64)), ("Q8_0", (64, 48)))
    assert kernels.choose(toy, library, AMX) == "all"
    trials.fails = {"all": CRASH}
    real = made(tmp_path / "real.gguf", ("Q8_0", (768, 3072)), ("Q8_0", (3072, 768)))
    assert kernels.choose(real, library, AMX) == "no-amx"
    trials.asked.clear()
    larger = made(tmp_path / "larger.gguf", ("Q8_0", (1536, 8960)), ("Q8_0", (8960, 1536)), ("F32", (1536,)))
    assert kernels.choose(larger, library, AMX) == "no-amx" and not trials.asked  # divided by the same powers of two


@pytest.mark.parametrize(
    ("kind", "shape", "multiplied"),
    [
        ("Q8_0", (64, 64), True), ("Q8_0", (64, 48), False), ("Q8_0", (64,), False), ("Q4_K", (256, 32), True),
        ("Q4_0", (32, 32), True), ("F16", (16, 32), True), ("F16", (8, 32), False), ("F32", (256, 256), False),
        ("BF16", (256, 256), False), ("Q2_K", (256, 256), False),
    ],
)  # fmt: skip
def test_a_model_without_kernels_of_amx_leaves_it_out(
    trials: Trials, library: Path, tmp_path: Path, kind: str, shape: tuple[int, ...], multiplied: bool
) -> None:
    """llama.cpp decides about AMX once in a process: the next model may need to do without."""
    path = made(tmp_path / "m.gguf", (kind, shape))
    assert kernels.choose(path, library, AMX) == ("all" if multiplied else "no-amx")
    assert trials.asked == (["all"] if multiplied else [])


class Process:
    """llama.cpp's list of layouts, as one process has it: made when somebody first asks, AMX in it unless Linux says
    no, which it does while an alternate signal stack is small."""

    def __init__(self) -> None:
        self.listed: list[str] | None = None

    def layouts(self) -> list[str]:
        if self.listed is None:
            self.listed = (["AMX"] if "2048" not in stack() else []) + ["CPU_REPACK"]
        return self.listed

    def load(self, asked: str) -> tuple[str, bool]:
        """The kernels that a model gets, and whether llama.cpp takes AMX for it."""
        settled = kernels.settle(asked)
        return settled, "AMX" in self.layouts() and settled != "plain"


@pytest.mark.skipif(sys.platform != "linux", reason="a rule of Linux")
@pytest.mark.parametrize("order", [*permutations(KERNELS), *product(KERNELS, repeat=2)])
def test_whatever_the_order_no_model_gets_amx_that_is_to_do_without(
    order: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    process = Process()
    monkeypatch.setattr(native, "layouts", process.layouts)
    found = [process.load(asked) for asked in order]
    for asked, (settled, uses_amx) in zip(order, found, strict=True):
        assert not (uses_amx and asked != "all")
        assert settled == asked or (asked, settled) == ("no-amx", "plain")
    assert found[0][0] == order[0]
    if order[0] == "no-amx":  # then every model keeps the repacked kernels, or asks for none
        assert [settled for settled, _ in found] == list(order)


@pytest.mark.skipif(sys.platform != "linux", reason="a rule of Linux")
def test_where_linux_takes_no_small_stack_weights_are_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """So it is in a process that another library has asked AMX for, as torch does."""
    process = Process()
    monkeypatch.setattr(native, "layouts", process.layouts)
    monkeypatch.setattr(amx, "_SMALL_STACK", 512)  # no system takes that
    assert process.load("no-amx") == ("plain", False)


def test_llama_cpp_tells_its_layouts(tiny_model: Path) -> None:
    """Of the build that is installed, before and after a model is loaded."""
    from bioner_edge.backends.llama_cpp import LlamaCpp

    found = native.layouts()
    assert all(found) and native.layouts() == found
    with LlamaCpp(tiny_model, kernels="no-amx") as backend:
        assert backend.kernels == ("plain" if "AMX" in found else "no-amx") and native.layouts() == found
    with LlamaCpp(tiny_model, kernels="plain") as backend:
        assert backend.kernels == "plain"


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff", b'{"a": 7}'])
def test_a_damaged_cache_costs_a_trial(trials: Trials, library: Path, model: Path, data: bytes) -> None:
    cache = kernels._cache_file()
    cache.parent.mkdir(parents=True)
    cache.write_bytes(data)
    assert kernels.choose(model, library, AMX) == "all" and trials.asked == ["all"]
    assert "all" in json.loads(cache.read_bytes()).values()


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/proc").exists(), reason="everything can be written")
def test_a_cache_that_cannot_be_written_costs_a_trial(
    trials: Trials, library: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    for _ in range(2):
        assert kernels.choose(model, library, AMX) == "all"
    assert trials.asked == ["all", "all"]


def test_a_trial_runs_in_a_process_of_its_own(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for chosen in KERNELS:
        assert kernels.trial(tiny_model, chosen) is None
    (tmp_path / "not.gguf").write_bytes(b"x")
    failed = kernels.trial(tmp_path / "not.gguf", "all")
    assert failed and "llama.cpp cannot load it" in failed.reason and not failed.certain
    python = tmp_path / "python"
    python.touch(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    for ending, expected in {
        "kill -SEGV $$": FailedTrial("SIGSEGV", certain=True),
        "kill -ILL $$": FailedTrial("SIGILL", certain=True),
        "kill -BUS $$": FailedTrial("SIGBUS", certain=True),
        "kill -FPE $$": FailedTrial("SIGFPE", certain=True),
        "kill -KILL $$": FailedTrial("SIGKILL, perhaps because memory ran out", certain=False),
        "kill -ABRT $$": FailedTrial("SIGABRT", certain=False),  # C++ ends so where memory runs out
        f"echo logits astray >&2; exit {WRONG}": FailedTrial("logits astray", certain=True),
        "exit 1": FailedTrial("exit code 1", certain=False),
    }.items():
        python.write_text(f"#!/bin/sh\n{ending}\n")
        assert kernels.trial(tiny_model, "all") == expected
    python.write_text("#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr(kernels, "_TRIAL_S", 0.2)
    assert kernels.trial(tiny_model, "all") == FailedTrial("no answer in 0.2 s", certain=False)


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


@pytest.mark.parametrize("logit", [0.0, np.nan])
def test_logits_that_tell_nothing_are_no_judgement(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, logit: float
) -> None:
    from bioner_edge.backends import llama_cpp

    monkeypatch.setattr(llama_cpp.LlamaCpp, "eval", lambda *_: np.full(400, logit, np.float32))
    with pytest.raises(ModelError, match="the logits of plain kernels are not finite, or all alike"):
        kernel_trial.main(tiny_model, "all")


def test_a_trial_does_not_outlive_the_process_that_asks(
    tmp_path: Path, until: Callable[[Callable[[], Any]], Any], gone: Callable[[int], None]
) -> None:
    """It is busy with a file that never comes."""
    os.mkfifo(tmp_path / "never.gguf")
    asking = "import sys; from pathlib import Path; from bioner_edge.backends import kernels; "
    asking += "kernels.trial(Path(sys.argv[1]), 'all')"
    process = subprocess.Popen([sys.executable, "-c", asking, str(tmp_path / "never.gguf")])
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    trial = int(until(lambda: children.read_text().split())[0])
    process.kill()
    process.wait()
    gone(trial)


def test_the_signal_stack_is_small_only_while_layouts_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform != "linux":
        pytest.skip("a rule of Linux")
    before, meanwhile = stack(), []

    def layouts() -> list[str]:
        meanwhile.append(stack())
        os.write(2, b"AMX is not ready to be used!\n")  # what llama.cpp says then; nobody asked
        return []

    monkeypatch.setattr(native, "layouts", layouts)
    assert amx.refuse() and meanwhile[0].startswith("2048 ") and stack() == before


def stack() -> str:
    """The size and the flags of the alternate signal stack."""
    import ctypes

    class Stack(ctypes.Structure):
        _fields_ = (("sp", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))

    found = Stack()
    assert ctypes.CDLL(None).sigaltstack(None, ctypes.byref(found)) == 0
    return f"{found.size} {found.flags}"


def test_amx_where_the_processor_has_it(tiny_model: Path) -> None:
    """The build that is installed, on this processor: whatever it was built with, extraction works."""
    from bioner_edge.backends.llama_cpp import LlamaCpp
    from bioner_edge.backends.native import library

    _, says = library()
    if "AMX_INT8" not in (processor().features or ()):
        pytest.skip(f"{processor().name} has no AMX")
    if "AMX_INT8" not in (build_features(says) or ()):
        pytest.skip("llama.cpp was built without AMX here, as `make demo` does")
    assert kernels.choose(tiny_model, *library()) in KERNELS
    with LlamaCpp(tiny_model) as backend:
        assert np.isfinite(backend.eval(backend.new_sequence(), [1, 2])).all()
