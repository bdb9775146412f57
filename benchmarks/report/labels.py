"""Place the labels of points without covering a point or another label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bioner_edge.benchmarks.report.styles import PAGE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Box", "free_place", "place"]

Box = tuple[float, float, float, float]
"""Left, bottom, right, top in pixels."""

_STEP = 0.70710678
# Directions to try: right and left first, as names are wide.
_WAYS = (
    (1.0, 0.0),
    (-1.0, 0.0),
    (_STEP, _STEP),
    (-_STEP, _STEP),
    (_STEP, -_STEP),
    (-_STEP, -_STEP),
    (0.0, 1.0),
    (0.0, -1.0),
)
_DISTANCES = (9.0, 17.0, 27.0, 40.0)  # points of 1/72 inch
_POINT = 6.0  # half the size of a point, in the same unit
_BEHIND = {"facecolor": PAGE, "edgecolor": "none", "alpha": 0.75, "pad": 0.6}
_NEAR = 18.0  # half the square around a point within which a label needs no line


def place(
    axes: Axes,
    points: Sequence[tuple[float, float]],
    labels: Sequence[tuple[int, str]],
    colour: str,
    avoid: Sequence[Box] = (),
) -> int:
    """Write labels beside some of the points, each as (index, name), with a line where a label is far away.

    Labels without room are omitted; returns the number written. The layout must be final.
    """
    figure = axes.get_figure(root=True)
    assert figure
    scale = figure.dpi / 72
    inside = axes.get_window_extent()
    within = (inside.x0, inside.y0, inside.x1, inside.y1)
    pixels = [(float(x), float(y)) for x, y in axes.transData.transform(list(points))]
    taken = [*avoid, *(_around(x, y, _POINT * scale) for x, y in pixels)]
    written = 0
    for index, name in labels:
        style: dict[str, Any] = {"textcoords": "offset points", "size": 8, "color": colour, "zorder": 6}
        style["bbox"] = _BEHIND
        measured = axes.annotate(name, points[index], (0, 0), **style)
        size = measured.get_window_extent()
        measured.remove()
        box = free_place(pixels[index], (size.width, size.height), taken, within, scale)
        if box is None:
            continue
        x, y = pixels[index]
        if not _touch(box, _around(x, y, _NEAR * scale)):
            style["arrowprops"] = {"arrowstyle": "-", "color": colour, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 4}
        axes.annotate(name, points[index], ((box[0] - x) / scale, (box[1] - y) / scale), va="bottom", **style)
        taken.append(box)
        written += 1
    return written


def free_place(
    point: tuple[float, float], size: tuple[float, float], taken: Sequence[Box], within: Box, scale: float
) -> Box | None:
    """The nearest free box of this size beside a point; None where there is none."""
    (x, y), (width, height) = point, size
    for distance in _DISTANCES:
        for across, up in _WAYS:
            dx, dy = across * distance * scale, up * distance * scale
            left = x + dx - width * (1 - _side(across)) / 2
            bottom = y + dy - height * (1 - _side(up)) / 2
            box = (left, bottom, left + width, bottom + height)
            inside = box[0] >= within[0] and box[1] >= within[1] and box[2] <= within[2] and box[3] <= within[3]
            if inside and not any(_touch(box, other) for other in taken):
                return box
    return None


def _side(way: float) -> int:
    return (way > 0) - (way < 0)


def _around(x: float, y: float, half: float) -> Box:
    return (x - half, y - half, x + half, y + half)


def _touch(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
