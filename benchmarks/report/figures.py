"""The data of a report: sheets of values, each with its text and its sort key.

Terminal, Markdown and HTML render the same sheets, so that they agree. Text of values, headings and notes is printable:
control characters are already replaced by U+FFFD.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from bioner_edge.benchmarks.results import Stat
from bioner_edge.errors import printable

__all__ = ["MISSING", "Column", "Sheet", "Value", "megabytes", "number", "score", "signed_value", "stat", "text"]


@dataclass(frozen=True, slots=True)
class Value:
    """`text` is shown, with `range` after it in brackets or below it; `sort` is a numeric sort key, None for text.
    `tone` selects the color (failed, front, assumed, muted); its meaning is in the text too."""

    text: str
    sort: float | None = None
    range: str = ""
    tone: str = ""


MISSING = Value("–", tone="muted")


@dataclass(frozen=True, slots=True)
class Column:
    """A column by the key of its values. Columns that `identify` a cell are not figures. `lesser` columns are omitted
    where space is short."""

    key: str
    heading: str
    numeric: bool = True
    identifies: bool = False
    lesser: bool = False


@dataclass(frozen=True, slots=True)
class Sheet:
    """A table. A row may lack values. `notes` are printed below it. `terminal` says that it is shown on a terminal."""

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: Sequence[dict[str, Value]]
    notes: tuple[str, ...] = ()
    terminal: bool = field(default=False)


def text(value: object, tone: str = "") -> Value:
    """Arbitrary text on one line; empty text is missing."""
    line = printable(" ".join(str(value).split()))
    return Value(line, tone=tone) if line else MISSING


def number(value: float | None, tone: str = "") -> Value:
    """A count in full; a measurement with three significant digits, whole from 100 on."""
    if value is None:
        return MISSING
    return Value(f"{value:,}" if isinstance(value, int) else _digits(value), float(value), tone=tone)


def score(value: float | None, low: float | None = None, high: float | None = None) -> Value:
    """A fraction of 1, such as F1, with its interval."""
    if value is None:
        return MISSING
    return Value(f"{value:.4f}", value, "" if low is None or high is None else f"{low:.3f}–{high:.3f}")


def signed_value(value: float, low: float, high: float) -> Value:
    """A difference with its interval."""
    return Value(_sign(value, 4), value, f"{_sign(low, 4)} to {_sign(high, 4)}")


def megabytes(value: float | None) -> Value:
    return number(None if value is None else value / 1e6)


def stat(measured: Stat | None, scale: float = 1.0) -> Value:
    """The median of repetitions, with their range where it is visible; divided by `scale`."""
    if measured is None:
        return MISSING
    low, high = _digits(measured.low / scale), _digits(measured.high / scale)
    spread = "" if low == high else f"{low}–{high}"
    return Value(_digits(measured.median / scale), measured.median / scale, spread)


def _digits(value: float) -> str:
    if not math.isfinite(value):
        return "∞" if value > 0 else str(value)
    if abs(value) >= 99.95:
        return f"{value:,.0f}"
    return f"{value:#.3g}" if value else "0"


def _sign(value: float, digits: int) -> str:
    """With its sign, a real minus; without sign where it rounds to zero."""
    message = f"{value:+.{digits}f}"
    return message[1:] if not float(message) else message.replace("-", "−")
