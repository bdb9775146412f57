"""How many threads a back end takes where nobody says: the cores that this process may really use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["cores", "quota", "system_text"]

_PROC, _GROUPS = Path("/proc"), Path("/sys/fs/cgroup")


def cores() -> int:
    """The cores that this process may use, at least one.

    Those that it is bound to (all of them where the system does not tell, as on macOS), and no more than the time that
    its control groups grant: a container with a quota of one processor sees all cores of its host, and threads beyond
    the quota wait for each other, forty times slower than one.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    granted = quota()
    return bound if granted is None else max(1, min(bound, int(granted)))


def quota(proc: Path = _PROC, groups: Path = _GROUPS) -> float | None:
    """The processor time that the control groups of this process grant, in cores; None where there is no limit."""
    return min(_granted(proc / "self" / "cgroup", groups), default=None)


def _granted(own: Path, root: Path) -> Iterator[float]:
    """The limits of the control groups of this process, and of those that hold them; either version of the files."""
    for line in system_text(own).splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers and "cpu" not in controllers.split(","):
            continue
        mounted = root / "cpu" if controllers else root
        folder = mounted / path.lstrip("/")
        for group in (folder, *folder.parents):  # in a container the path may be one that only the host sees
            both = system_text(group / "cpu.max") or " ".join(
                system_text(group / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")
            )
            granted, period = [*both.split(), "", ""][:2]
            if granted.isdecimal() and period.isdecimal() and int(period):  # "max" and -1 are none
                yield int(granted) / int(period)
            if group == mounted:
                break


def system_text(path: Path) -> str:
    """A file of the system; empty where there is none, or it may not be read."""
    try:
        return path.read_text("utf-8", errors="replace")
    except OSError:
        return ""
