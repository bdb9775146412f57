"""Reports on standard error: lines and figures, and on a terminal a progress bar below them.

rich is imported only when it draws something: a short `extract`, or one into a pipe, starts without it.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING

from bioner_edge.errors import printable
from bioner_edge.report import Advance, Figure, Report

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.text import Text

__all__ = ["Terminal"]

_EVERY_S = 0.2
_WIDTH = 120  # characters of a line in a file or pipe
_BAR = 24  # characters, on a wide terminal


class Terminal(Report):
    """Prints lines after `prefix`, unless `quiet`, and a bar if standard error is a terminal.

    The bar is wiped when its work ends, however it ends. Set `bar` to False if something else is written to the same
    terminal: the bar would run into it.
    """

    def __init__(self, *, quiet: bool = False, prefix: str = "", bar: bool = True) -> None:
        self._quiet, self._prefix = quiet, prefix
        dumb = os.environ.get("TERM", "").lower() in ("dumb", "unknown")
        self._live = bar and not quiet and not dumb and sys.stderr.isatty()

    @cached_property
    def _console(self) -> Console:
        from rich.console import Console

        width = None if sys.stderr.isatty() else _WIDTH
        return Console(stderr=True, highlight=False, width=width, soft_wrap=True)

    def step(self, text: str) -> None:
        if not self._quiet:
            print(printable(f"{self._prefix}{text}"), file=sys.stderr)  # rich redirects it above a bar

    def figure(self, figure: Figure) -> None:
        if self._quiet:
            return
        from rich.text import Text

        mark, style = ("-", "") if figure.threshold is None else ("✓", "green") if figure.holds else ("✗", "red")
        value = f"{figure.figure:.4g}" + (f" ({figure.bound})" if figure.bound else "")
        line: Text = Text.assemble("  ", (mark, style), f" {printable(figure.stage)}: ", (value, "bold"))
        self._console.print(line)

    @contextmanager
    def progress(self, what: str, total: int | None = None, unit: str = "", done: int = 0) -> Iterator[Advance]:
        if not self._live:
            with super().progress(what, total, unit, done) as advance:
                yield advance
            return
        bar = _Bar(self, what, total, unit, done)
        try:
            yield bar.advance
        finally:
            bar.wipe()


class _Bar:
    """A progress bar. It is drawn by `advance`, at most every `_EVERY_S`, without a thread."""

    def __init__(self, terminal: Terminal, what: str, total: int | None, unit: str, done: int) -> None:
        self._terminal, self._what, self._total, self._unit = terminal, what, total, unit
        self._first = self._done = done
        self._note = ""
        self._drawn: Progress | None = None
        self._began = self._last = time.monotonic()

    def advance(self, steps: int = 1, note: str = "") -> None:
        self._done += steps
        self._note = note or self._note
        now = time.monotonic()
        if now - self._last >= _EVERY_S:
            self._last = now
            self._draw(now - self._began)

    def wipe(self) -> None:
        if self._drawn:
            self._drawn.stop()

    def _draw(self, seconds: float) -> None:
        drawn = self._drawn = self._drawn or self._start()
        details = printable(_details(self._done, self._first, self._total, self._unit, self._note, seconds))
        drawn.update(drawn.task_ids[0], completed=self._done, details=details, refresh=True)

    def _start(self) -> Progress:
        from rich.progress import BarColumn, Progress, TextColumn
        from rich.table import Column

        console = self._terminal._console
        text, rest = (
            TextColumn(shown, markup=False, table_column=Column(no_wrap=True, overflow="ellipsis"))
            for shown in ("{task.description}", "{task.fields[details]}")
        )
        bar = BarColumn(min(_BAR, console.width // 6))
        drawn = Progress(text, bar, rest, console=console, auto_refresh=False, transient=True, redirect_stdout=False)
        drawn.add_task(printable(self._what), total=self._total, details="")
        drawn.start()
        return drawn


def _details(done: int, first: int, total: int | None, unit: str, note: str, seconds: float) -> str:
    """The text beside the bar, the most important first: a narrow terminal cuts off the end."""
    rate = (done - first) / seconds
    parts = []
    if unit == "bytes":
        parts.append(f"{done / 1e6:.1f}" + (f"/{total / 1e6:.1f} MB" if total else " MB"))
    elif unit:
        parts.append(f"{done}/{total} {unit}" if total else f"{done} {unit}")
    elif total:
        parts.append(f"{min(1.0, done / total):.0%}")
    if total and rate > 0:
        left = int(max(0, total - done) / rate)
        parts.append(f"{left // 3600}:{left // 60 % 60:02}:{left % 60:02} left")
    if note:
        parts.append(note)
    elif unit == "bytes":
        parts.append(f"{rate / 1e6:.1f} MB/s")
    return ", ".join(parts)
