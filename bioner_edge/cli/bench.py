"""`bioner-edge bench` and `bioner-edge compare`: map options to calls, print the results."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bioner_edge.cli.file_format_help import FileFormatCommand
from bioner_edge.cli.options import complain, names, print_table, write
from bioner_edge.errors import UsageError

if TYPE_CHECKING:
    from bioner_edge.benchmarks.cost import CostInputs
    from bioner_edge.benchmarks.results import Run

__all__ = ["app", "compare"]

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

Cost = Annotated[
    Path | None,
    typer.Option(
        help="TOML file with your own prices and power figures; `bench report` lists those in use. "
        "[default: benchmarks/cost.toml]",
        metavar="FILE",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress and no warnings.")]
Reference = Annotated[
    str | None,
    typer.Option(help="Level, or model, that the others are tested against. [default: the most bits per weight]"),
]
Seed = Annotated[int, typer.Option(help="Seed of the resampling behind intervals and tests.", min=0)]


@app.callback()
def bench() -> None:
    """Measure what each quantization level costs: F1 against memory, speed, energy and money."""


@app.command()
def run(
    corpus: Annotated[
        list[str],
        typer.Option(
            help="Corpus to score on: NAME:SPLIT as `bioner-edge corpora` lists it, or any annotated file or folder. "
            "May be repeated."
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(help="Folder for results and report; a run of the same settings in it is resumed.", metavar="DIR"),
    ],
    models: Annotated[
        list[str] | None,
        typer.Option(
            help="Names, GGUF files, ONNX folders, or folders of models, comma-separated. May be repeated. "
            "[default: the bundled model]"
        ),
    ] = None,
    formats: Annotated[
        str,
        typer.Option(
            help="Formats: tuned (those in each manifest), default (the first of them), all, or names, comma-separated."
        ),
    ] = "tuned",
    constraints: Annotated[
        str,
        typer.Option(help="Constraints, comma-separated: default (the manifest's), grounded, gbnf, free, baselines."),
    ] = "default",
    baselines: Annotated[
        bool,
        typer.Option(
            "--baselines",
            help="Also measure llama-gbnf (llama.cpp's grammar sampler), llama-cpp-python (its own completion and "
            "grammar) and text-filter (no constraint; surfaces that are not in the text are dropped).",
        ),
    ] = False,
    labels: Annotated[
        str | None,
        typer.Option(
            help="Entity types to ask for, comma-separated. [default: those in the manifest, else those of the corpus]"
        ),
    ] = None,
    threads: Annotated[
        str | None,
        typer.Option(
            help="Numbers of threads to time, such as 1,2,4; the process is bound to as many cores. [default: the "
            "cores of this process]"
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(help="Read only the first N documents of each corpus. [default: all]", min=1, metavar="N"),
    ] = None,
    repetitions: Annotated[
        int, typer.Option(help="How often each cell is timed; 0 skips speed and memory.", min=0)
    ] = 5,
    timed: Annotated[int, typer.Option(help="Documents read in each repetition.", min=1)] = 20,
    reference: Reference = None,
    seed: Seed = 0,
    cost: Cost = None,
    force: Annotated[
        bool, typer.Option("--force", help="Load models even if they seem larger than the free memory.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Read a corpus with each model, format and constraint, score it, time it, and report.

    Leaves results.jsonl, predictions/, counts/, report.md, report.html and plots in the folder. The same command
    resumes an interrupted run. The last line of the output is a JSON object.

    Exit code: 0 all was measured; 1 something failed and is shown as failed in the report; 2 nothing was measured.
    """
    import time

    from bioner_edge.benchmarks.baselines import BASELINES
    from bioner_edge.benchmarks.cost import CostInputs
    from bioner_edge.benchmarks.launch import RunRequest, launch
    from bioner_edge.benchmarks.suite import Settings
    from bioner_edge.terminal import Terminal

    started = time.monotonic()
    prices = CostInputs.load(cost)
    rows = [*(names("--constraints", constraints) or []), *(BASELINES if baselines else ())]
    entities = names("--labels", labels)
    settings = Settings(_numbers(threads), limit, repetitions, timed, seed, tuple(entities) if entities else None)
    named = [name for listed in models or [] for name in names("--models", listed) or []]
    asked = RunRequest(corpus, settings, named, formats, rows, reference, force, _command())
    try:
        measured, suite = launch(asked, out, Terminal(quiet=quiet))
    except KeyboardInterrupt:
        complain(f"interrupted; the same command resumes the run in {out}")
        raise typer.Exit(130) from None
    files = _report([measured], out, prices, reference)
    seconds = time.monotonic() - started
    failed = sum(cell.failed is not None for cell in measured.cells)
    summary = {"run": str(out), "cells": len(measured.cells), "failed": failed, "files": [str(file) for file in files]}
    summary |= {"seconds": round(seconds, 2), "outside_extract": round(1 - suite.extract_s / seconds, 4)}
    write(json.dumps(summary, ensure_ascii=False) + "\n")
    raise typer.Exit(int(failed > 0))


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs, shown together in one table.", metavar="RUN...")],
    out: Annotated[
        Path | None, typer.Option(help="Folder for the report. [default: the first run's]", metavar="DIR")
    ] = None,
    reference: Reference = None,
    cost: Cost = None,
) -> None:
    """Write the report of one or more runs again: tables, report.md, report.html and plots."""
    from bioner_edge.benchmarks.cost import CostInputs
    from bioner_edge.benchmarks.results import Run

    found = [Run.load(folder) for folder in runs]
    files = _report(found, out or runs[0], CostInputs.load(cost), reference)
    write(json.dumps({"runs": [str(run) for run in runs], "files": [str(file) for file in files]}) + "\n")


