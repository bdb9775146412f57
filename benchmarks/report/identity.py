"""The columns that identify a row's cell, and what it shows without figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bioner_edge.benchmarks.report.entries import Entry
from bioner_edge.benchmarks.report.figures import Column, Value, number, score, text

__all__ = ["THREADS", "Row", "each", "f1", "identity", "timed_rows", "who"]

Row = dict[str, Value]
THREADS = Column("threads", "threads")


def identity(entries: Sequence[Entry]) -> tuple[Column, ...]:
    """The columns that identify cells; run and corpus where there are several."""
    keys = [("model", "model"), ("level", "level"), ("format", "format"), ("constraint", "constraint")]
    if len({entry.cell.key.corpus for entry in entries}) > 1:
        keys.insert(0, ("corpus", "corpus"))
    if len({entry.run for entry in entries}) > 1:
        keys.insert(0, ("run", "run"))
    return tuple(Column(key, heading, numeric=False, identifies=True) for key, heading in keys)


def who(entry: Entry) -> Row:
    key, accuracy = entry.cell.key, entry.cell.accuracy
    untuned = accuracy is not None and not accuracy.get("tuned", True)
    named = text(key.format)
    return {
        "run": text(entry.run),
        "corpus": text(key.corpus),
        "model": text(entry.model),
        "level": text(entry.level),
        "format": Value(named.text, range="untuned") if untuned else named,
        "constraint": text(key.constraint),
    }


def _missing_value(entry: Entry) -> Value:
    """The value shown where a cell has no figure."""
    if failed := entry.cell.failed:
        return Value("does not fit" if failed["predicted"] else "failed", tone="failed")
    return Value("not measured", tone="muted")


def each(entries: Sequence[Entry], row: Callable[[Entry], Row]) -> list[Row]:
    return [{**who(entry), **row(entry)} for entry in entries]


def timed_rows(entries: Sequence[Entry], row: Callable[[Entry, int], Row]) -> list[Row]:
    """A row for each number of threads, and one for a cell that could not be timed."""
    rows = []
    for entry in entries:
        rows += [{**who(entry), "threads": number(n), **row(entry, n)} for n in entry.cell.threads]
        if failed := entry.cell.failed:
            at = f"{failed['threads']}: " if failed.get("threads") else ""
            missing = _missing_value(entry)
            rows.append({**who(entry), "threads": Value(at + missing.text, failed.get("threads"), tone=missing.tone)})
    return rows


def f1(entry: Entry) -> Value:
    s = entry.strict
    return score(s["f1"], s.get("low"), s.get("high")) if s else _missing_value(entry)
