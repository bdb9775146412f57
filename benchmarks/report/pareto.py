"""Pareto front: the systems for which no other is at least as good in both figures and better in one."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["front"]


def front(points: Sequence[tuple[float, float]], *, less_is_better: bool = False) -> list[int]:
    """The indices of (figure, score) points on the Pareto front, best figure first. A higher score is better, and a
    higher figure or, with `less_is_better` (memory), a lower one. Of equal points all or none are included."""
    sign = 1.0 if less_is_better else -1.0
    ranked = sorted(range(len(points)), key=lambda i: (sign * points[i][0], -points[i][1], i))
    found: list[int] = []
    for i in ranked:
        if not found or points[i][1] > points[found[-1]][1] or points[i] == points[found[-1]]:
            found.append(i)
    return found
