"""The report of runs: tables for a terminal, report.md, a single-file report.html, plots as PNG.

    from bioner_edge.benchmarks import report

    report.write([Run.load(folder)], folder, CostInputs.load())

All are drawn from the same sheets (`rows`, `setup`), so that they agree, and contain no time but the runs' own: the
same runs give the same bytes.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bioner_edge.benchmarks.cost import CostInputs
from bioner_edge.benchmarks.report import markdown, page
from bioner_edge.benchmarks.report.entries import Against, Entry, gather, groups
from bioner_edge.benchmarks.report.rows import cell_sheets
from bioner_edge.benchmarks.report.setup import setup_sheets, summary
from bioner_edge.benchmarks.results import Run
from bioner_edge.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table

    from bioner_edge.benchmarks.report.canvas import Plot

__all__ = ["tables", "write"]

_TITLE = "Benchmark: accuracy, speed, memory, cost"


def tables(runs: Sequence[Run], inputs: CostInputs, *, reference: str | None = None) -> list[Table]:
    """The tables for a terminal. `reference` and errors: as in `write`."""
    from bioner_edge.benchmarks.report.table import to_table

    return [to_table(sheet) for sheet in cell_sheets(_entries(runs, inputs, reference), inputs) if sheet.terminal]


def write(
    runs: Sequence[Run],
    out: Path,
    inputs: CostInputs,
    complain: Callable[[str], None] = warnings.warn,
    *,
    reference: str | None = None,
) -> list[Path]:
    """Write report.md, report.html and the plots to the folder `out`; returns their paths.

    `reference` is the level or model that others are tested against, see `compare.versus_reference`. Without matplotlib
    there are no plots, which `complain` and the report state. Raises InputError for a run without a cell, and where a
    file cannot be written; UsageError for a reference that a run does not have.
    """
    entries = _entries(runs, inputs, reference)
    sheets = [*cell_sheets(entries, inputs), *setup_sheets(runs, entries, inputs)]
    plots, missing = _plots(entries)
    for note in missing:
        complain(note)
    notes = [summary(runs, entries), *missing]
    pictures = [(plot.name, plot.shown) for plot in plots]
    files = {
        **{plot.name: plot.png for plot in plots},
        "report.md": markdown.render(_TITLE, sheets, pictures, notes).encode(),
        "report.html": page.render(_TITLE, sheets, plots, notes).encode(),
    }
    return [_write(out / name, data) for name, data in files.items()]


def _entries(runs: Sequence[Run], inputs: CostInputs, reference: str | None) -> list[Entry]:
    if empty := next((run for run in runs if not run.cells), None):
        raise InputError(f"{empty.folder}: nothing was measured in this run")
    return gather(runs, inputs, [_against(run, reference) for run in runs])


def _against(run: Run, reference: str | None) -> Against:
    from bioner_edge.benchmarks.comparing.compare import versus_reference

    return versus_reference(run, reference, seed=run.header.get("seed") or 0)


def _plots(entries: Sequence[Entry]) -> tuple[list[Plot], list[str]]:
    """The plots, or why there are none."""
    from bioner_edge.benchmarks.report.plots import draw

    try:
        return draw(groups(entries)), []
    except ImportError as error:
        return [], [f"no pictures: {error}; pip install 'bioner-edge[bench]'"]


def _write(path: Path, data: bytes) -> Path:
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(data)
        os.replace(partial, path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from None
    return path
