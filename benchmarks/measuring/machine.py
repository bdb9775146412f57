"""The machine of a measurement: processor, cores, library versions; and the memory of a process."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bioner_edge.errors import UsageError
from bioner_edge.hardware.threads import cores

__all__ = [
    "LIBRARIES",
    "choose_cores",
    "describe",
    "facts",
    "memory_bytes",
    "pin",
    "processor",
    "resident",
    "versions",
]

LIBRARIES = ("bioner-edge", "llama-cpp-python", "numpy", "onnxruntime", "tokenizers")
"""Libraries whose version can affect a figure."""
_CPUINFO = Path("/proc/cpuinfo")
_CPUS = Path("/sys/devices/system/cpu")
_VECTORS = re.compile(
    r"avx|amx|fma|f16c|sse4|ssse3|asimd|neon|sve|sme\d*$|i8mm|bf16"
)  # instruction sets that kernels use


def _cpuinfo(*names: str) -> Iterator[str]:
    """The values of /proc/cpuinfo rows with one of these names."""
    lines = _CPUINFO.read_text("utf-8").splitlines() if _CPUINFO.exists() else []
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() in names:
            yield value.strip()


def processor() -> str:
    """The CPU's name, preferably from /proc/cpuinfo, which is more specific than Python."""
    return next(_cpuinfo("model name"), platform.processor() or platform.machine())


def memory_bytes() -> int | None:
    """The machine's memory; None where the system does not report it."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def facts() -> dict[str, Any]:
    """The machine as recorded in a run. `flags` are the vector instructions that the processor reports, empty where
    unknown; `cores` those available to this process."""
    flags = {flag for flag in next(_cpuinfo("flags", "Features"), "").split() if _VECTORS.match(flag)}
    return {
        "processor": processor(),
        "cores": cores(),
        "memory_bytes": memory_bytes(),
        "platform": platform.platform(),
        "flags": sorted(flags),
    }


def versions(libraries: Sequence[str] = LIBRARIES) -> dict[str, str]:
    """Versions of Python and of the installed libraries."""
    found = {"python": platform.python_version()}
    for name in libraries:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def describe(libraries: Sequence[str]) -> list[str]:
    """Lines that describe the machine, with versions of Python and `libraries`."""
    listed = ", ".join(f"{name} {version(name)}" for name in libraries)
    return [f"{processor()}, {cores()} cores, {platform.platform()}", f"Python {platform.python_version()}, {listed}"]


def resident(pid: int | str) -> dict[str, int]:
    """Resident bytes of a process by kind (RssAnon, RssFile and others); empty for one that has just ended.

    Linux only. The kernel can reclaim file-backed pages at any time.
    """
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    rows = (line.split() for line in lines if line.startswith(("RssAnon", "RssFile", "VmHWM")))
    return {name.rstrip(":"): int(kibibytes) * 1024 for name, kibibytes, _ in rows}


def choose_cores(threads: int, root: Path = _CPUS) -> list[int]:
    """The first `threads` cores available to this process; hyperthread siblings only after all physical cores.

    Raises UsageError where fewer are available.
    """
    usable = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(cores()))
    if not 1 <= threads <= len(usable):
        raise UsageError(f"{threads} threads on the {len(usable)} cores that this process may use; take 1 to {cores()}")
    seen: dict[str, int] = {}
    rank = []
    for core in usable:
        siblings = _siblings(core, root)
        rank.append((seen.get(siblings, 0), core))
        seen[siblings] = seen.get(siblings, 0) + 1
    return sorted(core for _, core in sorted(rank)[:threads])


def _siblings(core: int, root: Path) -> str:
    """An id of a physical core, shared by its hyperthreads; each is its own where the system does not report it."""
    try:
        return (root / f"cpu{core}" / "topology" / "thread_siblings_list").read_text().strip()
    except OSError:
        return f"only {core}"


@contextmanager
def pin(threads: int) -> Iterator[list[int]]:
    """Bind this thread, and those that it starts, to `threads` cores, which it yields.

    Where the system cannot bind (macOS) they run on any. Raises UsageError where there are too few.
    """
    chosen = choose_cores(threads)
    if not hasattr(os, "sched_setaffinity"):
        yield chosen
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, chosen)
    try:
        yield chosen
    finally:
        os.sched_setaffinity(0, before)
