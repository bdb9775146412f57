"""What a long job tells on standard error: its steps, its figures with their thresholds, and how far it is."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from bioner_edge.errors import printable

if TYPE_CHECKING:
    from bioner_edge.report import Figure

__all__ = ["Terminal"]

_EVERY_S = 0.2
_WIDTH = 120  # characters of a line that goes into a file or a pipe


class Terminal:
    """A report that is seen: lines always, unless `quiet`, and on a terminal a line of progress below them."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._live = sys.stderr.isatty() and not quiet
        width = None if sys.stderr.isatty() else _WIDTH
        self._console = Console(stderr=True, highlight=False, width=width, soft_wrap=True)
        self._last = 0.0

    def step(self, text: str) -> None:
        self._print(Text(printable(text)))

    def figure(self, figure: Figure) -> None:
        mark, style = ("-", "") if figure.threshold is None else ("✓", "green") if figure.holds else ("✗", "red")
        value = f"{figure.figure:.4g}" + (f" ({figure.bound})" if figure.bound else "")
        self._print(Text.assemble("  ", (mark, style), f" {printable(figure.stage)}: ", (value, "bold")))

    def progress(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if self._live and now - self._last >= _EVERY_S:
            self._last = now
            width = 24
            bar = "━" * (width * done // total)
            print(f"\r  {what} {bar:<{width}} {done}/{total}\x1b[K", end="", file=sys.stderr, flush=True)

    def _print(self, text: Text) -> None:
        if not self._quiet:
            self.clear()
            self._console.print(text)

    def clear(self) -> None:
        """Wipe the line of progress, so that something else can take its place."""
        if self._live:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clear()
