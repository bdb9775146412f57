"""What one stage of a verification measured, and where it is told while a conversion runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

__all__ = ["Figure", "Report", "Silent"]


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


class Report(Protocol):
    """Hears what a conversion does."""

    def step(self, text: str) -> None:
        """A part of the work begins or has ended."""

    def figure(self, figure: Figure) -> None:
        """A stage of the verification was measured, whether it holds or not."""

    def progress(self, what: str, done: int, total: int) -> None:
        """`done` of `total` parts of `what` are done."""


class Silent:
    """A report that nobody reads."""

    def step(self, text: str) -> None: ...

    def figure(self, figure: Figure) -> None: ...

    def progress(self, what: str, done: int, total: int) -> None: ...