@app.command(cls=FileFormatCommand)
def score(
    files: Annotated[
        list[str],
        typer.Argument(
            help="Files or folders of predictions ({scored_titles}), then the corpus: NAME:SPLIT or a path.",
            metavar="PREDICTIONS... CORPUS",
        ),
    ],
    labels: Annotated[
        str | None, typer.Option(help="Score only these labels, comma-separated. [default: all labels of the corpus]")
    ] = None,
    map_: Annotated[
        str | None,
        typer.Option("--map", help="Labels that the predictions name differently, as THEIRS=OURS, comma-separated."),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(help="Score only the first N documents of the corpus. [default: all]", min=1, metavar="N"),
    ] = None,
    seed: Seed = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the scores as a run of its own, for `bench report` and `compare`.", metavar="DIR"
        ),
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the predictions in that run.")] = "predictions",
    json_: Annotated[bool, typer.Option("--json", help="Print only the JSON object.")] = False,
) -> None:
    """Score predictions of any tool against a corpus.

    Exit code: 0 all documents were scored; 1 a document has no prediction, or one of a different text, or an entity is
    not at its offsets; 2 nothing was scored.
    """
    from bioner_edge.benchmarks import external
    from bioner_edge.benchmarks.scoring.predictions import score_predictions, table
    from bioner_edge.corpora.named import open_corpus

    if len(files) < 2:
        raise UsageError("name the predictions, then the corpus: bioner-edge bench score found.jsonl bc5cdr:dev")
    *predictions, gold = files
    corpus = open_corpus(gold)
    for notice in corpus.notices:
        complain(f"warning: {notice}")
    scored = score_predictions(
        predictions, corpus.documents[:limit], names("--labels", labels) or corpus.labels, _read_map(map_)
    )
    for unused in scored.unused:
        complain(str(unused))
    figures = scored.to_json(seed)
    if not json_:
        print_table(table(figures, scored.notices))
    if out:
        external.write(out, name, corpus, scored, limit=limit, seed=seed, command=_command())
    write(json.dumps(figures, ensure_ascii=False) + "\n")
    raise typer.Exit(scored.exit_code)


def compare(
    runs: Annotated[
        list[Path], typer.Argument(help="Folders of runs; all others are compared with the first.", metavar="RUN...")
    ],
    reference: Annotated[
        str | None,
        typer.Option(
            help="Level or model in the runs that all others are compared with instead. [default: the first run; "
            "within one run, the most bits per weight]"
        ),
    ] = None,
    mode: Annotated[str, typer.Option(help="What counts as correct: strict, exact, relaxed or surface.")] = "strict",
    seed: Seed = 0,
    json_: Annotated[bool, typer.Option("--json", help="Print only the JSON object.")] = False,
) -> None:
    """Compare runs of `bench`: differences in F1 with intervals and tests, and ratios of size, memory and speed.

    Documents are resampled in pairs (paired bootstrap); p-values are adjusted for multiple comparisons (Holm). Within
    one run, cells are compared with the level that has the most bits per weight.

    Exit code: 0 everything was compared; 1 a cell could not be; 2 nothing was compared.
    """
    from bioner_edge.benchmarks.comparing.compare import compare
    from bioner_edge.benchmarks.comparing.tables import tables
    from bioner_edge.benchmarks.results import Run

    comparison = compare([Run.load(folder) for folder in runs], reference, mode=mode, seed=seed)
    for table in [] if json_ else tables(comparison):
        print_table(table)
    write(json.dumps(comparison.to_json(), ensure_ascii=False) + "\n")
    raise typer.Exit(comparison.exit_code)


def _command() -> list[str]:
    """The command line as typed, for the records."""
    return ["bioner-edge", *sys.argv[1:]]


def _read_map(text: str | None) -> dict[str, str]:
    """The pairs of --map. Raises UsageError for anything else."""
    pairs = [pair.partition("=") for pair in names("--map", text) or []]
    if bad := next((theirs for theirs, equals, ours in pairs if not (theirs and equals and ours)), None):
        raise UsageError(f"--map {text!r}: {bad!r} is not THEIRS=OURS")
    return {theirs: ours for theirs, _, ours in pairs}


def _numbers(text: str | None) -> tuple[int, ...]:
    """The numbers of threads to time, without those above this process's number of cores, which is the default.

    Raises UsageError for anything but positive numbers, and if none is left.
    """
    from bioner_edge.hardware.threads import cores

    asked = names("--threads", text) or [str(cores())]
    if bad := next((number for number in asked if not number.isdecimal() or not int(number)), None):
        raise UsageError(f"--threads {text!r}: {bad!r} is not a number of threads")
    possible = tuple(int(number) for number in asked if int(number) <= cores())
    if not possible:
        raise UsageError(f"--threads {text}: this process may use {cores()} cores")
    for number in asked:
        if int(number) not in possible:
            complain(f"warning: {number} threads are skipped: this process may use {cores()} cores")
    return possible


def _report(runs: Sequence[Run], out: Path, prices: CostInputs, reference: str | None) -> list[Path]:
    """Write the report and print its tables."""
    from bioner_edge.benchmarks import report

    files = report.write(runs, out, prices, complain, reference=reference)
    for table in report.tables(runs, prices, reference=reference):
        print_table(table)
    return files
