"""Which systems nothing beats: no other is at least as good in both figures and better in one."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["front"]


def front(points: Sequence[tuple[float, float]], *, less_is_better: bool = False) -> list[int]:
    """The indices of (figure, score) points that nothing beats, best figure first. The more score the better; of the
    figure the more, or with `less_is_better` (memory) the less. Equal points stand or fall together."""
    sign = 1.0 if less_is_better else -1.0
    ranked = sorted(range(len(points)), key=lambda i: (sign * points[i][0], -points[i][1], i))
    found: list[int] = []
    for i in ranked:
        if not found or points[i][1] > points[found[-1]][1] or points[i] == points[found[-1]]:
            found.append(i)
    return found
