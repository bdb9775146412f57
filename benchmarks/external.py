"""Write predictions of another tool as a run, so that `bench report` and `compare` show them with those of `bench
run`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bioner_edge.benchmarks.launch import begin, corpus_line, start_line
from bioner_edge.benchmarks.results import RESULTS, Key, Log
from bioner_edge.benchmarks.scoring.predictions import Scored, accuracy_line
from bioner_edge.benchmarks.suite import Settings
from bioner_edge.corpora.named import Corpus
from bioner_edge.errors import UsageError

__all__ = ["write"]


def write(
    folder: Path, name: str, corpus: Corpus, scored: Scored, *, limit: int | None, seed: int, command: Sequence[str]
) -> None:
    """Write a run of one cell. How the predictions were made, and their cost, are unknown.

    Raises UsageError for a folder that already holds a run, or cannot be written.
    """
    if (folder / RESULTS).exists():
        raise UsageError(f"{folder}: holds a run already; choose another --out")
    key = Key(name, corpus.name, "", "external")
    settings = Settings((), limit, repetitions=0, timed=0, seed=seed)
    model = {"kind": "model", "model": name, "level": "", "runtime": "external"}
    begin(folder, [start_line(settings, command, {}), model, corpus_line(corpus, limit)])
    counts = folder / "counts"
    counts.mkdir(exist_ok=True)
    scored.tallies.save(counts / f"{key.slug}.json")
    Log(folder).append(accuracy_line(key, scored, seed=seed))
