"""What a report is made of: sheets of values, each as it is read and as it is sorted.

Terminal, Markdown and HTML draw the same sheets, so that they cannot disagree. Text of a value, a heading or a note is
printable: what could do something to a terminal is U+FFFD already.
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
    """`text` is what is read, with `range` behind it in brackets or below it; `sort` a number to sort by, None for
    text. `tone` is how it is coloured (failed, front, assumed, muted); what it means is in the text too."""

    text: str
    sort: float | None = None
    range: str = ""
    tone: str = ""


MISSING = Value("–", tone="muted")


@dataclass(frozen=True, slots=True)
class Column:
    """A column by the key of its values. Those that `identify` a cell say which it is, and are no figures. What is
    `lesser` is left out where there is little room."""

    key: str
    heading: str
    numeric: bool = True
    identifies: bool = False
    lesser: bool = False


@dataclass(frozen=True, slots=True)
class Sheet:
    """A table. A row may lack values. `notes` stand below it. `terminal`: whether it is short and telling enough for
    one."""

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: Sequence[dict[str, Value]]
    notes: tuple[str, ...] = ()
    terminal: bool = field(default=False)


def text(value: object, tone: str = "") -> Value:
    """Text from anywhere, on one line; nothing is missing."""
    told = printable(" ".join(str(value).split()))
    return Value(told, tone=tone) if told else MISSING


def number(value: float | None, tone: str = "") -> Value:
    """A count in full; of what is measured three significant digits, whole from 100 on."""
    if value is None:
        return MISSING
    return Value(f"{value:,}" if isinstance(value, int) else _digits(value), float(value), tone=tone)


def score(value: float | None, low: float | None = None, high: float | None = None) -> Value:
    """A share of 1, such as F1, with its interval."""
    if value is None:
        return MISSING
    return Value(f"{value:.4f}", value, "" if low is None or high is None else f"{low:.3f}–{high:.3f}")


def signed_value(value: float, low: float, high: float) -> Value:
    """A difference with its interval."""
    return Value(_sign(value, 4), value, f"{_sign(low, 4)} to {_sign(high, 4)}")


def megabytes(value: float | None) -> Value:
    return number(None if value is None else value / 1e6)


def stat(measured: Stat | None, scale: float = 1.0) -> Value:
    """The median of repetitions, and between what they lie where that can be seen; divided by `scale`."""
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
    """With its sign, a real minus; what rounds to nothing has none."""
    message = f"{value:+.{digits}f}"
    return message[1:] if not float(message) else message.replace("-", "−")
