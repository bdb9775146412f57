"""Startup time from shell to result: the help, and the entities of one abstract.

    python -m bioner_edge.benchmarks.studies.startup [--model NAME_OR_FILE] [--threads N] [--repeats N]

Prints a Markdown table, with the machine and the versions above it. Every command runs once before measuring, so that
files come from the page cache. Peak RSS is the kernel's figure for the finished process; loading and decoding are
separated by running the same abstract in this process, with a newly loaded model each time.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import bioner_edge
from bioner_edge.benchmarks.measuring import machine
from bioner_edge.errors import BionerError
from bioner_edge.io.reading import read_file
from bioner_edge.models import registry
from bioner_edge.models.manifest import digest, size

__all__ = ["main"]

_COMMAND = Path(sys.executable).with_name("bioner-edge")
_EXAMPLE = Path(bioner_edge.__file__).parent / "examples" / "abstracts.pubtator"
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes there, in KiB on Linux


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script. Returns 0, or 2 where there is no model to measure or it fails."""
    parser = argparse.ArgumentParser(
        prog="python -m bioner_edge.benchmarks.studies.startup", description="Waiting times."
    )
    parser.add_argument(
        "--model", help="a listed model's name or a GGUF file with a manifest [default: the bundled one]"
    )
    parser.add_argument("--threads", type=int, default=None, help="threads [default: the cores of this process]")
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each [default: 5]")
    asked = parser.parse_args(arguments)
    try:
        _report(asked.model, asked.threads, asked.repeats)
    except (BionerError, subprocess.CalledProcessError) as error:
        print(f"startup: {error}", file=sys.stderr)
        return 2
    return 0


def _report(model: str | None, threads: int | None, repeats: int) -> None:
    path, _ = registry.find(model)
    text = next(iter(read_file(_EXAMPLE, lambda notice: None))).text
    with tempfile.TemporaryDirectory() as folder:
        abstract = Path(folder) / "abstract.txt"
        abstract.write_text(text, "utf-8")
        extract = ["extract", str(abstract), "--model", str(path)]
        if threads:
            extract += ["--threads", str(threads)]
        helps = _measure(["--help"], repeats)
        runs = _measure(extract, repeats)
    # Only now: a child's peak RSS is at least that of its parent, so this process was kept small.
    loading, decoding = _in_process(path, text, threads, repeats)

    print("\n".join(f"- {line}" for line in _machine(path, threads)))
    print(f"- abstract: {len(text)} characters; {repeats} measurements of each, after one that does not count\n")
    print("| | best | median |\n|---|---|---|")
    _row("`bioner-edge --help`, s", [seconds for seconds, _ in helps])
    _row("one abstract, from shell to result, s", [seconds for seconds, _ in runs])
    _row("of it loading, in one process, s", loading)
    _row("of it decoding, in one process, s", decoding)
    _row("peak RSS of the run on one abstract, MB", [rss_bytes / 1e6 for _, rss_bytes in runs])


def _row(name: str, values: Sequence[float]) -> None:
    digits = 0 if min(values) >= 10 else 3
    print(f"| {name} | {min(values):.{digits}f} | {statistics.median(values):.{digits}f} |")


def _measure(arguments: Sequence[str], repeats: int) -> list[tuple[float, int]]:
    """(wall time in s, peak RSS in bytes) of each run of the command except the first."""
    return [_run(arguments) for _ in range(repeats + 1)][1:]


def _run(arguments: Sequence[str]) -> tuple[float, int]:
    started = time.perf_counter()
    process = subprocess.Popen([_COMMAND, *arguments], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)  # otherwise Popen would wait for it again
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, [_COMMAND.name, *arguments])
    return seconds, used.ru_maxrss * _RSS_UNIT


def _in_process(path: Path, text: str, threads: int | None, repeats: int) -> tuple[list[float], list[float]]:
    """Seconds of loading and of decoding, without the first run, which also imports the runtime."""
    loading, decoding = [], []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        with bioner_edge.load(path, threads=threads) as extractor:
            loaded = time.perf_counter()
            extractor(text)
            decoding.append(time.perf_counter() - loaded)
        loading.append(loaded - started)
    return loading[1:], decoding[1:]


def _machine(path: Path, threads: int | None) -> list[str]:
    model = f"{path.name}, {size(path) / 1e6:.1f} MB, SHA-256 {digest(path)[:12]}…"
    return [
        *machine.describe(("bioner-edge", "llama-cpp-python", "numpy")),
        f"{model}; threads: {threads or 'as many as cores'}",
    ]


if __name__ == "__main__":
    raise SystemExit(main())
