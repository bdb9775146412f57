"""Choose the fastest matrix kernels of llama.cpp that work on this processor, by trying them in another process.

llama.cpp multiplies quantized weights with kernels for the processor that it was compiled on. Those for AMX, which
recent Xeons have, are broken if compiled by GCC 12.2 or older (llama.cpp issue 20824): it declares 8 of the 64 bytes
that configure the tiles and drops the stores of the others, and the first step of two tokens crashes the process with
SIGSEGV. pip compiles with `-march=native`, so every such machine has them. Whether they work does not follow from the
compiler or the processor, so a step is tried once for each library file, processor and kind of weights, and the result
is kept in the user's cache folder. A library built without AMX, or a processor without it, needs no trial.

If a trial fails, the next kernels are tried, from the fastest on:

    all      whatever llama.cpp chooses
    no-amx   the same without AMX: the repacked kernels for AVX stay
    plain    weights in the layout of the file, no repacked kernels

Only a crash of the processor, or wrong logits, shows that kernels do not work. A trial that fails otherwise (the file
cannot be loaded, memory runs out, a disk is slow) shows nothing and is not cached: the next kernels are then taken
without a trial, and if the file is to blame, loading it will say so.

AMX is enabled for a whole process, see `amx`. So a model without AMX kernels disables it, since the next one may have
to run without it. A model that must do without AMX in a process that uses it already gets plain kernels.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from math import gcd
from pathlib import Path

from bioner_edge.backends import amx
from bioner_edge.errors import ModelError
from bioner_edge.hardware.cpu_features import build_features, processor
from bioner_edge.models.gguf_header import Tensor, read
from bioner_edge.processes import describe_exit

__all__ = ["ALL", "KERNELS", "NO_AMX", "PLAIN", "WRONG", "FailedTrial", "choose", "needs_trial", "settle", "trial"]

ALL, NO_AMX, PLAIN = KERNELS = ("all", "no-amx", "plain")
"""From the fastest to the one that always works."""
WRONG = 3
"""The exit code of a trial with wrong logits."""

_CRASH_SIGNALS = {-signal.SIGSEGV, -signal.SIGILL, -signal.SIGBUS, -signal.SIGFPE}
_TRIAL_S = 600  # a large model on a slow disk is loaded twice


@dataclass(frozen=True, slots=True)
class FailedTrial:
    """Why a trial failed. `certain` means that the kernels are to blame, not the file, memory or time."""

    reason: str
    certain: bool


def needs_trial(system_info: str) -> bool:
    """Whether kernels must be tried here, given `llama_print_system_info` of the library."""
    return amx.AMX in (build_features(system_info) or ()) and amx.AMX in (processor().features or ())


def choose(model: Path, library: Path, system_info: str) -> str:
    """The fastest of `KERNELS` that work for the weights in `model`.

    `library` is the folder of llama.cpp's libraries, `system_info` their `llama_print_system_info`. Raises ModelError
    if none work.
    """
    if not needs_trial(system_info):
        return ALL
    tensors = read(model).tensors
    if not any(map(amx.multiplies, tensors)):
        return NO_AMX
    key = _key(tensors, library)
    cache = _cache_file()
    if (kept := _read_cache(cache).get(key)) in KERNELS:
        return kept
    reason = ""
    for kernels, next_ones in zip(KERNELS, (*KERNELS[1:], PLAIN), strict=True):
        if (failed := trial(model, kernels)) is None:
            _keep(cache, key, kernels)
            return kernels
        if not failed.certain:
            return next_ones
        reason = failed.reason
    raise ModelError(f"{model}: no kernels of llama.cpp work on this processor: {reason}; take an ONNX model")


def settle(kernels: str) -> str:
    """The kernels to load a model with in this process, given those chosen for it; call it before loading. These are
    the plain ones if AMX must be avoided in a process that uses it already."""
    return PLAIN if kernels == NO_AMX and not amx.refuse() else kernels


def trial(model: Path, kernels: str) -> FailedTrial | None:
    """Run a step of two tokens with these kernels in a process of its own; returns why it failed, or None."""
    command = [sys.executable, "-P", "-m", "bioner_edge.backends.kernel_trial", str(model), kernels, str(os.getpid())]
    try:
        run = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_TRIAL_S)
    except subprocess.TimeoutExpired:
        return FailedTrial(f"no answer in {_TRIAL_S} s", certain=False)
    if run.returncode == 0:
        return None
    if run.returncode < 0:
        return FailedTrial(describe_exit(run.returncode), run.returncode in _CRASH_SIGNALS)
    lines = run.stderr.decode(errors="replace").strip().splitlines() or [describe_exit(run.returncode)]
    return FailedTrial(lines[-1], run.returncode == WRONG)


# --- The cache of results


def _key(tensors: Iterable[Tensor], library: Path) -> str:
    """The key of a result: the library files, the processor, and the types and shapes of the weights.

    Of a shape, only the powers of two that divide its sides matter: kernels need multiples of up to 256 weights per row
    and 32 rows, and leave other tensors to other kernels.
    """
    cpu = processor()
    files = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in sorted(library.glob("lib*"))]
    kinds = {(t.type, len(t.shape), gcd(t.shape[0], 256), gcd(t.shape[1], 32)) for t in tensors if len(t.shape) > 1}
    return hashlib.sha256(json.dumps([files, cpu.name, sorted(cpu.features or ()), sorted(kinds)]).encode()).hexdigest()


def _cache_file() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "bioner-edge" / "kernels.json"


def _read_cache(cache: Path) -> dict[str, str]:
    """The results so far; empty if the file is missing or damaged, so that the trial runs again."""
    try:
        found = json.loads(cache.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _keep(cache: Path, key: str, kernels: str) -> None:
    """Add a result; a cache that cannot be written only costs a trial each time."""
    with suppress(OSError):
        cache.parent.mkdir(parents=True, exist_ok=True)
        partial = cache.with_name(f"{cache.name}.{os.getpid()}")
        partial.write_text(json.dumps({**_read_cache(cache), key: kernels}, indent=1) + "\n", "utf-8")
        os.replace(partial, cache)
