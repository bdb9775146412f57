"""The memory's copy against a clock of ours, the bytes that a step reads against the headers, cores that are bound."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import bioner_edge
from bioner_edge.benchmarks.measuring import bandwidth, machine
from bioner_edge.errors import UsageError
from bioner_edge.hardware.threads import cores
from bioner_edge.models import gguf_header, memory
from bioner_edge.models.gguf_header import Header
from bioner_edge.models.gguf_header import Tensor as GgufTensor
from bioner_edge.models.onnx import folder as onnx_folder
from bioner_edge.models.onnx.graph import External, Graph, Node, Tensor

DATA = Path(bioner_edge.__file__).parent / "data"
USABLE = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
needs_affinity = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds no process")


# The copy


@pytest.mark.parametrize("threads", [1, 2])
def test_bytes_read_and_written_by_the_best_of_some(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if threads > cores():
        pytest.skip("one core only")
    ticks = iter([0, 9, 10, 14, 20, 22, 30, 33])  # seconds: 9 of the first touch, then 4, 2, 3
    monkeypatch.setattr(bandwidth, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    copied: list[tuple[int, bool]] = []
    copy = np.copyto

    def noted(target: Any, source: Any) -> None:
        copy(target, source)
        copied.append((len(source), bool((target == 1).all())))

    monkeypatch.setattr(np, "copyto", noted)
    assert bandwidth.copy_bytes_per_s(threads, bytes=8 * 1001, repeats=3) == 2 * 8 * 1001 / 2
    assert len(copied) == 4 * threads and all(whole for _, whole in copied)
    assert sum(size for size, _ in copied) == 4 * 1001
    assert max(size for size, _ in copied) - min(size for size, _ in copied) <= 1


def test_a_copy_lets_other_threads_run() -> None:
    """While one thread copies, another goes on: nothing but the copy itself can have let it."""
    source, target = np.ones(1 << 23), np.zeros(1 << 23)
    turns, seen, ended = [0], [0], threading.Event()

    def copies() -> None:
        for _ in range(500):
            before = turns[0]
            np.copyto(target, source)
            seen[0] = turns[0] - before
            if seen[0]:
                break
        ended.set()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)  # nobody is made to stop
    try:
        thread = threading.Thread(target=copies)
        thread.start()
        while not ended.is_set():
            turns[0] += 1
            time.sleep(0)
        thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert seen[0] > 0


def test_the_buffer_is_far_larger_than_the_cache_and_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    free: list[int | None] = [64 << 30]
    monkeypatch.setattr(memory, "available", lambda: free[0])
    for cache, expected in ((None, 256 << 20), (32 << 20, 256 << 20), (512 << 20, 4 << 30)):
        monkeypatch.setattr(bandwidth, "last_level_cache_bytes", lambda cache=cache: cache)
        assert bandwidth.buffer_bytes() == expected
    free[0] = 1 << 30
    assert bandwidth.buffer_bytes() == (1 << 30) // 8  # source and target: a quarter
    free[0] = None
    assert bandwidth.buffer_bytes() == 4 << 30


def test_the_last_level_cache(tmp_path: Path) -> None:
    assert bandwidth.last_level_cache_bytes(tmp_path) is None
    for index, told in enumerate(("48K", "1M", "32768K\n", "nonsense")):
        (tmp_path / f"index{index}").mkdir()
        (tmp_path / f"index{index}" / "size").write_text(told)
    assert bandwidth.last_level_cache_bytes(tmp_path) == 32 << 20


def process(spec: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "bioner_edge.benchmarks.measuring.bandwidth"]
    return subprocess.run(command, input=json.dumps(spec), capture_output=True, text=True)


def test_the_process() -> None:
    done = process({"threads": 1})
    assert done.returncode == 0 and done.stderr == ""
    assert json.loads(done.stdout)["copy_bytes_per_s"] > 1e6
    refused = process({"threads": 100_000})
    assert refused.returncode == 2 and refused.stdout == ""
    assert refused.stderr.startswith("100000 threads on the ") and refused.stderr.count("\n") == 1


# Bytes of a step


def test_a_step_reads_all_but_the_embedding(tiny_model: Path) -> None:
    gguf = pytest.importorskip("gguf")
    for path in (tiny_model, DATA / "chemdis-9m-Q8_0.gguf"):
        tensors = {tensor.name: int(tensor.n_bytes) for tensor in gguf.GGUFReader(path).tensors}
        assert {"output.weight", "token_embd.weight"} <= tensors.keys()
        assert bandwidth.step_bytes(path) == sum(tensors.values()) - tensors["token_embd.weight"]


def test_an_embedding_that_is_the_output_matrix_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = tuple(GgufTensor(name, "F32", (2, 5), 40) for name in ("token_embd.weight", "blk.0.attn_q.weight"))
    headers = {
        "tied": Header({"general.architecture": "gemma3"}, tensors),
        "experts": Header({"general.architecture": "granitemoe", "granitemoe.expert_count": 32}, tensors),
    }
    monkeypatch.setattr(gguf_header, "read", lambda path: headers[path.stem])
    assert bandwidth.step_bytes(Path("tied.gguf")) == 80
    assert bandwidth.step_bytes(Path("experts.gguf")) is None


def test_a_step_of_an_onnx_model() -> None:
    folder = DATA / "chemdis-9m-int8-onnx"
    tensors = {tensor.name: tensor for tensor in onnx_folder.check_confined(folder).tensors}
    matrices = [tensor.bytes for name, tensor in tensors.items() if ".MatMul.weight.int8" in name]
    assert len(matrices) == 2 * 31  # with their scales
    assert bandwidth.step_bytes(folder) == sum(matrices)


def test_matrices_of_an_onnx_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedding is the output matrix too, through a Transpose; a table of angles is looked up only."""

    def tensor(name: str, bytes: int) -> Tensor:
        return Tensor(name, "f32", (1, 1), bytes, External("model.onnx.data", 0, bytes), True)

    def node(operator: str, inputs: str, out: str) -> Node:
        return Node(operator, tuple(inputs.split()), (out,), {})

    nodes = (
        node("Gather", "embedding ids", "x"),
        node("Gather", "angles ids", "a"),
        node("MatMul", "x q", "y"),
        node("com.microsoft.MatMulNBits", "y packed scales", "z"),
        node("Transpose", "embedding", "turned"),
        node("MatMul", "z turned", "logits"),
        node("MatMul", "left x", "score"),  # by what was computed
    )
    sizes = {"embedding": 1, "angles": 2, "q": 4, "packed": 8, "scales": 16, "left": 32, "norm": 64}
    graph = Graph(10, {}, "", (), (), nodes, tuple(tensor(name, size) for name, size in sizes.items()))
    monkeypatch.setattr(onnx_folder, "check_confined", lambda folder: graph)
    assert bandwidth.step_bytes(DATA) == 1 + 4 + 8 + 16


