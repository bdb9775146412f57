"""A comparison as tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from bioner_edge.benchmarks.comparing.compare import LEVEL, Compared, Comparison
from bioner_edge.benchmarks.comparing.correspondence import Place, Refused
from bioner_edge.errors import printable

__all__ = ["tables"]


def tables(comparison: Comparison) -> list[Table]:
    """The tables of F1, of size and speed, and of refused cells; empty ones are omitted."""
    pairs = comparison.pairs
    names = _Names([place for pair in pairs for place in (pair.place, pair.reference)])
    measured = any(figure is not None for pair in pairs for figure in pair.ratios.values())
    drawn = [_accuracy(comparison, names)] if pairs else []
    drawn += [_resources(pairs, names)] if measured else []
    return [*drawn, _refused(comparison.refused)] if comparison.refused else drawn


class _Names:
    """Cell names in a table: the parts in which cells differ; the parts that all share are `common`."""

    def __init__(self, places: Sequence[Place]) -> None:
        folders = {place.run.folder: place.run.folder.resolve().name for place in places}
        if len(set(folders.values())) < len(folders):
            folders = {folder: str(folder) for folder in folders}
        self._folders = folders if len(folders) > 1 else dict.fromkeys(folders, "")
        parts_of = [self._parts(place) for place in places]
        self._varying = (
            [n for n in range(len(parts_of[0])) if len({parts[n] for parts in parts_of}) > 1] if parts_of else []
        )
        self.common = (
            " · ".join(part for n, part in enumerate(parts_of[0]) if part and n not in self._varying)
            if parts_of
            else ""
        )

    def _parts(self, place: Place) -> tuple[str, ...]:
        return (self._folders[place.run.folder], *place.cell.key.to_json().values())

    def __call__(self, pair: Compared) -> Text:
        """A cell, and below it the parts in which its reference differs."""
        mine, its = self._parts(pair.place), self._parts(pair.reference)
        cell = " · ".join(mine[n] for n in self._varying if mine[n])
        reference = " · ".join(b for a, b in zip(mine, its, strict=True) if b and a != b)
        return Text.assemble(printable(cell), (f"\nvs {printable(reference)}", "dim"))


def _new_table(title: str, *headings: str) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, title_justify="left", caption_justify="left"
    )
    table.title = Text(printable(title), "bold")
    table.add_column("cell", overflow="fold", min_width=18)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _accuracy(comparison: Comparison, names: _Names) -> Table:
    title = f"{comparison.mode.capitalize()} F1: {names.common}"
    table = _new_table(title, "F1", "change", "95 % interval", "p (Holm)", "differ")
    for pair in comparison.pairs:
        d = pair.difference
        style = "bold" if pair.significant else ""
        table.add_row(
            names(pair),
            f"{d.scores[1]:.4f} → {d.scores[0]:.4f}",
            Text(f"{d.difference:+.4f}", style),
            f"{d.low:+.4f} {d.high:+.4f}",
            Text(_p(pair.p_holm) + (" *" if pair.significant else "  "), style),
            f"{d.differing}/{d.documents}",
        )
    notes = [
        f"* p is below {LEVEL:g}, adjusted for {len(comparison.pairs)} comparisons. Differ: documents.",
        *comparison.notices,
    ]
    table.caption = Text("\n".join(map(printable, notes)))
    return table


def _p(p: float) -> str:
    return f"{p:.4f}" if p >= 0.0001 else "<.0001"


def _resources(pairs: Sequence[Compared], names: _Names) -> Table:
    table = _new_table(
        "Size and speed, as a multiple of the reference's", "model", "memory", "tokens/s", "documents/s", "threads"
    )
    for pair in pairs:
        figures = ("–" if figure is None else f"{figure:.3g}×" for figure in pair.ratios.values())
        table.add_row(names(pair), *figures, str(pair.threads or "–"))
    return table


def _refused(refused: Sequence[Refused]) -> Table:
    table = _new_table("Not compared")
    table.add_column("reason", overflow="fold")
    for one in refused:
        table.add_row(Text(printable(f"{one.place.run.folder}: {one.place.cell.key}")), Text(printable(one.reason)))
    return table
