"""How points are distinguished: colors, shapes, names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from bioner_edge.benchmarks.report.entries import Entry
from bioner_edge.errors import printable

__all__ = ["BAR", "INK", "LINE", "MARKERS", "MUTED", "PAGE", "colours", "names", "shorten"]

INK, MUTED, LINE, PAGE, BAR = "#1a1d21", "#5c6570", "#d9dde2", "#fefefe", "#a9cbe4"
"""Text, muted text, lines, background, bars; a page replaces them by the colors of its own scheme."""
MARKERS = {"grounded": "o", "gbnf": "s", "llama-gbnf": "D", "free": "^", "llama-cpp-python": "P", "text-filter": "X"}

# Okabe and Ito's palette, safe for color blindness, without black and yellow, which vanish on dark or light pages.
# In this order adjacent colors also differ in lightness, for printing in gray.
_PALETTE = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
_OTHERS = "#8a9099"
_LONGEST = 34  # characters
_LONGEST_MODEL = 18


def colours(entries: Sequence[Entry]) -> tuple[list[str], dict[str, str]]:
    """A color for each cell, and the meaning of each color: the model or, where there are many, its level.

    Where there are many levels too, the rare ones share a gray.
    """
    ways: tuple[Callable[[Entry], str], ...] = (
        lambda entry: f"{entry.model} {entry.level}".strip(),
        lambda entry: entry.level or "no level",
        lambda entry: entry.model,
    )
    key = next((way for way in ways if len({way(entry) for entry in entries}) <= len(_PALETTE)), ways[1])
    often = Counter(key(entry) for entry in entries)
    shown = {name for name, _ in often.most_common(len(_PALETTE))}
    kinds = [kind for kind in often if kind in shown]  # in the order of the cells
    meaning = {printable(kind): colour for kind, colour in zip(kinds, _PALETTE, strict=False)}
    if len(often) > len(kinds):
        meaning["others"] = _OTHERS
    return [meaning.get(printable(key(entry)), _OTHERS) for entry in entries], meaning


def names(entries: Sequence[Entry], *, beside_shapes: bool = False) -> list[str]:
    """The name of each cell: only the parts in which cells differ.

    The constraint, which shapes show too, is omitted beside them where a name is long.
    """
    keys = ("run", "model", "level", "format", "constraint")
    parts = [
        (e.run, shorten(e.model, _LONGEST_MODEL), e.level, e.cell.key.format, e.cell.key.constraint) for e in entries
    ]
    differ = [n for n in range(len(keys)) if len({part[n] for part in parts}) > 1]
    spare = beside_shapes and len(differ) > 2 and keys[differ[-1]] == "constraint"
    chosen = (differ[:-1] if spare else differ) or [1, 2]
    found = [printable(" ".join(part[n] for n in chosen if part[n])) for part in parts]
    return [shorten(name) for name in found] if beside_shapes else found


def shorten(name: str, longest: int = _LONGEST) -> str:
    """A name shortened to fit a plot; its end, which contains the level, is kept."""
    half = longest // 2
    return name if len(name) <= longest else f"{name[: longest - half]}…{name[1 - half :]}"
