"""The sheets on the setup: machine, versions, models, corpora, inputs of the costs."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence

from bioner_edge.benchmarks.cost import CostInputs
from bioner_edge.benchmarks.report.entries import Entry
from bioner_edge.benchmarks.report.figures import MISSING, Column, Sheet, Value, megabytes, number, text
from bioner_edge.benchmarks.results import Line, Run

__all__ = ["setup_sheets", "summary"]

_MOST_NOTICES = 20  # per corpus; results.jsonl has all
_Row = dict[str, Value]


def setup_sheets(runs: Sequence[Run], entries: Sequence[Entry], inputs: CostInputs) -> list[Sheet]:
    return [_inputs(inputs), _runs(runs), _models(entries), _corpora(runs)]


def summary(runs: Sequence[Run], entries: Sequence[Entry]) -> str:
    """One line: what was measured, where and when."""
    corpora = dict.fromkeys(entry.cell.key.corpus for entry in entries)
    machines = dict.fromkeys(str((run.header.get("machine") or {}).get("processor", "unknown")) for run in runs)
    days = dict.fromkeys(str(run.header.get("started", ""))[:10] for run in runs)
    cells = f"{len(entries)} cell{'s' if len(entries) != 1 else ''}"
    return text(" · ".join([", ".join(corpora), cells, ", ".join(machines), ", ".join(days)])).text


def _inputs(inputs: CostInputs) -> Sheet:
    columns = (
        Column("name", "input", numeric=False, identifies=True),
        Column("value", "value"),
        *(Column(name, name, numeric=False) for name in ("unit", "kind", "source", "note")),
    )
    rows = [
        {
            "name": text(name),
            "value": Value(f"{entry.value:,.10g}", entry.value),
            "unit": text(entry.unit),
            "kind": text(entry.kind, tone="assumed" if entry.kind == "assumed" else ""),
            "source": text(entry.source),
            "note": text(entry.note),
        }
        for name, entry in inputs.entries.items()
    ]
    notes = (
        "Cost of a month = (hardware price / life + kWh × electricity price) × (1 + overhead), spread over the "
        "abstracts of the hours in which the machine reads. Break-even: hardware and its overhead, by what an abstract "
        "costs less than by the API. Joules that a run measured take the place of the watts.",
        "bioner-edge bench report --cost FILE takes a TOML file with entries of your own.",
    )
    return Sheet("inputs", "Inputs of the costs", columns, rows, notes)


def _runs(runs: Sequence[Run]) -> Sheet:
    columns = (
        Column("run", "run", numeric=False, identifies=True),
        Column("what", "what", numeric=False),
        Column("value", "value", numeric=False),
    )
    rows = [
        {"run": text(run.folder.name), "what": text(what), "value": text(value)}
        for run in runs
        for what, value in _facts(run)
    ]
    return Sheet("runs", "Machine and settings", columns, rows, tuple(_mixed_machine_notes(runs)))


def _facts(run: Run) -> Iterator[tuple[str, str]]:
    header = run.header
    machine = header.get("machine") or {}
    yield "started", ", ".join(str(start.get("started", "")) for start in run.starts)
    yield "command", shlex.join(map(str, header.get("command") or []))
    yield "seed", "" if header.get("seed") is None else str(header["seed"])
    yield "settings", ", ".join(f"{name} {_json(value)}" for name, value in (header.get("settings") or {}).items())
    memory = machine.get("memory_bytes")
    yield "processor", f"{machine.get('processor', 'unknown')}, {machine.get('cores', '?')} cores"
    yield "memory", f"{memory / 1e9:,.1f} GB" if memory else ""
    yield "system", str(machine.get("platform", ""))
    yield "CPU features", " ".join(map(str, machine.get("flags") or []))
    yield "versions", ", ".join(f"{name} {version}" for name, version in sorted((header.get("versions") or {}).items()))
    copies = header.get("copy_bytes_per_s") or {}
    rates = [f"{rate / 1e9:.1f} GB/s at {n} thread{'s' * (n != '1')}" for n, rate in sorted(copies.items()) if rate]
    yield "plain copy", ", ".join(rates)


def _mixed_machine_notes(runs: Sequence[Run]) -> Iterator[str]:
    """A warning for runs whose parts are from different machines or versions."""
    for run in runs:
        made = {_json({name: start.get(name) for name in ("machine", "versions")}) for start in run.starts}
        if len(made) > 1:
            yield text(f"{run.folder.name}: earlier parts of it were measured elsewhere or with other versions.").text
    if len({_json(run.header.get("machine")) for run in runs}) > 1:
        yield "The runs were measured on different machines: their speeds cannot be compared."


def _models(entries: Sequence[Entry]) -> Sheet:
    columns = (
        Column("model", "model", numeric=False, identifies=True),
        *(Column(name, name, numeric=False) for name in ("level", "runtime")),
        Column("bits", "bits per weight"),
        Column("bytes", "MB"),
        Column("needed", "needs about, MB"),
        *(Column(name, heading, numeric=False) for name, heading in (("formats", "tuned for"), ("labels", "labels"))),
        *(Column(name, heading, numeric=False) for name, heading in (("sha256", "SHA-256"), ("path", "path"))),
    )
    abouts = {_json(entry.cell.about): entry.cell.about for entry in entries if entry.cell.about}
    return Sheet("models", "Models", columns, [_model(about) for about in abouts.values()])


def _model(about: Line) -> _Row:
    bits = about.get("bits_per_weight")
    return {
        **{name: text(about.get(name, "")) for name in ("model", "level", "runtime", "sha256", "path")},
        **{name: text(", ".join(map(str, about.get(name) or []))) for name in ("formats", "labels")},
        "bits": MISSING if bits is None else Value(f"{bits:.2f}", bits),
        "bytes": megabytes(about.get("bytes")),
        "needed": megabytes(about.get("needed_bytes")),
    }


def _corpora(runs: Sequence[Run]) -> Sheet:
    columns = (
        Column("corpus", "corpus", numeric=False, identifies=True),
        Column("documents", "documents"),
        Column("entities", "entities"),
        Column("license", "license", numeric=False),
        Column("sha256", "SHA-256", numeric=False),
    )
    lines = {_json(line): line for run in runs for line in run.corpora.values()}
    rows = [
        {
            **{name: text(line.get(name) or "") for name in ("corpus", "license", "sha256")},
            **{name: number(line.get(name)) for name in ("documents", "entities")},
        }
        for line in lines.values()
    ]
    notes = [note for line in lines.values() for note in _notices(line)]
    return Sheet("corpora", "Corpora", columns, rows, tuple(notes))


def _notices(line: Line) -> Iterator[str]:
    notices = line.get("notices") or []
    more = [f"{len(notices) - _MOST_NOTICES} more notices, in results.jsonl"] if len(notices) > _MOST_NOTICES else []
    for notice in [*notices[:_MOST_NOTICES], *more]:
        yield text(f"{line['corpus']}: {notice}").text


def _json(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
