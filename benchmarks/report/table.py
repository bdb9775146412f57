"""Sheets on a terminal: readable at 80 columns, at their best from 100 on."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from bioner_edge.benchmarks.report.figures import MISSING, Column, Sheet, Value

__all__ = ["to_table"]

_STYLES = {"failed": "red", "front": "green", "muted": "dim"}
_LINES = (("run", "corpus"), ("model", "level"), ("format", "constraint"))
_NARROWEST = 14  # characters of the column that says which cell it is


def to_table(sheet: Sheet) -> Table:
    """A sheet. What tells cells apart stands in one column; what is the same in all rows is said once, below."""
    told = [column for column in sheet.columns if column.identifies]
    same = {column.heading: only for column in told[1:] if (only := _only(sheet, column))}
    told = [column for column in told if column.heading not in same]
    shown = [c for c in sheet.columns if not (c.identifies or c.lesser or _empty(sheet, c))]
    table = Table(
        box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, title_justify="left", caption_justify="left"
    )
    table.title = Text(sheet.title, "bold not italic")
    constants = [", ".join(f"{heading} {only}" for heading, only in same.items())] if same else []
    table.caption = Text("\n".join([*constants, *sheet.notes, ""]), "dim not italic")
    table.add_column(_stacked({c.key: c.heading for c in told}, ""), min_width=_NARROWEST, overflow="fold")
    for column in shown:
        heading, figures = _heading(sheet, column), column.numeric
        table.add_column(heading, justify="right" if figures else "left", no_wrap=figures, overflow="fold")
    for name, row in zip(_names(sheet, told), sheet.rows, strict=True):
        table.add_row(name, *(_cell(row.get(column.key, MISSING)) for column in shown))
    return table


def _names(sheet: Sheet, told: Sequence[Column]) -> Iterator[Text]:
    """Which cell each row is about; of rows about one cell the first alone says it."""
    before: dict[str, str] = {}
    for row in sheet.rows:
        values = {column.key: row.get(column.key, MISSING) for column in told}
        names = {key: " ".join(filter(None, (value.text, value.range))) for key, value in values.items()}
        yield Text() if names == before else _stacked(names, "dim")
        before = names


def _stacked(names: Mapping[str, str], lesser: str) -> Text:
    """What tells cells apart, in lines, of which that of the model stands out."""
    told = Text()
    for keys in _LINES:
        if parts := [names[key] for key in keys if key in names]:
            told.append("\n" if told else "").append(" ".join(parts), "" if "model" in keys else lesser)
    return told


def _only(sheet: Sheet, column: Column) -> str | None:
    """What all rows of several say in a column."""
    told = {row.get(column.key, MISSING) for row in sheet.rows}
    only = next(iter(told), MISSING)
    return only.text if len(told) == 1 and len(sheet.rows) > 1 and not only.range else None


def _empty(sheet: Sheet, column: Column) -> bool:
    return bool(sheet.rows) and all(row.get(column.key, MISSING) == MISSING for row in sheet.rows)


def _heading(sheet: Sheet, column: Column) -> Text:
    """A heading no wider than its column must be."""
    values = [row.get(column.key, MISSING) for row in sheet.rows]
    widest = max((len(line) for value in values for line in (value.text, value.range)), default=0)
    width = max(widest if column.numeric else 0, *map(len, column.heading.split()))
    return Text("\n".join(textwrap.wrap(column.heading, width)))


def _cell(value: Value) -> Text:
    told = Text(value.text, _STYLES.get(value.tone, ""))
    return told.append(f"\n{value.range}", "dim") if value.range else told
