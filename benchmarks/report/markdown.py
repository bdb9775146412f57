"""Render sheets as Markdown, with all markup in names escaped."""

from __future__ import annotations

import re
from collections.abc import Sequence

from bioner_edge.benchmarks.report.figures import MISSING, Sheet, Value

__all__ = ["Picture", "render"]

Picture = tuple[str, str]
"""A plot's file name and description."""
_MARKUP = re.compile(r"[\\`*\[\]<>|&$~#]|(?<!\w)_|_(?!\w)")


def render(title: str, sheets: Sequence[Sheet], pictures: Sequence[Picture], notes: Sequence[str]) -> str:
    """A document with the sheets, the plots before them."""
    drawn = [f"![{_escape(shown)}]({name})" for name, shown in pictures]
    parts = [f"# {_escape(title)}", *map(_escape, notes), *drawn, *map(_section, sheets)]
    return "\n\n".join(parts) + "\n"


def _section(sheet: Sheet) -> str:
    heads = [_escape(column.heading) for column in sheet.columns]
    rules = ["---:" if column.numeric else "---" for column in sheet.columns]
    rows = [[_value(row.get(column.key, MISSING)) for column in sheet.columns] for row in sheet.rows]
    lines = [f"| {' | '.join(cells)} |" for cells in (heads, rules, *rows)]
    notes = [_escape(note) for note in sheet.notes]
    return "\n\n".join([f"## {_escape(sheet.title)}", "\n".join(lines), *notes])


def _value(value: Value) -> str:
    return _escape(f"{value.text} ({value.range})" if value.range else value.text)


def _escape(text: str) -> str:
    return _MARKUP.sub(lambda found: f"\\{found.group()}", text)
