"""Run a benchmark: read and score every cell once, then time all cells in turn, repeatedly.

    plan -> read each cell -> score -> repetition 1 of each cell, repetition 2 of each cell, … -> report

Each reading and each repetition is a process of its own. Cells take turns, so that slow phases of the machine do not
all hit one cell. Results are on disk as soon as they are known: an interrupted run is resumed by the same command. A
failure is recorded with its reason, and the other cells go on.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from bioner_edge.benchmarks.plan import Task
from bioner_edge.benchmarks.process import Failure, describe_error, run_module
from bioner_edge.benchmarks.results import Cell, Key, Log, Run
from bioner_edge.benchmarks.scoring import ceiling, predictions
from bioner_edge.document import Document
from bioner_edge.errors import InputError, name_file
from bioner_edge.models import memory
from bioner_edge.report import Advance, Report

__all__ = ["Settings", "Suite"]

_CHILD = "bioner_edge.benchmarks.measuring.child"
_NAMED = 5  # documents that a warning lists


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings that stay the same throughout a run. `limit` is how many documents of each corpus are read, None for
    all; the first `timed` of these are read in each of `repetitions`, at each number of `threads`. `labels` are those
    to extract, by default those of each model's manifest."""

    threads: tuple[int, ...]
    limit: int | None = None
    repetitions: int = 5
    timed: int = 20
    seed: int = 0
    labels: tuple[str, ...] | None = None


