"""What the processor can do, what of it llama.cpp was built for, and how many of its cores this process may use.

Features go by the names that llama.cpp prints. It decides on them when it is compiled: a build without one is slower,
a build with one that the processor lacks ends its process.
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from bioner_edge.hardware.threads import cores, quota, system_text

__all__ = ["TOLD_LATE", "Cores", "Processor", "of_build", "parse_sysctl", "processor"]

# name in llama.cpp: (flag in /proc/cpuinfo, key of sysctl on macOS)
_X86 = {
    "SSE3": ("pni", "SSE3"),
    "SSSE3": ("ssse3", "SSSE3"),
    "AVX": ("avx", "AVX1.0"),
    "AVX2": ("avx2", "AVX2"),
    "FMA": ("fma", "FMA"),
    "F16C": ("f16c", "F16C"),
    "BMI2": ("bmi2", "BMI2"),
    "AVX_VNNI": ("avx_vnni", "AVX_VNNI"),
    "AVX512": ("avx512f", "AVX512F"),
    "AVX512_VBMI": ("avx512vbmi", "AVX512VBMI"),
    "AVX512_VNNI": ("avx512_vnni", "AVX512VNNI"),
    "AVX512_BF16": ("avx512_bf16", "AVX512_BF16"),
    "AMX_INT8": ("amx_int8", "AMX_INT8"),
}
_ARM = {
    "NEON": ("asimd", "AdvSIMD"),
    "ARM_FMA": ("asimd", "AdvSIMD"),
    "FP16_VA": ("asimdhp", "arm.FEAT_FP16"),
    "DOTPROD": ("asimddp", "arm.FEAT_DotProd"),
    "MATMUL_INT8": ("i8mm", "arm.FEAT_I8MM"),
    "SVE": ("sve", "arm.FEAT_SVE"),
    "SME": ("sme", "arm.FEAT_SME"),
}
TOLD_LATE = frozenset({"AVX_VNNI", "AMX_INT8"})
"""Features that a kernel from before them leaves out of /proc/cpuinfo, though the processor has them."""
_SYSCTL_S = 10


@dataclass(frozen=True, slots=True)
class Processor:
    """`features` is None where the system does not tell them."""

    name: str
    features: frozenset[str] | None


def processor(proc: Path = Path("/proc")) -> Processor:
    """The processor of this machine, as Linux or macOS tells it."""
    if text := system_text(proc / "cpuinfo"):
        return _of_cpuinfo(text)
    try:
        told = subprocess.run(["sysctl", "machdep.cpu", "hw.optional"], capture_output=True, timeout=_SYSCTL_S)
    except (OSError, subprocess.SubprocessError):
        return Processor("unknown", None)
    return parse_sysctl(told.stdout.decode(errors="replace"))


def _of_cpuinfo(text: str) -> Processor:
    """All cores of a machine share their features: the first one's are taken."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            fields.setdefault(key.strip(), value.strip())
    name = fields.get("model name") or fields.get("Model") or "unknown"
    for key, table in (("flags", _X86), ("Features", _ARM)):
        if key in fields:
            flags = set(fields[key].split())
            return Processor(name, frozenset(feature for feature, (flag, _) in table.items() if flag in flags))
    return Processor(name, None)


def parse_sysctl(text: str) -> Processor:
    fields = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
    name = fields.get("machdep.cpu.brand_string", "unknown")
    lists = [fields.get(f"machdep.cpu.{key}", "") for key in ("features", "leaf7_features")]
    listed = set(" ".join(lists).split())  # Intel
    single = {key.removeprefix("hw.optional.") for key, value in fields.items() if value.strip() == "1"}
    found = {feature for feature, (_, key) in _X86.items() if key in listed}
    found |= {feature for feature, (_, key) in _ARM.items() if key in single}
    return Processor(name, frozenset(found) if found else None)


def of_build(system_info: str) -> frozenset[str] | None:
    """The features that `llama_print_system_info` says its CPU kernels were compiled for; None where it says nothing.

    `CPU : AVX = 1 | AVX2 = 1 | OPENMP = 1 | `; parts of other back ends begin with their names, and what is missing or
    0 is not used. What is no feature of a processor is left out.
    """
    section, found, told = "CPU", set[str](), False
    for part in system_info.split("|"):
        match = re.fullmatch(r"\s*(?:(\w+) : )?(\w+) = (\d+)\s*", part)
        if not match:
            continue
        section = match[1] or section
        if section == "CPU":
            told = True
            found |= {match[2]} if int(match[3]) else set()
    return frozenset(found & (_X86.keys() | _ARM.keys())) if told else None


@dataclass(frozen=True, slots=True)
class Cores:
    """Cores as the system counts them, hyper-threads each.

    `used` is how many threads a back end takes by default, `machine` how many there are, `physical` the cores that
    those used share, `quota` the processor time that a control group grants, in cores, `load` how many the programs of
    the last minute kept busy; None where nothing tells.
    """

    used: int
    machine: int
    physical: int | None
    quota: float | None
    load: float | None

    @classmethod
    def here(
        cls,
        proc: Path = Path("/proc"),
        devices: Path = Path("/sys/devices/system/cpu"),
        groups: Path = Path("/sys/fs/cgroup"),
    ) -> Cores:
        load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None  # Windows
        return cls(cores(), os.cpu_count() or cores(), _physical(devices), quota(proc, groups), load)


def _physical(devices: Path) -> int | None:
    """The cores that the threads of this process share."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    found = set()
    for number in os.sched_getaffinity(0):
        folder = devices / f"cpu{number}" / "topology"
        place = (system_text(folder / "physical_package_id").strip(), system_text(folder / "core_id").strip())
        if not all(place):
            return None
        found.add(place)
    return len(found)
