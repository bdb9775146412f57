"""A line of progress on a terminal, documents per second and time left; nothing in a pipe."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bioner_edge.io.inputs import Inputs

__all__ = ["Progress"]

_EVERY_S = 0.2


class Progress:
    """The time left is told from the bytes read, since a stream does not say how many documents it holds."""

    def __init__(self, inputs: Inputs, *, quiet: bool) -> None:
        self._inputs = inputs
        self._shown = not quiet and sys.stderr.isatty()
        self._documents = 0
        self._started = self._last = time.monotonic()

    def __enter__(self) -> Progress:
        return self

    def advance(self) -> None:
        """One more document is done."""
        self._documents += 1
        now = time.monotonic()
        if self._shown and now - self._last >= _EVERY_S:
            self._last = now
            print(f"\r{self._line(now - self._started)}\x1b[K", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Wipe the line, so that a message can take its place."""
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def _line(self, seconds: float) -> str:
        line = f"{self._documents} documents, {self._documents / seconds:.1f}/s"
        total = self._inputs.total_bytes
        if total and self._inputs.done_bytes:
            share = self._inputs.done_bytes / total
            left = int(seconds / share - seconds)
            line += f", {share:.0%}, {left // 3600}:{left // 60 % 60:02}:{left % 60:02} left"
        return line

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clear()
