"""The default number of threads of a back end: the cores that this process can really use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["cores", "quota", "system_text"]

_PROC, _GROUPS = Path("/proc"), Path("/sys/fs/cgroup")


def cores() -> int:
    """The number of cores that this process can use, at least one.

    Those of its CPU affinity (all cores if unknown, as on macOS), limited by the quota of its control groups: a
    container with a quota of one processor sees all cores of its host, and threads beyond the quota wait for each
    other, forty times slower than a single one.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    granted = quota()
    return bound if granted is None else max(1, min(bound, int(granted)))


def quota(proc: Path = _PROC, groups: Path = _GROUPS) -> float | None:
    """The processor time that the control groups of this process grant, in cores; None if unlimited."""
    return min(_quotas(proc / "self" / "cgroup", groups), default=None)


def _quotas(own: Path, root: Path) -> Iterator[float]:
    """The quotas of the control groups of this process and their parents, of either version, in cores."""
    for line in system_text(own).splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers and "cpu" not in controllers.split(","):
            continue
        mounted = root / "cpu" if controllers else root
        folder = mounted / path.lstrip("/")
        for group in (folder, *folder.parents):  # in a container the path may exist only on the host
            both = system_text(group / "cpu.max") or " ".join(
                system_text(group / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")
            )
            granted, period = [*both.split(), "", ""][:2]
            if granted.isdecimal() and period.isdecimal() and int(period):  # "max" and -1 mean no limit
                yield int(granted) / int(period)
            if group == mounted:
                break


def system_text(path: Path) -> str:
    """The text of a system file; empty if it is missing or may not be read."""
    try:
        return path.read_text("utf-8", errors="replace")
    except OSError:
        return ""