# Cores and the machine


@pytest.fixture
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """A machine whose process may use the cores that are named."""
    usable: set[int] = set(range(8))
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: usable, raising=False)

    def allow(named: str) -> None:
        usable.clear()
        usable.update(map(int, named.split()))

    yield allow


def topology(root: Path, siblings: dict[int, str]) -> Path:
    for core, told in siblings.items():
        (root / f"cpu{core}" / "topology").mkdir(parents=True)
        (root / f"cpu{core}" / "topology" / "thread_siblings_list").write_text(f"{told}\n")
    return root


def test_physical_cores_first(tmp_path: Path, eight_cores: Callable[[str], None]) -> None:
    pairs = topology(tmp_path / "pairs", {core: f"{core - core % 2}-{core - core % 2 + 1}" for core in range(8)})
    assert machine.choose_cores(3, pairs) == [0, 2, 4]
    assert machine.choose_cores(5, pairs) == [0, 1, 2, 4, 6]
    assert machine.choose_cores(8, pairs) == list(range(8))
    halves = topology(tmp_path / "halves", {core: f"{core % 4},{core % 4 + 4}" for core in range(8)})
    assert machine.choose_cores(4, halves) == [0, 1, 2, 3]
    assert machine.choose_cores(2, tmp_path / "nothing told") == [0, 1]
    eight_cores("1 5 6")
    assert machine.choose_cores(2, halves) == [1, 6]
    with pytest.raises(UsageError, match="4 threads on the 3 cores that this process may use; take 1 to 3"):
        machine.choose_cores(4, halves)
    with pytest.raises(UsageError, match="0 threads on the 3 cores"):
        machine.choose_cores(0, halves)


@needs_affinity
def test_pinned_while_it_lasts() -> None:
    inherited: list[set[int]] = []
    with machine.pin(1) as chosen:
        assert os.sched_getaffinity(0) == set(chosen) and len(chosen) == 1
        thread = threading.Thread(target=lambda: inherited.append(os.sched_getaffinity(0)))
        thread.start()
        thread.join()
    assert inherited == [set(chosen)] and os.sched_getaffinity(0) == USABLE
    with pytest.raises(ZeroDivisionError), machine.pin(1):
        raise ZeroDivisionError
    assert os.sched_getaffinity(0) == USABLE


def test_facts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    told = tmp_path / "cpuinfo"
    told.write_text(
        "model name\t: A Processor 3000\nflags\t\t: fpu sse4_1 smep avx2 fma f16c nx avx512_vnni\nflags : x\n"
    )
    monkeypatch.setattr(machine, "_CPUINFO", told)
    found = machine.facts()
    assert found["processor"] == "A Processor 3000" and found["cores"] >= 1
    assert found["flags"] == ["avx2", "avx512_vnni", "f16c", "fma", "sse4_1"]
    assert found.keys() == {"processor", "cores", "memory_bytes", "platform", "flags"}
    assert found["memory_bytes"] is None or found["memory_bytes"] > 1 << 28
    told.write_text("Features\t: fp asimd asimddp i8mm sve2 bf16\n")
    assert machine.facts()["flags"] == ["asimd", "asimddp", "bf16", "i8mm", "sve2"]
    monkeypatch.setattr(machine, "_CPUINFO", tmp_path / "none")
    assert machine.facts()["flags"] == [] and machine.facts()["processor"]


def test_versions() -> None:
    found = machine.versions()
    assert {"python", "bioner-edge", "numpy", "llama-cpp-python"} <= found.keys()
    assert machine.versions(["numpy", "no-such-library"]) == {"python": found["python"], "numpy": np.__version__}
