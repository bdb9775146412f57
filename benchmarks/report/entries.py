"""The cells of runs as a report shows them, grouped by comparability."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bioner_edge.benchmarks.comparing.correspondence import family
from bioner_edge.benchmarks.cost import CostInputs, Costs, costs
from bioner_edge.benchmarks.report.pareto import front
from bioner_edge.benchmarks.results import Cell, Key, Line, Run, Stat
from bioner_edge.errors import printable

__all__ = ["AXES", "Against", "Axis", "Entry", "Group", "gather", "groups", "joules_per_document"]

Against = Mapping[Key, Mapping[str, Any]]
"""Cells of a run compared with their reference level: `compare.versus_reference`."""


@dataclass(frozen=True, slots=True)
class Axis:
    """A figure traded off against F1; plotted divided by `scale`."""

    name: str
    slug: str
    heading: str
    short: str
    scale: float = 1.0
    less_is_better: bool = False


AXES = (
    Axis("peak_rss_bytes", "memory", "peak resident memory, MB", "memory", 1e6, less_is_better=True),
    Axis("decode_tokens_per_s", "tokens", "tokens written per second", "tokens/s"),
    Axis("documents_per_s", "documents", "documents read per second", "documents/s"),
)


@dataclass(frozen=True, slots=True)
class Entry:
    """A cell. `model` is the model's name without its level, unless another model would then have the same name."""

    run: str
    model: str
    level: str
    cell: Cell
    against: Mapping[str, Any] | None
    costs: Costs | None

    @property
    def strict(self) -> Line | None:
        """Strict precision, recall, F1 and its interval over all labels; None where it was not scored."""
        accuracy = self.cell.accuracy
        return accuracy["scores"]["strict"]["micro"] if accuracy else None

    @property
    def interval(self) -> tuple[float, float, float]:
        """Strict F1 and its interval, a point where none was computed. Raises KeyError where not scored."""
        strict = self.strict or {}
        f1: float = strict["f1"]
        return f1, strict.get("low", f1), strict.get("high", f1)

    @property
    def comparable(self) -> tuple[str, int, tuple[str, ...]] | None:
        """The key of comparability: corpus, documents and labels that F1 was computed on."""
        accuracy = self.cell.accuracy
        return (self.cell.key.corpus, accuracy["documents"], tuple(accuracy["labels"])) if accuracy else None


@dataclass(frozen=True, slots=True)
class Group:
    """The scored cells of one corpus with the same documents and labels. `slug` is part of a file name."""

    title: str
    slug: str
    entries: tuple[Entry, ...]

    def points(self, axis: Axis) -> list[tuple[Entry, Stat]]:
        """The cells for which the figure was measured."""
        measured = [(entry, entry.cell.figure(axis.name)) for entry in self.entries]
        return [(entry, figure) for entry, figure in measured if figure]

    def front(self, axis: Axis) -> list[Entry]:
        """The cells on the Pareto front, best figure first."""
        points = self.points(axis)
        placed = [(figure.median, entry.strict["f1"]) for entry, figure in points if entry.strict]
        return [points[i][0] for i in front(placed, less_is_better=axis.less_is_better)]


def gather(runs: Sequence[Run], inputs: CostInputs, against: Sequence[Against]) -> list[Entry]:
    """The cells of the runs, in order; `against` has a mapping for each run."""
    names = _run_names(runs)
    cells = [cell for run in runs for cell in run.cells]
    models = _short_names(cells)
    return [
        Entry(name, models[cell.key.model], _level(cell), cell, versus.get(cell.key), _costs(cell, inputs))
        for name, run, versus in zip(names, runs, against, strict=True)
        for cell in run.cells
    ]


def groups(entries: Sequence[Entry]) -> list[Group]:
    """Scored cells, grouped by comparability."""
    found: dict[tuple[str, int, tuple[str, ...]], list[Entry]] = {}
    for entry in entries:
        if entry.comparable:
            found.setdefault(entry.comparable, []).append(entry)
    often = Counter(corpus for corpus, _, _ in found)
    slugs = _slugs([corpus for corpus, _, _ in found])
    made = []
    for slug, ((corpus, documents, labels), members) in zip(slugs, found.items(), strict=True):
        more = f", {documents} documents, {', '.join(labels)}" if often[corpus] > 1 else ""
        made.append(Group(printable(corpus + more), slug, tuple(members)))
    return made


def _costs(cell: Cell, inputs: CostInputs) -> Costs | None:
    speed, peak = cell.figure("documents_per_s"), cell.figure("peak_rss_bytes")
    if speed is None or speed.median <= 0:
        return None
    energy = joules_per_document(cell)
    return costs(speed.median, peak.median if peak else None, energy.median if energy else None, inputs)


def joules_per_document(cell: Cell, threads: int | None = None) -> Stat | None:
    """Measured energy per document; None where the machine does not report it."""
    lines = [line for line in cell.timed(threads) if line.get("energy_j") is not None and line.get("documents")]
    return Stat.of([line["energy_j"] / line["documents"] for line in lines])


def _run_names(runs: Sequence[Run]) -> list[str]:
    """The folders' names, or their paths where two have the same name."""
    own = [run.folder.resolve().name for run in runs]
    return own if len(set(own)) == len(own) else [str(run.folder) for run in runs]


def _short_names(cells: Sequence[Cell]) -> dict[str, str]:
    """A name for each model beside its level, such that all differ."""
    short = {cell.key.model: (family(cell), _level(cell)) for cell in cells}
    often = Counter(short.values())
    return {model: called[0] if often[called] == 1 else model for model, called in short.items()}


def _level(cell: Cell) -> str:
    return str(cell.about.get("level") or "")


def _slugs(names: Sequence[str]) -> Iterator[str]:
    """Unique parts of file names; empty for a single one."""
    taken: set[str] = set()
    for name in names:
        safe = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60] or "corpus"
        slug = next(s for s in (safe, *(f"{safe}-{n}" for n in range(2, len(names) + 2))) if s not in taken)
        taken.add(slug)
        yield f"-{slug}" if len(names) > 1 else ""
