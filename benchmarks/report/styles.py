"""How points are told apart: by colour and by shape, and by what they are called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from bioner_edge.benchmarks.report.entries import Entry
from bioner_edge.errors import printable

__all__ = ["BAR", "INK", "LINE", "MARKERS", "MUTED", "PAGE", "colours", "names", "shorten"]

INK, MUTED, LINE, PAGE, BAR = "#1a1d21", "#5c6570", "#d9dde2", "#fefefe", "#a9cbe4"
"""Text, lesser text, lines, background, bars; a page replaces them by its own, which change with its colour scheme."""
MARKERS = {"grounded": "o", "gbnf": "s", "llama-gbnf": "D", "free": "^", "llama-cpp-python": "P", "text-filter": "X"}

# Okabe and Ito, who chose them for all kinds of colour vision, without black and yellow, which vanish on dark or light.
# In this order neighbours differ in lightness too, for those who print in grey.
_PALETTE = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
_OTHERS = "#8a9099"
_LONGEST = 34  # characters
_LONGEST_MODEL = 18


def colours(entries: Sequence[Entry]) -> tuple[list[str], dict[str, str]]:
    """A colour for each cell, and what each colour says: the model, or where those are many, its level.

    Where the levels are many too, the rare ones share a grey.
    """
    ways: tuple[Callable[[Entry], str], ...] = (
        lambda entry: f"{entry.model} {entry.level}".strip(),
        lambda entry: entry.level or "no level",
        lambda entry: entry.model,
    )
    told = next((way for way in ways if len({way(entry) for entry in entries}) <= len(_PALETTE)), ways[1])
    often = Counter(told(entry) for entry in entries)
    shown = {name for name, _ in often.most_common(len(_PALETTE))}
    kinds = [kind for kind in often if kind in shown]  # in the order of the cells
    meaning = {printable(kind): colour for kind, colour in zip(kinds, _PALETTE, strict=False)}
    if len(often) > len(kinds):
        meaning["others"] = _OTHERS
    return [meaning.get(printable(told(entry)), _OTHERS) for entry in entries], meaning


def names(entries: Sequence[Entry], *, beside_shapes: bool = False) -> list[str]:
    """What to call each cell: that in which cells differ, and nothing that all share.

    How it was decoded, which shapes tell too, is left out beside them where a name is long enough without.
    """
    keys = ("run", "model", "level", "format", "constraint")
    parts = [
        (e.run, shorten(e.model, _LONGEST_MODEL), e.level, e.cell.key.format, e.cell.key.constraint) for e in entries
    ]
    differ = [n for n in range(len(keys)) if len({part[n] for part in parts}) > 1]
    spare = beside_shapes and len(differ) > 2 and keys[differ[-1]] == "constraint"
    chosen = (differ[:-1] if spare else differ) or [1, 2]
    told = [printable(" ".join(part[n] for n in chosen if part[n])) for part in parts]
    return [shorten(name) for name in told] if beside_shapes else told


def shorten(name: str, longest: int = _LONGEST) -> str:
    """A name that a picture has room for; its end, where levels stand, stays."""
    half = longest // 2
    return name if len(name) <= longest else f"{name[: longest - half]}…{name[1 - half :]}"
