"""The results of a run on disk, raw, and as the reports read them.

A run is a folder:

    results.jsonl              measurements, one per line, appended as they are made
    predictions/CELL.jsonl     predictions, as `bioner-edge extract` writes them, with the `cost` of each document
    counts/CELL.json           counts by document and label (`accuracy.Tallies`)

A CELL is a model × corpus × format × constraint. The lines of results.jsonl, by `kind`:

    run          the command, seed, settings, machine, versions; another one each time that the run is resumed
    model        a model: path, level, runtime, bytes, hash, what it was fine-tuned for
    corpus       a corpus: hash, documents, entities, notices of its reader
    accuracy     a cell: scores, ceiling, answers that could not be read, seconds
    repetition   a cell timed once at a number of threads, in its own process: speed and memory
    failed       a cell, or a repetition of it, that failed: the reason
"""

from __future__ import annotations

import os
import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from bioner_edge.benchmarks.scoring.accuracy import Tallies
from bioner_edge.errors import InputError, name_file
from bioner_edge.io import journal

__all__ = ["RESULTS", "Cell", "Key", "Line", "Log", "Run", "Stat", "quantile"]

RESULTS = "results.jsonl"
Line = Mapping[str, Any]


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """The key of a cell: names of model and corpus, format, constraint."""

    model: str
    corpus: str
    format: str
    constraint: str

    def to_json(self) -> dict[str, str]:
        return {"model": self.model, "corpus": self.corpus, "format": self.format, "constraint": self.constraint}

    @classmethod
    def of(cls, line: Line) -> Key:
        # Results of earlier versions say "decoding".
        constraint = line["constraint"] if "constraint" in line else line["decoding"]
        return cls(line["model"], line["corpus"], line["format"], constraint)

    @property
    def slug(self) -> str:
        """A unique file name."""
        name = "__".join(self.to_json().values())
        safe = re.sub(r"[^\w.+-]+", "-", name.replace(":", "+"), flags=re.ASCII)[:150]
        plain = "+" not in name and safe == name.replace(":", "+")
        return safe if plain else f"{safe}-{sha256(name.encode()).hexdigest()[:8]}"

    def __str__(self) -> str:
        return " · ".join(filter(None, self.to_json().values()))


@dataclass(frozen=True, slots=True)
class Stat:
    """Statistics of a figure over repetitions."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Stat | None:
        """None for no values."""
        return cls(statistics.median(values), min(values), max(values)) if values else None


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of them do not exceed. Raises IndexError for no values."""
    ordered = sorted(values)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]


@dataclass(slots=True)
class Cell:
    """Everything that a run has on one cell. `about` is the line of its model, empty where it could not be read."""

    key: Key
    folder: Path
    about: Line = field(default_factory=dict)
    accuracy: Line | None = None
    repetitions: list[Line] = field(default_factory=list)
    failed: Line | None = None

    def add(self, kind: str, line: Line) -> None:
        """Add a line of the results; a later success replaces a failure."""
        if kind == "accuracy":
            self.accuracy, self.failed = line, None
        elif kind == "repetition":
            self.repetitions.append(line)
            if self.failed and self.failed.get("threads") == line["threads"]:
                self.failed = None
        elif kind == "failed":
            self.failed = line

    @property
    def threads(self) -> list[int]:
        """The numbers of threads at which it was timed."""
        return sorted({line["threads"] for line in self.repetitions})

    def figure(self, name: str, threads: int | None = None) -> Stat | None:
        """A figure of the repetitions, by default at the most threads; None where it was not measured."""
        values = [line[name] for line in self.timed(threads) if line.get(name) is not None]
        return Stat.of(values)

    def latency_s(self, share: float, threads: int | None = None) -> float | None:
        """The latency that `share` of all documents of all repetitions did not exceed."""
        values = [seconds for line in self.timed(threads) for seconds in line["latencies_s"]]
        return quantile(values, share) if values else None

    def timed(self, threads: int | None = None) -> list[Line]:
        """The repetitions at a number of threads, by default the most."""
        chosen = threads or max(self.threads, default=0)
        return [line for line in self.repetitions if line["threads"] == chosen]

    def tallies(self) -> Tallies:
        """The counts by document. Raises InputError where the file is missing or invalid."""
        return Tallies.load(self.folder / "counts" / f"{self.key.slug}.json")


@dataclass(slots=True)
class Run:
    """A run's folder, loaded."""

    folder: Path
    starts: list[Line]
    corpora: dict[str, Line]
    cells: list[Cell]

    @property
    def header(self) -> Line:
        """The latest start: machine, versions, settings, seed."""
        return self.starts[-1]

    @classmethod
    def load(cls, folder: Path) -> Run:
        """The run in `folder`. Raises InputError where there is none, or a line of it cannot be read."""
        run = cls(folder, [], {}, [])
        cells: dict[Key, Cell] = {}
        models: dict[str, Line] = {}
        for line in Log(folder).lines():
            kind = line["kind"]
            if kind == "run":
                run.starts.append(line)
            elif kind == "corpus":
                run.corpora[line["corpus"]] = line
            elif kind == "model":
                models[line["model"]] = line
            else:
                cell = cells.setdefault(Key.of(line), Cell(Key.of(line), folder))
                cell.about = models.get(cell.key.model, {})
                cell.add(kind, line)
        if not run.starts:
            raise InputError(f"{folder}: no run of `bioner-edge bench` in this folder")
        run.cells = list(cells.values())
        return run


@dataclass(frozen=True, slots=True)
class Log:
    """The results file of a run: appended to, never rewritten."""

    folder: Path

    @property
    def path(self) -> Path:
        return self.folder / RESULTS

    def lines(self) -> Iterator[Line]:
        """The lines so far; an incomplete last line is skipped, and cut off at the next append.

        Raises InputError for any other invalid line.
        """
        for number, line in journal.lines(self.path):
            try:
                Key.of(line) if line["kind"] in ("accuracy", "repetition", "failed") else line["kind"]
            except (KeyError, TypeError):
                raise InputError(f"{self.path}:{number}: no line of a run of `bioner-edge bench`") from None
            yield line

    def append(self, line: Line) -> None:
        """Append a line atomically, as far as the disk guarantees that. Raises OSError, with the path."""
        with name_file(self.path), self.path.open("a+b", buffering=0) as stream:
            journal.cut_broken_line(stream)
            journal.append(stream, line)
            os.fsync(stream.fileno())