@dataclass
class Suite:
    """A run in progress in `folder`, whose first lines are already written.

    `copied` is the bandwidth of a plain copy in bytes per second, by threads, to compare weight reads with.
    """

    folder: Path
    settings: Settings
    tasks: Sequence[Task]
    copied: Mapping[str, float]
    report: Report = field(default_factory=Report)
    force: bool = False
    extract_s: float = field(default=0.0, init=False)
    """Seconds that `extract` would take too: for libraries, models and documents. The rest is overhead."""
    _ceilings: dict[tuple[str, str, tuple[str, ...]], dict[str, float] | None] = field(default_factory=dict, init=False)

    def run(self) -> Run:
        """Measure what is missing."""
        self._read_all()
        self._time_all()
        return Run.load(self.folder)

    def _read_all(self) -> None:
        done = {cell.key for cell in self._cells().values() if cell.accuracy}
        left = [task for task in self.tasks if task.key not in done]
        total = sum(len(self._documents(task)) for task in left)
        with self.report.progress("reading", total, "documents") as advance:
            for task in left:
                self._attempt(task, {"phase": "read"}, partial(self._read, task, advance))

    def _read(self, task: Task, advance: Advance) -> None:
        """Read and score a cell."""
        documents = self._documents(task)
        found = self._file("predictions", f"{task.key.slug}.jsonl")
        with _write_documents(documents) as path:
            spec = {"phase": "read", "predictions": str(found), "threads": max(self.settings.threads)}
            answer = run_module(_CHILD, self._spec(task, path) | spec, _Growth(found, advance))
        self.extract_s += answer["start_s"] + answer["load_s"] + answer["new_seconds"]
        scored = predictions.score_predictions([str(found)], documents, task.scored)
        scored.tallies.save(self._file("counts", f"{task.key.slug}.json"))
        spent = {name: answer[name] for name in ("seconds", "load_s", "answers", "calls", "fed", "tokens")}
        best = self._ceiling(task, documents)
        line = predictions.accuracy_line(
            task.key, scored, seed=self.settings.seed, tuned=task.tuned, spent=spent, ceiling=best
        )
        Log(self.folder).append(line | {"asked": list(task.asked)})
        f1 = line["scores"]["strict"]["micro"]["f1"]
        self.report.step(f"{task.key}: strict F1 {f1:.4f}, {len(documents)} documents in {answer['seconds']:.1f} s")
        if unread := [*scored.alignment.failed, *scored.alignment.missing]:
            named = ", ".join(unread[:_NAMED]) + (", …" if unread[_NAMED:] else "")
            self.report.warning(f"{task.key}: {len(unread)} documents could not be read, and count as missed: {named}")

    def _time_all(self) -> None:
        cells = self._cells()
        ready = [task for task in self.tasks if (cell := cells.get(task.key)) and cell.accuracy]
        asked = [(task, threads) for task in ready for threads in self.settings.threads]
        done = {(c.key, line["threads"], line["number"]) for c in cells.values() for line in c.repetitions}
        failed: set[tuple[Key, int]] = set()
        total = self.settings.repetitions * len(asked) - len(done)
        with self.report.progress("timing", total, "repetitions") as advance:
            for number, (task, threads) in product(range(1, self.settings.repetitions + 1), asked):
                if (task.key, threads, number) in done or (task.key, threads) in failed:
                    continue
                where = {"phase": "repetition", "threads": threads}
                if not self._attempt(task, where, partial(self._time, task, threads, number)):
                    failed.add((task.key, threads))  # a retry would fail again, perhaps after hours
                advance()

    def _time(self, task: Task, threads: int, number: int) -> None:
        """One repetition of a cell."""
        with _write_documents(self._documents(task)[: self.settings.timed]) as path:
            spec = {"phase": "repetition", "threads": threads, "warm_up": 1}
            answer = run_module(_CHILD, self._spec(task, path) | spec)
        self.extract_s += answer.pop("start_s") + answer["load_s"] + answer.pop("warm_up_s") + answer["seconds"]
        read, copied = answer["read_bytes_per_s"], self.copied.get(str(threads))
        share = read / copied if read is not None and copied else None
        measured = {"threads": threads, "number": number, **answer, "bandwidth_share": share}
        self._log("repetition", task.key, measured)

    def _spec(self, task: Task, documents: Path) -> dict[str, Any]:
        """The spec of a measuring process for a cell."""
        return {
            "model": str(task.model.path),
            "format": task.key.format,
            "labels": list(task.asked),
            "guidelines": dict(task.guidelines or {}),
            "constraint": task.key.constraint,
            "documents": str(documents),
            "force": self.force,
            "spawned": time.time(),
        }

    def _refuse(self, task: Task) -> None:
        """Raises Failure for a cell that cannot be measured, or for which memory does not suffice."""
        if task.broken:
            raise Failure(task.broken)
        free = None if self.force else memory.available()
        if free is not None and task.model.needed_bytes > free:
            needed = f"needs about {task.model.needed_bytes / 1e9:.2f} GB of memory, {free / 1e9:.2f} GB are free"
            raise _TooLarge(needed)

    def _attempt(self, task: Task, where: dict[str, Any], measure: Callable[[], None]) -> bool:
        """Measure something of a cell; False where that failed, which is recorded."""
        try:
            self._refuse(task)
            measure()
        except Exception as failure:  # affects only this cell
            self._log(
                "failed",
                task.key,
                where | {"reason": describe_error(failure), "predicted": isinstance(failure, _TooLarge)},
            )
            self.report.step(f"{task.key}: failed: {describe_error(failure)}")
            return False
        return True

    def _ceiling(self, task: Task, documents: Sequence[Document]) -> dict[str, float] | None:
        """The scores of an extractor that always writes the right answer; None where nothing is annotated."""
        asked = task.key.corpus, task.key.format, task.scored
        if asked not in self._ceilings:
            self._ceilings[asked] = None
            with suppress(InputError):
                gold, _ = ceiling.gold(documents, task.scored)
                row = ceiling.measure(task.key.format, gold, task.scored, defective=lambda message: None).to_json()
                self._ceilings[asked] = {name: row[name] for name in ("precision", "recall", "f1")}
        return self._ceilings[asked]

    def _documents(self, task: Task) -> list[Document]:
        return task.corpus.documents[: self.settings.limit]

    def _cells(self) -> dict[Key, Cell]:
        return {cell.key: cell for cell in Run.load(self.folder).cells}

    def _log(self, kind: str, key: Key, values: dict[str, Any]) -> None:
        Log(self.folder).append({"kind": kind, **key.to_json(), **values})

    def _file(self, folder: str, name: str) -> Path:
        (self.folder / folder).mkdir(exist_ok=True)
        return self.folder / folder / name


class _TooLarge(Failure):
    """There is not enough free memory."""


@contextmanager
def _write_documents(documents: Sequence[Document]) -> Iterator[Path]:
    """The documents, without their annotations, in a temporary file."""
    with tempfile.TemporaryDirectory(prefix="bioner-edge-") as folder:
        path = Path(folder) / "documents.jsonl"
        with name_file(path), path.open("w", encoding="utf-8", newline="\n") as stream:
            for document in documents:
                stream.write(
                    json.dumps(document.without_entities().to_json()) + "\n"
                )  # ASCII escapes can represent lone surrogates
        yield path


class _Growth:
    """Advances by the number of new lines in a file at each call."""

    def __init__(self, path: Path, advance: Advance) -> None:
        self._path, self._advance = path, advance
        self._read = 0

    def __call__(self) -> None:
        if self._path.exists():
            with self._path.open("rb") as stream:
                stream.seek(self._read)
                more = stream.read()
            self._read += len(more)
            self._advance(more.count(b"\n"))
