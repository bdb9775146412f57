"""The interface by which long work reports messages, figures of a verification, and progress."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

__all__ = ["Advance", "Figure", "Report"]


@dataclass(frozen=True, slots=True)
class Figure:
    """The measurement of one stage; `at_least` says on which side of the threshold it must lie.

    Without a threshold it is reported but not judged.
    """

    stage: str
    figure: float
    threshold: float | None = None
    at_least: bool = False

    @property
    def holds(self) -> bool:
        """Whether the figure is within its threshold; never for NaN."""
        if self.threshold is None:
            return True
        return self.figure >= self.threshold if self.at_least else self.figure <= self.threshold

    @property
    def bound(self) -> str:
        """The threshold in words; empty if there is none."""
        if self.threshold is None:
            return ""
        return f"{'at least' if self.at_least else 'at most'} {self.threshold:g}"

    def to_json(self) -> dict[str, Any]:
        record: dict[str, Any] = {"stage": self.stage, "figure": self.figure}
        if self.threshold is not None:
            record["at_least" if self.at_least else "at_most"] = self.threshold
        return record


class Advance(Protocol):
    """Advances the progress; cheap enough to be called for each document or each 64 kB."""

    def __call__(self, steps: int = 1, note: str = "") -> None:
        """Count `steps` more as done. `note` is shown beside the bar until the next one: a loss, or another rate."""


class Report:
    """Receives the reports of long work. This class ignores them; `terminal.Terminal` prints them.

    It is a base class and not a protocol, so that a test overrides only the methods that it needs.
    """

    def step(self, text: str) -> None:
        """Report in one line that a part of the work begins or has ended."""

    def warning(self, text: str) -> None:
        """Report in one line what the user may not expect."""
        self.step(f"warning: {text}")

    def figure(self, figure: Figure) -> None:
        """Report the figure of a verification stage, whether it holds or not."""

    @contextmanager
    def progress(self, what: str, total: int | None = None, unit: str = "", done: int = 0) -> Iterator[Advance]:
        """Report the progress of `what`: `total` steps (None if unknown), of which `done` were done before.

        `unit` names the steps ("tensors"); "bytes" are shown in MB, and without a unit only the percentage is shown.
        One piece of work at a time. Messages may be printed meanwhile, here or on standard error.
        """
        yield _nothing


def _nothing(steps: int = 1, note: str = "") -> None: ...
