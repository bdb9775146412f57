"""What long work tells its user: messages, figures of a verification, and progress."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

__all__ = ["Advance", "Figure", "Report"]


@dataclass(frozen=True, slots=True)
class Figure:
    """What one stage measured; `at_least` tells on which side of the threshold it must lie.

    Without a threshold it is told and not judged.
    """

    stage: str
    figure: float
    threshold: float | None = None
    at_least: bool = False

    @property
    def holds(self) -> bool:
        """Whether the threshold is kept; never for NaN."""
        if self.threshold is None:
            return True
        return self.figure >= self.threshold if self.at_least else self.figure <= self.threshold

    @property
    def bound(self) -> str:
        """The threshold in words; empty where there is none."""
        if self.threshold is None:
            return ""
        return f"{'at least' if self.at_least else 'at most'} {self.threshold:g}"

    def to_json(self) -> dict[str, Any]:
        record: dict[str, Any] = {"stage": self.stage, "figure": self.figure}
        if self.threshold is not None:
            record["at_least" if self.at_least else "at_most"] = self.threshold
        return record


class Advance(Protocol):
    """Tells that work went on; cheap enough to be called for each document or each 64 kB."""

    def __call__(self, steps: int = 1, note: str = "") -> None:
        """`steps` more are done. `note` is shown beside the bar until the next one: a loss, a rate of its own."""


class Report:
    """What a long piece of work tells its user while it runs. This one says nothing; `terminal.Terminal` is seen.

    It is a base class and not a protocol, so that a test's listener overrides only what it hears.
    """

    def step(self, text: str) -> None:
        """One line: a part of the work begins or has ended."""

    def warning(self, text: str) -> None:
        """One line about what the user may not expect."""
        self.step(f"warning: {text}")

    def figure(self, figure: Figure) -> None:
        """A stage of the verification was measured, whether it holds or not."""

    @contextmanager
    def progress(self, what: str, total: int | None = None, unit: str = "", done: int = 0) -> Iterator[Advance]:
        """A stretch of work of `total` steps, None where nobody knows, of which `done` were done before.

        `unit` names the steps ("tensors"); "bytes" are shown as MB, and without a unit only the share is shown. One
        stretch at a time. Messages may be printed meanwhile, here or on standard error.
        """
        yield _nothing


def _nothing(steps: int = 1, note: str = "") -> None: ...
