"""What processors, builds of llama.cpp and control groups say of themselves is read right."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioner_edge.hardware import cpu_features
from bioner_edge.hardware import threads as backends_cores
from bioner_edge.hardware.cpu_features import LATE_FEATURES, Cores, Processor, build_features, processor

NATIVE = (
    "CPU : SSE3 = 1 | SSSE3 = 1 | AVX = 1 | AVX2 = 1 | F16C = 1 | FMA = 1 | AVX512 = 1 | OPENMP = 1 | REPACK = 1 | "
)
PORTABLE = "CPU : LLAMAFILE = 1 | OPENMP = 1 | REPACK = 1 | "
APPLE = "Metal : EMBED_LIBRARY = 1 | CPU : NEON = 1 | ARM_FMA = 1 | FP16_VA = 1 | DOTPROD = 1 | ACCELERATE = 1 | "
X86 = """\
processor\t: 0
model name\t: Some Xeon
flags\t\t: fpu pni ssse3 fma avx f16c avx2 bmi2 avx512f avx512_vnni amx_int8 hypervisor

processor\t: 1
model name\t: Some Xeon
flags\t\t: fpu
"""
ARM = "processor\t: 0\nFeatures\t: fp asimd evtstrm aes asimdhp asimddp i8mm\nCPU part\t: 0xd40\n"
MAC = """\
machdep.cpu.brand_string: Apple M2
hw.optional.arm.FEAT_DotProd: 1
hw.optional.arm.FEAT_I8MM: 1
hw.optional.arm.FEAT_SME: 0
hw.optional.AdvSIMD: 1
"""
INTEL_MAC = """\
machdep.cpu.brand_string: Core i7
machdep.cpu.features: FPU SSE3 SSSE3 FMA AVX1.0 F16C
machdep.cpu.leaf7_features: BMI2 AVX2
"""


def put(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


# --- Features


def test_a_builds_features_are_those_of_the_processor_that_are_one() -> None:
    assert build_features(NATIVE) == {"SSE3", "SSSE3", "AVX", "AVX2", "F16C", "FMA", "AVX512"}
    assert build_features(PORTABLE) == frozenset()
    assert build_features("AVX = 1 | AVX2 = 0 | FMA = 0 | ") == {"AVX"}
    assert build_features(APPLE) == {"NEON", "ARM_FMA", "FP16_VA", "DOTPROD"}
    assert build_features("CUDA : ARCHS = 900 | FMA = 1 | CPU : AVX = 1 | ") == {"AVX"}
    assert build_features("CPU : AVX = 1 | CUDA : FMA = 1 | ") == {"AVX"}
    assert build_features("") is None and build_features("nothing of that kind") is None


@given(st.text())
def test_no_string_of_a_build_is_too_strange(text: str) -> None:
    found = build_features(text)
    assert found is None or found <= cpu_features._X86.keys() | cpu_features._ARM.keys()


def test_the_installed_build_is_read() -> None:
    lib = pytest.importorskip("llama_cpp.llama_cpp")
    text = lib.llama_print_system_info().decode()
    built = build_features(text)
    assert built is not None
    for feature in (*cpu_features._X86, *cpu_features._ARM):
        assert (feature in built) == (f" {feature} = 1 " in text), feature


def test_a_processors_features_are_read(tmp_path: Path) -> None:
    found = processor(put(tmp_path / "x86", {"cpuinfo": X86}))
    assert found.name == "Some Xeon"
    wanted = {"SSE3", "SSSE3", "FMA", "AVX", "F16C", "AVX2", "BMI2", "AVX512", "AVX512_VNNI", "AMX_INT8"}
    assert found.features == wanted
    assert processor(put(tmp_path / "arm", {"cpuinfo": ARM})).features == {
        *("NEON", "ARM_FMA", "FP16_VA", "DOTPROD", "MATMUL_INT8")
    }
    assert processor(put(tmp_path / "odd", {"cpuinfo": "cpu: MIPS\n"})) == Processor("unknown", None)


def test_the_features_of_macos_are_read() -> None:
    assert cpu_features.parse_sysctl(MAC) == Processor(
        "Apple M2", frozenset({"NEON", "ARM_FMA", "DOTPROD", "MATMUL_INT8"})
    )
    intel = cpu_features.parse_sysctl(INTEL_MAC).features
    assert intel == {"SSE3", "SSSE3", "FMA", "AVX", "F16C", "AVX2", "BMI2"}
    assert cpu_features.parse_sysctl("") == Processor("unknown", None)


def test_where_nothing_tells_the_processor_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no sysctl
    assert processor(tmp_path) == Processor("unknown", None)


def test_what_an_old_kernel_does_not_know_is_known_here() -> None:
    assert cpu_features._X86.keys() >= LATE_FEATURES


# --- Cores


def test_the_limits_of_control_groups_are_read(tmp_path: Path) -> None:
    proc = put(tmp_path, {"self/cgroup": "0::/user/job\n"})
    groups = put(
        tmp_path / "groups",
        {"user/job/cpu.max": "max 100000\n", "user/cpu.max": "150000 100000\n", "cpu.max": "400000 100000\n"},
    )
    assert Cores.here(proc, tmp_path, groups).quota == 1.5
    proc = put(tmp_path / "old", {"self/cgroup": "5:cpu,cpuacct:/job\n4:memory:/job\n"})
    quota = {"cpu/job/cpu.cfs_quota_us": "400000\n", "cpu/job/cpu.cfs_period_us": "100000\n"}
    assert Cores.here(proc, tmp_path, put(tmp_path / "v1", quota)).quota == 4
    free = {"cpu/job/cpu.cfs_quota_us": "-1\n", "cpu/job/cpu.cfs_period_us": "100000\n"}
    assert Cores.here(proc, tmp_path, put(tmp_path / "none", free)).quota is None


@pytest.mark.parametrize(("granted", "used"), [(None, 8), (12.0, 8), (2.5, 2), (1.0, 1), (0.3, 1)])
def test_no_more_threads_than_are_granted(monkeypatch: pytest.MonkeyPatch, granted: float | None, used: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(backends_cores, "quota", lambda: granted)
    assert backends_cores.cores() == used


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system does not tell which cores may be used")
def test_threads_that_share_a_core_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2})
    place = {
        f"cpu{n}/topology/{name}": value
        for n, core in ((0, "0"), (1, "1"), (2, "0"))
        for name, value in (("physical_package_id", "0\n"), ("core_id", core))
    }
    assert Cores.here(tmp_path, put(tmp_path, place), tmp_path).physical == 2
    assert Cores.here(tmp_path, tmp_path / "nothing", tmp_path).physical is None
