"""llama.cpp or onnxruntime? The same model on both, at the levels that people use.

    python -m bioner_edge.benchmarks.studies.runtimes SOURCE... [--gguf Q8_0,Q4_K_M] [--onnx int8,int4] [--rounds 5]

A SOURCE is a checkpoint's folder, or one of the shapes of `benchmarks.studies.conversion` (0.5B, 1.5B), which stands
for a model of that shape with random weights. Each is converted, without verification, into a folder that goes away.
Then each converted model is loaded in a process of its own, in turn, `--rounds` times. It reads a prompt (`--prompt`
tokens, which are nobody's text: their number alone counts), then one token after the other (`--tokens`).

Prints a Markdown table of medians: size on disk, seconds to load, tokens/s of the prompt (prefill) and of the single
tokens (decode), resident memory at the end, what was mapped from files apart (Linux only). For onnxruntime it also says
how much longer the back end's step takes than the bare `InferenceSession.run_with_iobinding` in it, and the same for a
whole answer under the grounded constraint: the time that was not spent in the runtime.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from bioner_edge.backends import Backend
from bioner_edge.backends.loading import load_backend
from bioner_edge.benchmarks.measuring import machine
from bioner_edge.benchmarks.studies import conversion
from bioner_edge.convert import About, convert
from bioner_edge.errors import BionerError, UsageError, unknown_name
from bioner_edge.extract import Extractor
from bioner_edge.models.manifest import size

__all__ = ["convert_shape", "main", "measure", "read"]

_LIBRARIES = ("bioner-edge", "llama-cpp-python", "numpy", "onnxruntime")
_TEXT = "Naloxone reverses the antihypertensive effect of clonidine in spontaneously hypertensive rats."
_COLUMNS = (
    "load s",
    "prefill tokens/s",
    "decode tokens/s",
    "anonymous MB",
    "file-backed MB",
    "step overhead",
    "answer overhead",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """The script. Returns 0, or 2 where a source cannot be converted or measured."""
    parser = argparse.ArgumentParser(prog="python -m bioner_edge.benchmarks.studies.runtimes", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("sources", nargs="*", metavar="SOURCE", help="a checkpoint's folder, or 0.5B or 1.5B")
    parser.add_argument("--gguf", default="Q8_0,Q4_K_M", help="levels [default: Q8_0,Q4_K_M]")
    parser.add_argument("--onnx", default="int8,int4", help="levels [default: int8,int4]")
    parser.add_argument("--prompt", type=int, default=300, help="tokens of the prompt [default: 300]")
    parser.add_argument("--tokens", type=int, default=64, help="tokens read one by one [default: 64]")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each [default: 5]")
    parser.add_argument("--threads", type=int, help="threads [default: the cores of this process]")
    parser.add_argument("--work", type=Path, help="where there is room for the models [default: the temporary folder]")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)  # what the script runs in a process of its own
    asked = parser.parse_args(arguments)
    try:
        if asked.measure:
            print(json.dumps(measure(asked.measure, asked.prompt, asked.tokens, asked.threads)))
        else:
            _report(asked)
    except (BionerError, subprocess.CalledProcessError) as error:
        print(f"runtimes: {error}", file=sys.stderr)
        return 2
    return 0


def _report(asked: argparse.Namespace) -> None:
    if not asked.sources:
        raise UsageError(f"name a checkpoint's folder, or a shape: {', '.join(conversion.SHAPES)}")
    print("\n".join(f"- {line}" for line in machine.describe(_LIBRARIES)))
    print(f"- medians of {asked.rounds}; a prompt of {asked.prompt} tokens, then {asked.tokens}; models in turn\n")
    print(f"| model | MB on disk | {' | '.join(_COLUMNS)} |\n|{'---|' * (len(_COLUMNS) + 2)}")
    settings = ["--prompt", str(asked.prompt), "--tokens", str(asked.tokens)]
    settings += ["--threads", str(asked.threads)] if asked.threads else []
    for source in asked.sources:
        with tempfile.TemporaryDirectory(dir=asked.work) as folder:
            paths = convert_shape(source, Path(folder), asked)
            rows: dict[Path, list[dict[str, float]]] = {path: [] for path in paths}
            for _ in range(asked.rounds):
                for path in paths:
                    rows[path].append(_apart(path, settings))
            for path, found in rows.items():
                cells = [_cell(name, [row[name] for row in found if name in row]) for name in _COLUMNS]
                shown = path.name.removesuffix(".gguf")
                print(f"| {shown} | {size(path) / 1e6:,.1f} | {' | '.join(cells)} |", flush=True)


def convert_shape(source: str, work: Path, asked: argparse.Namespace) -> list[Path]:
    """The models of a source at each level, not verified."""
    base = Path(source)
    if source in conversion.SHAPES:
        base = work / source
        conversion.write_base(base, {**conversion.COMMON, **conversion.SHAPES[source]})
    elif not base.is_dir():
        raise UsageError(f"{unknown_name('shape', source, conversion.SHAPES)}; or give a checkpoint's folder")
    about, paths = About.of([base]), []
    for to, levels in (("gguf", asked.gguf), ("onnx", asked.onnx)):
        wanted = [level for level in levels.split(",") if level]
        paths += convert(base, work / "out", wanted, about, to=to, check=False) if wanted else []
    return paths


def _apart(path: Path, settings: Sequence[str]) -> dict[str, float]:
    command = [sys.executable, "-m", "bioner_edge.benchmarks.studies.runtimes", "--measure", str(path), *settings]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _cell(name: str, values: Sequence[float]) -> str:
    if not values:
        return "–"
    value = statistics.median(values)
    return f"{value:.1%}" if "overhead" in name else f"{value:.2f}" if name.endswith(" s") else f"{value:,.0f}"


def measure(path: Path, prompt: int, tokens: int, threads: int | None = None) -> dict[str, float]:
    """What the table has of one model, measured in this process."""
    started = time.perf_counter()
    with closing(load_backend(path, threads=threads)) as backend:
        loaded = time.perf_counter() - started
        ids = [token for token in range(backend.vocabulary_size) if backend.piece(token)]
        ids = (ids * (prompt // len(ids) + 1))[:prompt]
        read(backend, ids[:8], 2)  # what a runtime does once only
        prefill, decode = read(backend, ids, tokens)
        memory = machine.resident("self")
        found = {
            "load s": loaded,
            "prefill tokens/s": prompt / prefill,
            "decode tokens/s": tokens / decode,
            "anonymous MB": memory["RssAnon"] / 1e6,
            "file-backed MB": memory["RssFile"] / 1e6,
        }
        if path.is_dir():
            found |= _overheads(backend, ids, tokens)
        return found


def read(backend: Backend, ids: Sequence[int], tokens: int) -> tuple[float, float]:
    """Seconds of reading a prompt, and of `tokens` more, one by one."""
    sequence = backend.new_sequence()
    started = time.perf_counter()
    backend.eval(sequence, ids)
    read = time.perf_counter()
    for number in range(tokens):
        backend.eval(sequence, [ids[number % len(ids)]])
    ended = time.perf_counter()
    backend.release(sequence)
    return read - started, ended - read


def _overheads(backend: Backend, ids: Sequence[int], tokens: int) -> dict[str, float]:
    """What is added to the runtime's own time, as a share of it: in single steps, and in a whole answer."""
    from onnxruntime import InferenceSession

    with _timed(InferenceSession, "run_with_iobinding") as spent:
        sequence = backend.new_sequence()
        backend.eval(sequence, ids)
        spent.clear()
        started = time.perf_counter()
        for number in range(tokens):
            backend.eval(sequence, [ids[number % len(ids)]])
        step = (time.perf_counter() - started) / sum(spent) - 1
        backend.release(sequence)
        extractor = Extractor(backend, format="multi_tag", labels=["Chemical", "Disease"], unit="sentence")
        spent.clear()
        started = time.perf_counter()
        extractor(_TEXT)
        answer = (time.perf_counter() - started) / sum(spent) - 1
    return {"step overhead": step, "answer overhead": answer}


@contextmanager
def _timed(owner: Any, name: str) -> Iterator[list[float]]:
    """The seconds of each call of a class's method, while it lasts."""
    inner: Callable[..., Any] = getattr(owner, name)
    spent: list[float] = []

    def timed(*arguments: Any, **more: Any) -> Any:
        started = time.perf_counter()
        try:
            return inner(*arguments, **more)
        finally:
            spent.append(time.perf_counter() - started)

    setattr(owner, name, timed)
    try:
        yield spent
    finally:
        setattr(owner, name, inner)


if __name__ == "__main__":
    raise SystemExit(main())
