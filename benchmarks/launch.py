"""`bioner-edge bench run`: what was asked for becomes a run's folder, and the run is started or taken up again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bioner_edge.benchmarks import plan
from bioner_edge.benchmarks.measuring import machine
from bioner_edge.benchmarks.process import Failure, apart
from bioner_edge.benchmarks.results import Line, Log, Run
from bioner_edge.benchmarks.suite import Settings, Suite
from bioner_edge.corpora.named import Corpus, open_corpus
from bioner_edge.errors import UsageError, unknown_name
from bioner_edge.io.lock import open_locked
from bioner_edge.report import Report

__all__ = ["SCHEMA", "RunRequest", "begin", "corpus_line", "launch", "start_line"]

SCHEMA = 1
"""Of the lines of results.jsonl: another number is another meaning."""
_BANDWIDTH = "bioner_edge.benchmarks.measuring.bandwidth"


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What a run is asked to measure; without models the bundled one. `formats` is "tuned", "default", "all" or names
    with commas between them, `reference` a level or a model that the report holds the others against."""

    corpora: Sequence[str]
    settings: Settings
    models: Sequence[str] = ()
    formats: str = "tuned"
    constraints: Sequence[str] = ("default",)
    reference: str | None = None
    force: bool = False
    command: Sequence[str] = field(default_factory=tuple)


def launch(asked: RunRequest, folder: Path, report: Report | None = None) -> tuple[Run, Suite]:
    """Measure into `folder` what is not there yet.

    Raises UsageError for a request that makes no sense and for a folder that holds a run of other settings, InputError
    for a corpus, ModelError for a model that is not there.
    """
    report = report or Report()
    models = plan.find_models(asked.models)
    if asked.reference and asked.reference not in (names := [*{m.level: 0 for m in models}, *(m.name for m in models)]):
        raise UsageError(unknown_name("reference", asked.reference, filter(None, names)))
    corpora = [open_corpus(name) for name in asked.corpora]
    tasks = list(plan.tasks(models, corpora, asked.formats, asked.constraints, asked.settings.labels))
    if not tasks:
        raise UsageError("nothing to measure: of these constraints none is for ONNX models; add gbnf or grounded")
    notices = [notice for corpus in corpora for notice in corpus.notices]
    for notice in [*notices, *plan.left_out(models, tasks, asked.constraints)]:
        report.warning(notice)
    rows: list[Line] = [model.to_json() for model in models]
    rows += {task.key.corpus: corpus_line(task.corpus, asked.settings.limit) for task in tasks}.values()
    new = _new(folder, asked.settings, rows)
    folder.mkdir(parents=True, exist_ok=True)
    with open_locked(Log(folder).path):
        copied = _copied(asked.settings, report) if asked.settings.repetitions else {}
        begin(folder, [start_line(asked.settings, asked.command, copied), *new])
        suite = Suite(folder, asked.settings, tasks, copied, report, asked.force)
        return suite.run(), suite


def _copied(settings: Settings, report: Report) -> dict[str, float]:
    """Bytes a second that a plain copy moves, by threads; none where the machine has no room for one."""
    found = {}
    with report.progress("measuring the memory", len(settings.threads)) as advance:
        for threads in settings.threads:
            try:
                found[str(threads)] = apart(_BANDWIDTH, {"threads": threads})["copy_bytes_per_s"]
            except Failure as failure:
                report.warning(f"the bandwidth of the memory is not known: {failure}")
            advance()
    return found


def _new(folder: Path, settings: Settings, rows: Sequence[Line]) -> list[Line]:
    """Those of the lines that a run does not have yet.

    Raises UsageError for a folder with a run whose figures do not belong beside the ones that are asked for.
    """
    before = list(Log(folder).lines())
    for line in before:
        if line["kind"] == "run":
            if line.get("schema") != SCHEMA:
                raise UsageError(f"{folder}: written by another version of bioner-edge; choose another --out")
            for name, value in _json(settings).items():
                if line["settings"].get(name) != value:
                    message = f"{name} was {line['settings'].get(name)}, now it is {value}"
                    raise UsageError(f"{folder}: holds a run of other settings: {message}; choose another --out")
    return [row for row in rows if not _known(folder, row, before)]


def _json(settings: Settings) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(asdict(settings)))
    return found


def start_line(settings: Settings, command: Sequence[str], copied: Mapping[str, float]) -> Line:
    """The `run` line of the results."""
    return {
        "kind": "run",
        "schema": SCHEMA,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": list(command),
        "seed": settings.seed,
        "settings": _json(settings),
        "machine": machine.facts(),
        "versions": machine.versions(),
        "copy_bytes_per_s": copied,
    }


def begin(folder: Path, lines: Sequence[Line]) -> None:
    """Write the first lines of a run, or those that are new. Raises UsageError where that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for line in lines:
            Log(folder).append(line)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be written: {error.strerror}") from None


def _known(folder: Path, row: Line, before: Sequence[Line]) -> bool:
    """Whether a model or corpus is there already. Raises UsageError where one of its name is there that is another."""
    kind = row["kind"]
    for line in before:
        if line["kind"] == kind and line[kind] == row[kind]:
            if line["sha256"] != row["sha256"]:
                message = f"{row[kind]} has changed since the run was started (SHA-256 {line['sha256'][:12]}…)"
                raise UsageError(f"{folder}: {message}; choose another --out")
            return True
    return False


def corpus_line(corpus: Corpus, limit: int | None) -> Line:
    """The `corpus` line of the results."""
    documents = corpus.documents[:limit]
    return {
        "kind": "corpus",
        "corpus": corpus.name,
        "sha256": corpus.sha256,
        "documents": len(documents),
        "entities": sum(len({entity.key for entity in document.entities}) for document in documents),
        "notices": list(corpus.notices),
        "license": corpus.license,
    }
