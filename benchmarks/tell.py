"""Who hears how a run goes: nobody, or the user, on standard error."""

from __future__ import annotations

from bioner_edge.terminal import Terminal

__all__ = ["Seen", "Tell"]


class Tell:
    """Hears, and says nothing."""

    def begin(self, what: str, steps: int) -> None:
        """A stretch of the run begins, of so many steps."""

    def advance(self, steps: int = 1) -> None:
        """So many steps more are done."""

    def say(self, line: str) -> None:
        """Something that is worth a line."""


class Seen(Tell):
    """A line for each cell, and on a terminal a line of progress below them; nothing where `quiet`."""

    def __init__(self, quiet: bool) -> None:
        self._terminal = Terminal(quiet=quiet)
        self._what, self._done, self._steps = "", 0, 0

    def begin(self, what: str, steps: int) -> None:
        self._terminal.clear()
        self._what, self._done, self._steps = what, 0, steps

    def advance(self, steps: int = 1) -> None:
        self._done += steps
        self._terminal.progress(self._what, min(self._done, self._steps), max(self._steps, 1))

    def say(self, line: str) -> None:
        self._terminal.step(line)

    def end(self) -> None:
        """Wipe the line of progress."""
        self._terminal.clear()
