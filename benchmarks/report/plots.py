"""Plots: strict F1 against each cost, with the Pareto front, and the formats with their ceilings.

Drawn with matplotlib, as PNG for the folder and as SVG for the page, which sets the colors. The same cells give the
same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bioner_edge.benchmarks.report.bars import formats
from bioner_edge.benchmarks.report.canvas import Plot, save, sheet
from bioner_edge.benchmarks.report.entries import AXES, Axis, Entry, Group
from bioner_edge.benchmarks.report.labels import place
from bioner_edge.benchmarks.report.styles import INK, MARKERS, MUTED, PAGE, colours, names, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

__all__ = ["draw"]

_ROW = 96  # characters in a row of the legend
_CROWD = 14  # above this number of cells only those on the front are labeled


def draw(groups: Sequence[Group]) -> list[Plot]:
    """The plots of each group with measurements. Raises ImportError without matplotlib."""
    plots = []
    for group in groups:
        plots += [_scatter(group, axis) for axis in AXES if group.points(axis)]
        plots.append(formats(group))
    return plots


def _scatter(group: Group, axis: Axis) -> Plot:
    title = f"Strict F1 and {axis.heading}: {group.title}"
    entries = [entry for entry, _ in group.points(axis)]
    with sheet(f"f1-{axis.slug}{group.slug}", title, 7.4, 5.0) as (figure, axes):
        _points(axes, group, axis)
        _scale(axes, [figure.median / axis.scale for _, figure in group.points(axis)])
        axes.set_xlabel(axis.heading)
        axes.set_ylabel("strict F1")
        x, side, label = (0.015, "left", "↖ better") if axis.less_is_better else (0.985, "right", "better ↗")
        corner = axes.text(x, 0.975, label, transform=axes.transAxes, ha=side, va="top", color=MUTED, fontsize=8)
        _legend(figure, entries)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # freeze the layout: labels are placed in its coordinates
        _name(axes, group, axis, corner)
        unbeaten = set(map(id, group.front(axis)))
        front = [name for entry, name in zip(entries, names(entries), strict=True) if id(entry) in unbeaten]
        shown = f"{title}. Cells: {len(entries)}; unbeaten: {', '.join(front)}"
        return save(figure, f"f1-{axis.slug}{group.slug}", shown)


def _points(axes: Axes, group: Group, axis: Axis) -> None:
    """The cells with their intervals, and a step line through the Pareto front."""
    points = group.points(axis)
    tints, _ = colours([entry for entry, _ in points])
    at = {id(entry): (figure.median / axis.scale, entry.interval[0]) for entry, figure in points}
    xs, ys = zip(*(at[id(entry)] for entry in group.front(axis)), strict=True)
    axes.plot(xs, ys, color=MUTED, lw=1, ls=(0, (4, 3)), drawstyle="steps-post", zorder=1)
    unbeaten = set(map(id, group.front(axis)))
    for (entry, figure), tint in zip(points, tints, strict=True):
        (x, y), (_, low, high) = at[id(entry)], entry.interval
        axes.vlines(x, low, high, color=tint, lw=1, alpha=0.45, zorder=2)
        axes.hlines(y, figure.low / axis.scale, figure.high / axis.scale, color=tint, lw=1, alpha=0.45, zorder=2)
        on_front = id(entry) in unbeaten
        marker = MARKERS.get(entry.cell.key.constraint, "v")
        edge, size = (INK, 68.0) if on_front else (PAGE, 46.0)
        size *= 1.5 if marker in "PX" else 1.0  # thin shapes
        above = 4 + on_front
        axes.scatter([x], [y], s=size, marker=marker, color=tint, edgecolors=edge, linewidths=1.2, zorder=above)


def _name(axes: Axes, group: Group, axis: Axis, corner: Text) -> None:
    """Label the points, those of the front first; others only where there are few."""
    taken = corner.get_window_extent()
    points = group.points(axis)
    labels = names([entry for entry, _ in points], beside_shapes=True)
    unbeaten = set(map(id, group.front(axis)))
    order = sorted(range(len(points)), key=lambda i: (id(points[i][0]) not in unbeaten, i))
    chosen = [i for i in order if id(points[i][0]) in unbeaten or len(points) <= _CROWD]
    at = [(figure.median / axis.scale, entry.interval[0]) for entry, figure in points]
    place(axes, at, [(i, labels[i]) for i in chosen], INK, [(taken.x0, taken.y0, taken.x1, taken.y1)])


def _scale(axes: Axes, values: Sequence[float]) -> None:
    """A logarithmic axis where the largest value exceeds ten times the smallest; numbers in full."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    if min(values) > 0 and max(values) > 10 * min(values):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axes.margins(x=0.12, y=0.12)


def _legend(figure: Figure, entries: Sequence[Entry]) -> None:
    """Explain colors and shapes below the plot; nothing where there is only one of each."""
    from matplotlib.lines import Line2D

    _, meaning = colours(entries)
    constraints = list(dict.fromkeys(entry.cell.key.constraint for entry in entries))
    keys = [(colour, "o", name) for name, colour in meaning.items()] if len(meaning) > 1 else []
    keys += [(MUTED, MARKERS.get(name, "v"), name) for name in constraints] if len(constraints) > 1 else []
    handles = [
        Line2D([], [], ls="", marker=marker, color=colour, markersize=6, label=shorten(name))
        for colour, marker, name in keys
    ]
    if handles:
        longest = max(len(shorten(name)) for _, _, name in keys)
        figure.legend(handles=handles, loc="outside lower left", ncols=_ROW // (longest + 6), labelcolor=INK)
