"""Shared parts of studies: models of a shape with random weights, and the time to read with one."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from bioner_edge.backends import Backend
from bioner_edge.benchmarks.studies import conversion
from bioner_edge.convert import About, convert
from bioner_edge.errors import UsageError, unknown_name

__all__ = ["convert_shape", "read"]


def convert_shape(source: str, work: Path, asked: argparse.Namespace) -> list[Path]:
    """The unverified models of a source at each level of `asked.gguf` and `asked.onnx`. A source is a checkpoint folder
    or a shape of `conversion`. Raises UsageError for any other."""
    base = Path(source)
    if source in conversion.SHAPES:
        base = work / source
        conversion.write_base(base, {**conversion.COMMON, **conversion.SHAPES[source]})
    elif not base.is_dir():
        raise UsageError(f"{unknown_name('shape', source, conversion.SHAPES)}; or give a checkpoint's folder")
    about, paths = About.of([base]), []
    for to, levels in (("gguf", asked.gguf), ("onnx", asked.onnx)):
        chosen = [level for level in levels.split(",") if level]
        paths += convert(base, work / "out", chosen, about, to=to, check=False) if chosen else []
    return paths


def read(backend: Backend, ids: Sequence[int], tokens: int) -> tuple[float, float]:
    """Seconds to read a prompt, and `tokens` more, one by one."""
    sequence = backend.new_sequence()
    started = time.perf_counter()
    backend.eval(sequence, ids)
    read = time.perf_counter()
    for number in range(tokens):
        backend.eval(sequence, [ids[number % len(ids)]])
    ended = time.perf_counter()
    backend.release(sequence)
    return read - started, ended - read
