"""`bioner-edge doctor`: check this machine and this installation."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from bioner_edge.cli.options import print_table, write
from bioner_edge.errors import printable

if TYPE_CHECKING:
    from rich.table import Table

    from bioner_edge.doctor import Finding

__all__ = ["doctor"]

_MARKS = {"ok": ("✓", "green"), "unknown": ("?", "dim"), "warning": ("!", "bold yellow"), "error": ("✗", "bold red")}


def doctor(json_: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False) -> None:
    """Check this machine and this installation: processor, memory, libraries, models, corpora, speed.

    Exit code: 0 nothing is wrong; 1 something is.
    """
    from rich.console import Console

    from bioner_edge.doctor import STATUSES, examine

    with Console(stderr=True).status("checking this machine; takes a few seconds"):  # silent without a terminal
        found = list(examine())
    worst = max((finding.status for finding in found), key=STATUSES.index)
    if json_:
        report = {"status": worst, "checks": [finding.to_json() for finding in found]}
        write(json.dumps(report, ensure_ascii=False) + "\n")
    else:
        print_table(_findings_table(found))
        for finding in found:
            if needed := finding.facts.get("needed_bytes"):
                free = finding.facts["free_bytes"]
                fits = "" if free is None else f" (✓ fits into the {free / 1e9:.1f} GB free)"
                write(f"\nWhat models take with a context of 2048 tokens{fits}:\n")
                print_table(_sizes(needed, free))
    raise typer.Exit(int(worst == "error"))


def _findings_table(found: Sequence[Finding]) -> Table:
    """A row for each finding, with its remedy below; the name of a check is shown once."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    before = ""
    for finding in found:
        text = Text(printable(finding.message))
        if finding.remedy:
            text.append(f"\n→ {printable(finding.remedy)}", "cyan")
        table.add_row(Text(*_MARKS[finding.status]), finding.name if finding.name != before else "", text)
        before = finding.name
    return table


def _sizes(needed: Mapping[str, Mapping[str, int]], free: int | None) -> Table:
    """Which models fit: a row for each size, a column for each level."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("parameters")
    for level in next(iter(needed.values())):
        table.add_column(level, justify="right")
    for size, levels in needed.items():
        cells = []
        for count in levels.values():
            mark, style = ("", "") if free is None else _MARKS["ok" if count <= free else "error"]
            cells.append(Text.assemble(f"{count / 1e9:.1f} GB ", (mark, style)))
        table.add_row(size, *cells)
    return table
