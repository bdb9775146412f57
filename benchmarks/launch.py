"""`bioner-edge bench run`: turn a request into a run's folder, and start or resume the run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bioner_edge.benchmarks import plan
from bioner_edge.benchmarks.measuring import machine
from bioner_edge.benchmarks.process import Failure, run_module
from bioner_edge.benchmarks.results import Line, Log, Run
from bioner_edge.benchmarks.suite import Settings, Suite
from bioner_edge.corpora.named import Corpus, open_corpus
from bioner_edge.errors import UsageError, unknown_name
from bioner_edge.io.lock import open_locked
from bioner_edge.report import Report

__all__ = ["SCHEMA", "RunRequest", "begin", "corpus_line", "launch", "start_line"]

SCHEMA = 1
"""Schema version of results.jsonl."""
_BANDWIDTH = "bioner_edge.benchmarks.measuring.bandwidth"


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What a run is asked to measure; the default model is the bundled one. `formats` is "tuned", "default", "all" or
    comma-separated names, `reference` a level or model that the report compares the others with."""

    corpora: Sequence[str]
    settings: Settings
    models: Sequence[str] = ()
    formats: str = "tuned"
    constraints: Sequence[str] = ("default",)
    reference: str | None = None
    force: bool = False
    command: Sequence[str] = field(default_factory=tuple)


def launch(request: RunRequest, folder: Path, report: Report | None = None) -> tuple[Run, Suite]:
    """Measure into `folder` what it does not contain yet.

    Raises UsageError for an invalid request and for a folder that holds a run with other settings, InputError for a
    corpus, ModelError for a model that does not exist.
    """
    report = report or Report()
    models = plan.find_models(request.models)
    if request.reference and request.reference not in (
        names := [*{m.level: 0 for m in models}, *(m.name for m in models)]
    ):
        raise UsageError(unknown_name("reference", request.reference, filter(None, names)))
    corpora = [open_corpus(name) for name in request.corpora]
    tasks = list(plan.tasks(models, corpora, request.formats, request.constraints, request.settings.labels))
    if not tasks:
        raise UsageError("nothing to measure: of these constraints none is for ONNX models; add gbnf or grounded")
    notices = [notice for corpus in corpora for notice in corpus.notices]
    for notice in [*notices, *plan.left_out(models, tasks, request.constraints)]:
        report.warning(notice)
    rows: list[Line] = [model.to_json() for model in models]
    rows += {task.key.corpus: corpus_line(task.corpus, request.settings.limit) for task in tasks}.values()
    new = _new_lines(folder, request.settings, rows)
    folder.mkdir(parents=True, exist_ok=True)
    with open_locked(Log(folder).path):
        copied = _copy_bandwidth(request.settings, report) if request.settings.repetitions else {}
        begin(folder, [start_line(request.settings, request.command, copied), *new])
        suite = Suite(folder, request.settings, tasks, copied, report, request.force)
        return suite.run(), suite


def _copy_bandwidth(settings: Settings, report: Report) -> dict[str, float]:
    """Bytes per second that a plain copy moves, by threads; none where memory does not suffice for one."""
    found = {}
    with report.progress("measuring the memory", len(settings.threads)) as advance:
        for threads in settings.threads:
            try:
                found[str(threads)] = run_module(_BANDWIDTH, {"threads": threads})["copy_bytes_per_s"]
            except Failure as failure:
                report.warning(f"the bandwidth of the memory is not known: {failure}")
            advance()
    return found


def _new_lines(folder: Path, settings: Settings, rows: Sequence[Line]) -> list[Line]:
    """The lines that a run does not have yet.

    Raises UsageError for a folder whose run is not comparable with the requested one.
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
    return [row for row in rows if not _is_known(folder, row, before)]


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
    """Write the first lines of a run, or the new ones. Raises UsageError where that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for line in lines:
            Log(folder).append(line)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be written: {error.strerror}") from None


def _is_known(folder: Path, row: Line, before: Sequence[Line]) -> bool:
    """Whether a model or corpus is already recorded. Raises UsageError where a different one has its name."""
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
