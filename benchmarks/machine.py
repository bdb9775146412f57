"""What a figure was measured on: the processor, the versions, and the memory of a process."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from bioner_edge.backends.cores import cores

__all__ = ["described", "processor", "resident"]


def processor() -> str:
    """The CPU's name; /proc/cpuinfo knows it better than Python does."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text("utf-8").splitlines() if cpuinfo.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def described(libraries: Sequence[str]) -> list[str]:
    """Lines that say on what, and with which versions of Python and of `libraries`, something was measured."""
    versions = ", ".join(f"{name} {version(name)}" for name in libraries)
    return [f"{processor()}, {cores()} cores, {platform.platform()}", f"Python {platform.python_version()}, {versions}"]


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
