"""Which models fit and run in 1, 2 and 4 GB?

    python -m bioner_edge.benchmarks.studies.capped SOURCE... [--caps 1,2,4] [--gguf Q8_0,Q4_K_M] [--onnx int8,int4]

A SOURCE is a model (a listed name, a GGUF file or an ONNX folder), a checkpoint folder, or a shape of
`benchmarks.studies.conversion` (0.5B, 1.5B), a model of that shape with random weights; the last two are converted
first. Each model reads a text by `bioner-edge extract` in a memory cgroup of each size (a GB is 10⁹ bytes), where this
process may create one (Linux, mostly as root), else under `ulimit -v`, which limits address space and is stricter.

A model that seems too large is refused before loading; it is then run again with --force, to see whether that was
right. Prints a Markdown table: the estimate, then for each cap the peak resident memory or how the run ended.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import bioner_edge
from bioner_edge.benchmarks.measuring import machine
from bioner_edge.benchmarks.studies import conversion, models
from bioner_edge.errors import BionerError
from bioner_edge.models import memory, registry
from bioner_edge.models.manifest import size

__all__ = ["main"]

_COMMAND = Path(sys.executable).with_name("bioner-edge")
_NOTE = Path(bioner_edge.__file__).parent / "examples" / "note.txt"
_GROUPS = Path("/sys/fs/cgroup")
_PATIENCE_S = 600  # short of memory, a process may only page its own code in and out
_NEVER = 1000  # the exit code for a timeout
_LIBRARIES = ("bioner-edge", "llama-cpp-python", "onnxruntime")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script. Returns 0, or 2 where a source cannot be measured."""
    parser = argparse.ArgumentParser(prog="python -m bioner_edge.benchmarks.studies.capped", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("sources", nargs="+", metavar="SOURCE", help="a model, a checkpoint's folder, 0.5B or 1.5B")
    parser.add_argument("--caps", default="1,2,4", help="GB [default: 1,2,4]")
    parser.add_argument("--gguf", default="Q8_0,Q4_K_M", help="levels [default: Q8_0,Q4_K_M]")
    parser.add_argument("--onnx", default="int8,int4", help="levels [default: int8,int4]")
    parser.add_argument("--work", type=Path, help="where there is room for the models [default: the temporary folder]")
    asked = parser.parse_args(arguments)
    try:
        _report(asked)
    except (BionerError, OSError) as error:
        print(f"capped: {error}", file=sys.stderr)
        return 2
    return 0


def _report(asked: argparse.Namespace) -> None:
    caps = [float(cap) for cap in asked.caps.split(",")]
    group = _memory_group()
    how = "a memory control group" if group else "ulimit -v"
    print("\n".join(f"- {line}" for line in machine.describe(_LIBRARIES)))
    print(f"- a text of {len(_text())} characters, format multi_code; limits by {how}\n")
    print(f"| model | MB on disk | estimate MB | {' | '.join(f'{cap:g} GB' for cap in caps)} |")
    print("|---" * (len(caps) + 3) + "|")
    for source in asked.sources:
        with tempfile.TemporaryDirectory(dir=asked.work) as work:
            for path in _models(source, Path(work), asked):
                cells = [_cell(path, int(cap * 1e9), group) for cap in caps]
                about = f"{size(path) / 1e6:,.0f} | {memory.estimate(path) / 1e6:,.0f}"
                print(f"| {path.name.removesuffix('.gguf')} | {about} | {' | '.join(cells)} |", flush=True)


def _text() -> str:
    """The beginning of an example: a random model may ramble about a long text."""
    return _NOTE.read_text("utf-8")[:600]


def _models(source: str, work: Path, asked: argparse.Namespace) -> list[Path]:
    path = Path(source)
    if source in conversion.SHAPES or (path / "config.json").is_file():
        return models.convert_shape(source, work, asked)
    return [registry.find(source)[0]]


@dataclass(frozen=True, slots=True)
class _End:
    """How an extraction ended: exit code (negative: killed by that signal), last line of its output, peak RSS."""

    code: int
    message: str
    peak_bytes: int


def _cell(path: Path, cap: int, group: Path | None) -> str:
    """The table cell of a model under a limit in bytes."""
    end = _run(path, cap, group, [])
    if end.code == 2 and "of memory" in end.message:
        return f"refused (with --force: {_describe_end(_run(path, cap, group, ['--force']))})"
    return _describe_end(end)


def _describe_end(end: _End) -> str:
    if not end.code:
        return f"runs, {end.peak_bytes / 1e6:,.0f} MB"
    if end.code == _NEVER:
        return f"no end in {_PATIENCE_S // 60} minutes"
    return "killed" if end.code < 0 else f"fails ({end.message})"


def _run(path: Path, cap: int, group: Path | None, more: Sequence[str]) -> _End:
    command = [str(_COMMAND), "extract", "--model", str(path), "--quiet", *more]
    command += ["--format", "multi_code", "--labels", "Chemical,Disease"]
    with (
        _limit(group, cap) as enter,
        tempfile.TemporaryFile("w+", encoding="utf-8") as said,
        tempfile.TemporaryFile() as text,
    ):
        text.write(_text().encode())
        text.seek(0)
        process = subprocess.Popen(command, stdin=text, stdout=subprocess.DEVNULL, stderr=said, preexec_fn=enter)
        patience = threading.Timer(_PATIENCE_S, process.kill)
        patience.start()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        ended = patience.is_alive()
        patience.cancel()
        said.seek(0)
        lines = said.read().splitlines()
    return _End(process.returncode if ended else _NEVER, lines[-1] if lines else "", used.ru_maxrss * 1024)


@contextmanager
def _limit(group: Path | None, cap: int) -> Iterator[Callable[[], object]]:
    """A function for a new process to call, which limits it to `cap` bytes."""
    if group is None:
        yield lambda: resource.setrlimit(resource.RLIMIT_AS, (cap, cap))
        return
    own = group / f"bioner-edge-{os.getpid()}"
    own.mkdir()
    try:
        limits = [own / name for name in ("memory.max", "memory.limit_in_bytes") if (own / name).exists()]
        limits[0].write_text(str(cap))
        for swap in ("memory.swap.max", "memory.memsw.limit_in_bytes"):
            with suppress(OSError):  # missing where the kernel does not account swap
                (own / swap).write_text("0" if swap.endswith("max") else str(cap))
        yield lambda: (own / "cgroup.procs").write_text(str(os.getpid()))
    finally:
        own.rmdir()


def _memory_group() -> Path | None:
    """A cgroup in which groups with a memory limit can be created; None where this process may not."""
    for group in (_GROUPS / "memory", _GROUPS):
        probe = group / f"bioner-edge-probe-{os.getpid()}"
        try:
            probe.mkdir()
        except OSError:
            continue
        found = any((probe / name).exists() for name in ("memory.max", "memory.limit_in_bytes"))
        probe.rmdir()
        if found:
            return group
    return None


if __name__ == "__main__":
    raise SystemExit(main())
