"""The processor's features, those that llama.cpp was built for, and the cores that this process may use.

Features have the names that llama.cpp prints. They are fixed when it is compiled: a build without one is slower, and a
build with one that the processor lacks crashes.
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from bioner_edge.hardware.threads import cores, quota, system_text

__all__ = ["LATE_FEATURES", "Cores", "Processor", "build_features", "parse_sysctl", "processor"]

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
LATE_FEATURES = frozenset({"AVX_VNNI", "AMX_INT8"})
"""Features that an older kernel leaves out of /proc/cpuinfo, though the processor has them."""
_SYSCTL_S = 10


@dataclass(frozen=True, slots=True)
class Processor:
    """The processor's name and features; `features` is None if unknown."""

    name: str
    features: frozenset[str] | None


def processor(proc: Path = Path("/proc")) -> Processor:
    """The processor of this machine, as reported by Linux or macOS."""
    if text := system_text(proc / "cpuinfo"):
        return _parse_cpuinfo(text)
    try:
        sysctl = subprocess.run(["sysctl", "machdep.cpu", "hw.optional"], capture_output=True, timeout=_SYSCTL_S)
    except (OSError, subprocess.SubprocessError):
        return Processor("unknown", None)
    return parse_sysctl(sysctl.stdout.decode(errors="replace"))


def _parse_cpuinfo(text: str) -> Processor:
    """The first processor of /proc/cpuinfo: all cores of a machine have the same features."""
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


def build_features(system_info: str) -> frozenset[str] | None:
    """The features that the CPU kernels were compiled for, by `llama_print_system_info`; None if it does not say.

    `CPU : AVX = 1 | AVX2 = 1 | OPENMP = 1 | `; sections of other back ends begin with their names, and what is missing
    or 0 is not used. Entries that are not processor features are left out.
    """
    section, found, has_cpu = "CPU", set[str](), False
    for part in system_info.split("|"):
        match = re.fullmatch(r"\s*(?:(\w+) : )?(\w+) = (\d+)\s*", part)
        if not match:
            continue
        section = match[1] or section
        if section == "CPU":
            has_cpu = True
            found |= {match[2]} if int(match[3]) else set()
    return frozenset(found & (_X86.keys() | _ARM.keys())) if has_cpu else None


@dataclass(frozen=True, slots=True)
class Cores:
    """Cores as the system counts them: hyper-threads.

    `used` is a back end's default number of threads, `machine` the number in the machine, `physical` the physical cores
    of this process, `quota` the processor time that a control group grants, in cores, `load` the average load of
    the last minute; None if unknown.
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
    """The number of physical cores that this process may run on; None if unknown."""
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
