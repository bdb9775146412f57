"""What a figure was measured on: the processor, its cores, the versions, and the memory of a process."""

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
    "chosen_cores",
    "describe",
    "facts",
    "memory_bytes",
    "pin",
    "processor",
    "resident",
    "versions",
]

LIBRARIES = ("bioner-edge", "llama-cpp-python", "numpy", "onnxruntime", "tokenizers")
"""What can change a figure of a run."""
_CPUINFO = Path("/proc/cpuinfo")
_CPUS = Path("/sys/devices/system/cpu")
_VECTORS = re.compile(r"avx|amx|fma|f16c|sse4|ssse3|asimd|neon|sve|sme\d*$|i8mm|bf16")  # what kernels ask for


def _cpuinfo(*names: str) -> Iterator[str]:
    """The values of the rows of /proc/cpuinfo that have one of these names."""
    lines = _CPUINFO.read_text("utf-8").splitlines() if _CPUINFO.exists() else []
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() in names:
            yield value.strip()


def processor() -> str:
    """The CPU's name; /proc/cpuinfo knows it better than Python does."""
    return next(_cpuinfo("model name"), platform.processor() or platform.machine())


def memory_bytes() -> int | None:
    """The machine's memory; None where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def facts() -> dict[str, Any]:
    """The machine as the line of a run has it. `flags` are the vector instructions that the processor says it has,
    none where it does not say; `cores` those that this process may use."""
    flags = {flag for flag in next(_cpuinfo("flags", "Features"), "").split() if _VECTORS.match(flag)}
    return {
        "processor": processor(),
        "cores": cores(),
        "memory_bytes": memory_bytes(),
        "platform": platform.platform(),
        "flags": sorted(flags),
    }


def versions(libraries: Sequence[str] = LIBRARIES) -> dict[str, str]:
    """Versions of Python and of the libraries that are installed."""
    found = {"python": platform.python_version()}
    for name in libraries:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def describe(libraries: Sequence[str]) -> list[str]:
    """Lines that say on what, and with which versions of Python and of `libraries`, something was measured."""
    told = ", ".join(f"{name} {version(name)}" for name in libraries)
    return [f"{processor()}, {cores()} cores, {platform.platform()}", f"Python {platform.python_version()}, {told}"]


def resident(pid: int | str) -> dict[str, int]:
    """Bytes by kind (RssAnon, RssFile and others) that a process holds now; none for one that has just ended.

    Linux only. What is mapped from files the kernel can take back at any time.
    """
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    rows = (line.split() for line in lines if line.startswith(("RssAnon", "RssFile", "VmHWM")))
    return {name.rstrip(":"): int(kibibytes) * 1024 for name, kibibytes, _ in rows}


def chosen_cores(threads: int, root: Path = _CPUS) -> list[int]:
    """The first `threads` of the cores that this process may use, a second thread of a core only once all have one.

    Raises UsageError where it may use fewer.
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
    """What the threads of one physical core have in common; each is its own core where the system does not tell."""
    try:
        return (root / f"cpu{core}" / "topology" / "thread_siblings_list").read_text().strip()
    except OSError:
        return f"only {core}"


@contextmanager
def pin(threads: int) -> Iterator[list[int]]:
    """While it lasts this thread, and those that it starts, run on `threads` cores, which it gives.

    Where the system cannot bind (macOS) they run on any. Raises UsageError where there are not so many.
    """
    chosen = chosen_cores(threads)
    if not hasattr(os, "sched_setaffinity"):
        yield chosen
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, chosen)
    try:
        yield chosen
    finally:
        os.sched_setaffinity(0, before)
