"""All sheets on cells, in report order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bioner_edge.benchmarks.cost import CostInputs
from bioner_edge.benchmarks.report import quality, resources
from bioner_edge.benchmarks.report.entries import AXES, Entry, groups
from bioner_edge.benchmarks.report.figures import MISSING, Column, Sheet, Value, stat, text
from bioner_edge.benchmarks.report.identity import Row, each, f1, identity

__all__ = ["cell_sheets"]


def cell_sheets(entries: Sequence[Entry], inputs: CostInputs) -> list[Sheet]:
    """All sheets on cells; empty ones are omitted, except the first."""
    sheets = [
        _overview(entries, inputs),
        quality.accuracy(entries),
        quality.modes(entries),
        quality.reference(entries),
        quality.broken(entries),
        quality.labels(entries),
        *_resource_sheets(entries, inputs),
        _failures(entries),
    ]
    return [sheet for sheet in sheets if sheet.rows or sheet is sheets[0]]


def _resource_sheets(entries: Sequence[Entry], inputs: CostInputs) -> Iterator[Sheet]:
    """The sheets on resources; none for a run without timings."""
    if any(entry.cell.repetitions for entry in entries):
        yield resources.speed(entries)
        yield resources.waiting(entries)
        yield resources.decoding(entries)
        yield resources.memory(entries)
        yield resources.cost(entries, inputs)


def _overview(entries: Sequence[Entry], inputs: CostInputs) -> Sheet:
    unbeaten: dict[int, list[str]] = {}
    for group in groups(entries):
        for axis in AXES:
            for entry in group.front(axis):
                unbeaten.setdefault(id(entry), []).append(axis.short)

    def row(entry: Entry) -> Row:
        cell = entry.cell
        axes = ", ".join(unbeaten.get(id(entry), []))
        return {
            "f1": f1(entry),
            "memory": stat(cell.figure("peak_rss_bytes"), 1e6),
            "tokens": stat(cell.figure("decode_tokens_per_s")),
            "documents": stat(cell.figure("documents_per_s")),
            "cost": resources.money(entry, "cost"),
            "front": Value(axes, float(axes.count(",") + 1), tone="front") if axes else MISSING,
        }

    columns = (
        Column("f1", "strict F1"),
        Column("memory", "peak memory, MB"),
        Column("tokens", "tokens/s"),
        Column("documents", "documents/s"),
        Column("cost", f"{inputs.currency} per 1,000"),
        Column("front", "unbeaten at", numeric=False),
    )
    notes = (
        "Strict F1: label and all offsets of an entity must be those of the gold one; with its 95 % interval.",
        "Speed, memory and cost are those at the most threads: the median of the repetitions, with the lowest and the "
        "highest.",
        "Unbeaten at: no other cell on the same documents has as good a figure and as high an F1, and one of them "
        "better.",
        *_comparability_notes(entries),
    )
    return Sheet("overview", "Overview", (*identity(entries), *columns), each(entries, row), notes)


def _comparability_notes(entries: Sequence[Entry]) -> Iterator[str]:
    """A warning where rows of one corpus differ in documents or labels."""
    corpora = [corpus for corpus, _, _ in {entry.comparable for entry in entries if entry.comparable}]
    for corpus in sorted({corpus for corpus in corpora if corpora.count(corpus) > 1}):
        yield text(f"{corpus}: not all cells were scored on the same documents and labels, so compare with care.").text


def _failures(entries: Sequence[Entry]) -> Sheet:
    def row(entry: Entry) -> Row:
        failed = entry.cell.failed
        assert failed
        phase = "predicted not to fit, never started" if failed["predicted"] else failed["phase"]
        return {"phase": text(phase), "reason": text(failed["reason"], tone="failed")}

    columns = (Column("phase", "at", numeric=False), Column("reason", "reason", numeric=False))
    rows = each([entry for entry in entries if entry.cell.failed], row)
    return Sheet("failed", "Failed", (*identity(entries), *columns), rows, terminal=True)
