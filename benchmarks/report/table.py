"""Render sheets on a terminal: readable at 80 columns, best from 100 on."""

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
_NARROWEST = 14  # characters of the column that identifies the cell


def to_table(sheet: Sheet) -> Table:
    """A sheet as a table. Identifying columns are joined in one; values equal in all rows are listed once, below."""
    identifying = [column for column in sheet.columns if column.identifies]
    same = {column.heading: only for column in identifying[1:] if (only := _only(sheet, column))}
    identifying = [column for column in identifying if column.heading not in same]
    shown = [c for c in sheet.columns if not (c.identifies or c.lesser or _empty(sheet, c))]
    table = Table(
        box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, title_justify="left", caption_justify="left"
    )
    table.title = Text(sheet.title, "bold not italic")
    constants = [", ".join(f"{heading} {only}" for heading, only in same.items())] if same else []
    table.caption = Text("\n".join([*constants, *sheet.notes, ""]), "dim not italic")
    table.add_column(_stack({c.key: c.heading for c in identifying}, ""), min_width=_NARROWEST, overflow="fold")
    for column in shown:
        heading, figures = _heading(sheet, column), column.numeric
        table.add_column(heading, justify="right" if figures else "left", no_wrap=figures, overflow="fold")
    for name, row in zip(_names(sheet, identifying), sheet.rows, strict=True):
        table.add_row(name, *(_cell(row.get(column.key, MISSING)) for column in shown))
    return table


def _names(sheet: Sheet, identifying: Sequence[Column]) -> Iterator[Text]:
    """The cell of each row; of consecutive rows on one cell only the first shows it."""
    before: dict[str, str] = {}
    for row in sheet.rows:
        values = {column.key: row.get(column.key, MISSING) for column in identifying}
        names = {key: " ".join(filter(None, (value.text, value.range))) for key, value in values.items()}
        yield Text() if names == before else _stack(names, "dim")
        before = names


def _stack(names: Mapping[str, str], lesser: str) -> Text:
    """The identifying parts in lines, the model emphasized."""
    lines = Text()
    for keys in _LINES:
        if parts := [names[key] for key in keys if key in names]:
            lines.append("\n" if lines else "").append(" ".join(parts), "" if "model" in keys else lesser)
    return lines


def _only(sheet: Sheet, column: Column) -> str | None:
    """The value that several rows all have in a column."""
    values = {row.get(column.key, MISSING) for row in sheet.rows}
    only = next(iter(values), MISSING)
    return only.text if len(values) == 1 and len(sheet.rows) > 1 and not only.range else None


def _empty(sheet: Sheet, column: Column) -> bool:
    return bool(sheet.rows) and all(row.get(column.key, MISSING) == MISSING for row in sheet.rows)


def _heading(sheet: Sheet, column: Column) -> Text:
    """A heading no wider than its column needs."""
    values = [row.get(column.key, MISSING) for row in sheet.rows]
    widest = max((len(line) for value in values for line in (value.text, value.range)), default=0)
    width = max(widest if column.numeric else 0, *map(len, column.heading.split()))
    return Text("\n".join(textwrap.wrap(column.heading, width)))


def _cell(value: Value) -> Text:
    shown = Text(value.text, _STYLES.get(value.tone, ""))
    return shown.append(f"\n{value.range}", "dim") if value.range else shown
