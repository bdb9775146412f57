"""Compare llama.cpp's kernels and the cost of waiting threads on this machine: one model, all settings in turn.

    python -m bioner_edge.benchmarks.studies.kernels SOURCE... [--rounds 5] [--busy 2]

A SOURCE is a GGUF file, or a shape of `benchmarks.studies.conversion` (0.5B, 1.5B) with random weights at `--levels`.
Each is run with each of `backends.kernels.KERNELS`; with threads that sleep while waiting, as ours do, or spin, as
those of libgomp do; and with one thread. Each run is a process of its own. With `--busy N` everything is repeated
beside N processes that keep processors busy.

To compare with and without AMX, build llama.cpp on a processor that has it, with Clang, GCC 12.4, 13.3, 14 or newer, or
`CFLAGS=-fno-dse CXXFLAGS=-fno-dse` (older ones then keep the stores of the tile configuration): "all" uses AMX then.

Prints a Markdown table of medians: tokens/s of a prompt of 300 (prefill) and of 64 single tokens (decode).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bioner_edge.backends import WAITING
from bioner_edge.backends.kernels import KERNELS
from bioner_edge.backends.native import library
from bioner_edge.benchmarks.measuring import machine
from bioner_edge.benchmarks.studies import models
from bioner_edge.errors import BionerError
from bioner_edge.hardware.cpu_features import build_features
from bioner_edge.hardware.threads import cores

__all__ = ["main"]

_PROMPT, _TOKENS = 300, 64
_WAITS = {"ours": WAITING, "asleep": {"OMP_WAIT_POLICY": "passive"}, "loop": {"OMP_WAIT_POLICY": "active"}}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script. Returns 0, or 2 where a source cannot be measured."""
    parser = argparse.ArgumentParser(prog="python -m bioner_edge.benchmarks.studies.kernels", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("sources", nargs="+", metavar="SOURCE", help="a GGUF file, or 0.5B or 1.5B")
    parser.add_argument("--levels", default="Q8_0,Q4_K_M,Q4_0", help="levels of a shape [default: Q8_0,Q4_K_M,Q4_0]")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each [default: 5]")
    parser.add_argument(
        "--busy", type=int, default=0, help="processes that keep processors busy meanwhile [default: 0]"
    )
    parser.add_argument("--work", type=Path, help="where there is room for the models [default: the temporary folder]")
    parser.add_argument("--measure", nargs=3, metavar=("FILE", "KERNELS", "THREADS"), help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    try:
        if asked.measure:
            print(json.dumps(_measure(Path(asked.measure[0]), asked.measure[1], int(asked.measure[2]))))
        else:
            _report(asked)
    except (BionerError, subprocess.CalledProcessError) as error:
        print(f"kernels: {error}", file=sys.stderr)
        return 2
    return 0


def _report(asked: argparse.Namespace) -> None:
    built = ", ".join(sorted(build_features(library()[1]) or ()))
    print("\n".join(f"- {line}" for line in machine.describe(("bioner-edge", "llama-cpp-python"))))
    print(f"- llama.cpp built for {built}")
    print(f"- medians of {asked.rounds}; prefill of {_PROMPT} tokens, then {_TOKENS} one by one; settings in turn\n")
    print("| model | kernels | threads | waiting | others | prefill tokens/s | decode tokens/s |\n|" + "---|" * 7)
    with tempfile.TemporaryDirectory(dir=asked.work) as folder:
        for source in asked.sources:
            shape = argparse.Namespace(gguf=asked.levels, onnx="")
            known = Path(source).is_file()
            for path in [Path(source)] if known else models.convert_shape(source, Path(folder), shape):
                for busy in dict.fromkeys((0, asked.busy)):
                    with _busy(busy):
                        _rows(path, busy, asked.rounds)


def _rows(path: Path, busy: int, rounds: int) -> None:
    settings = [(kernels, cores(), "ours") for kernels in KERNELS]
    settings += [(KERNELS[0], cores(), "asleep"), (KERNELS[0], cores(), "loop"), (KERNELS[0], 1, "ours")]
    found: dict[tuple[str, int, str], list[list[float]]] = {setting: [] for setting in settings}
    for _ in range(rounds):
        for setting in settings:
            found[setting].append(_measure_in_process(path, *setting))
    for (kernels, threads, waiting), figures in found.items():
        medians = " | ".join(f"{statistics.median(column):,.0f}" for column in zip(*figures, strict=True))
        others = f"{busy} busy" if busy else "quiet"
        print(f"| {path.stem} | {kernels} | {threads} | {waiting} | {others} | {medians} |", flush=True)


def _measure_in_process(path: Path, kernels: str, threads: int, waiting: str) -> list[float]:
    command = [sys.executable, "-m", "bioner_edge.benchmarks.studies.kernels", "-", "--measure"]
    command += [str(path), kernels, str(threads)]
    environment = {name: value for name, value in os.environ.items() if name not in WAITING} | _WAITS[waiting]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, env=environment)
    found: list[float] = json.loads(done.stdout)
    return found


def _measure(path: Path, kernels: str, threads: int) -> list[float]:
    """Tokens/s of a prompt and of single tokens, in this process."""
    from bioner_edge.backends.llama_cpp import LlamaCpp

    with LlamaCpp(path, threads=threads, kernels=kernels) as backend:
        ids = [token for token in range(backend.vocabulary_size) if backend.piece(token)]
        ids = (ids * (_PROMPT // len(ids) + 1))[:_PROMPT]
        models.read(backend, ids[:8], 2)  # one-time costs of the runtime
        prefill, decode = models.read(backend, ids, _TOKENS)
    return [_PROMPT / prefill, _TOKENS / decode]


@contextmanager
def _busy(count: int) -> Iterator[None]:
    """Run `count` processes that only keep processors busy."""
    started = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


if __name__ == "__main__":
    raise SystemExit(main())
