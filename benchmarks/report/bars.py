"""The plot of formats: the F1 reached in each, and its ceiling."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bioner_edge.benchmarks.report.canvas import Plot, save, sheet
from bioner_edge.benchmarks.report.entries import Entry, Group
from bioner_edge.benchmarks.report.styles import BAR, INK, MUTED, shorten
from bioner_edge.errors import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["best", "formats"]


def best(group: Group) -> list[Entry]:
    """The cell with the highest F1 for each format and constraint; those of a format together."""
    found: dict[tuple[str, str], Entry] = {}
    for entry in group.entries:
        key = (entry.cell.key.format, entry.cell.key.constraint)
        if key not in found or entry.interval[0] > found[key].interval[0]:
            found[key] = entry
    order = list(dict.fromkeys(form for form, _ in found))
    return [found[key] for key in sorted(found, key=lambda key: order.index(key[0]))]


def formats(group: Group) -> Plot:
    """A bar for each format and constraint, with the interval, the model, and the format's ceiling."""
    bars = best(group)
    title = f"Strict F1 by format and constraint: {group.title}"
    with sheet(f"formats{group.slug}", title, 7.4, 1.2 + 0.27 * len(bars)) as (figure, axes):
        several = len({entry.cell.key.model for entry in group.entries}) > 1
        for row, entry in enumerate(bars):
            _bar(axes, row, entry, several)
        axes.set_yticks(range(len(bars)), [_cell_name(entry) for entry in bars])
        axes.set_ylim(len(bars) - 0.4, -0.6)
        axes.set_xlim(0, 1)
        axes.set_xlabel("strict F1 with its interval" + ("; of the best model" if several else "") + "; | the ceiling")
        axes.grid(visible=False, axis="y")
        values = ", ".join(f"{_cell_name(entry)} {entry.interval[0]:.3f}" for entry in bars)
        return save(figure, f"formats{group.slug}", f"{title}. {values}")


def _bar(axes: Axes, row: int, entry: Entry, several: bool) -> None:
    f1, low, high = entry.interval
    axes.barh(row, f1, height=0.72, color=BAR, zorder=2)
    axes.hlines(row, low, high, color=INK, lw=1.2, zorder=4)
    model = f"  {shorten(printable(f'{entry.model} {entry.level}'.strip()))}" if several else ""
    axes.text(0.008, row, f"{f1:.3f}{model}", va="center", fontsize=7.5, color=INK, zorder=5)
    ceiling = (entry.cell.accuracy or {}).get("ceiling")
    if ceiling:
        axes.vlines(ceiling["f1"], row - 0.45, row + 0.45, color=MUTED, lw=2, zorder=3)


def _cell_name(entry: Entry) -> str:
    key = entry.cell.key
    return shorten(printable(f"{key.format or '–'} {key.constraint}"))
