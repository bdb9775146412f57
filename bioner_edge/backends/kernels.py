"""Choose the matrix kernels of llama.cpp that work on this processor, found out by trying them in another process.

llama.cpp multiplies quantized weights with kernels for the processor that it was compiled on. Those for AMX, which
recent Xeons have, are broken where GCC 12.2 or an older one compiled them (llama.cpp issue 20824): it declares 8 of the
64 bytes that configure the tiles and drops the stores of the others, and the first step of two tokens ends the process
with SIGSEGV. pip compiles with `-march=native`, so every such machine has them. A name of a compiler or a processor
does not tell whether they work, a step does: it is tried once for each library file, processor and kind of weights, and
the answer is kept in the user's cache folder. A library that was not built for AMX, or a processor without it, needs no
trial.

Where a trial fails the next kernels are tried, from the fastest on:

    all      whatever llama.cpp chooses
    no-amx   the same without AMX: the repacked kernels for AVX stay
    plain    weights as the file has them, no kernels of their own layout

Only a fault of the processor, or logits that are wrong, says that kernels do not work. A trial that fails otherwise, as
where the file cannot be loaded, memory runs out or a disk is slow, says nothing, and nothing is kept of it: the next
kernels are taken without one, and if the file is to blame, loading it will say so.

AMX is for a whole process, see `amx`. So a model that AMX has no kernels for leaves it out: the next one may be one
that needs to do without. Where it does and AMX is there already, as after a model whose own kernels of AMX work, it
gets plain kernels.
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

__all__ = ["ALL", "KERNELS", "NO_AMX", "PLAIN", "WRONG", "Failed", "choose", "settle", "trial", "tried"]

ALL, NO_AMX, PLAIN = KERNELS = ("all", "no-amx", "plain")
"""From the fastest to the one that always works."""
WRONG = 3
"""The exit code of a trial whose logits are wrong."""

_FAULTS = {-signal.SIGSEGV, -signal.SIGILL, -signal.SIGBUS, -signal.SIGFPE}
_TRIAL_S = 600  # a large model on a slow disk is loaded twice


@dataclass(frozen=True, slots=True)
class Failed:
    """Why a trial failed. `certain` says that the kernels are to blame: not the file, memory or time."""

    reason: str
    certain: bool


def tried(system_info: str) -> bool:
    """Whether kernels have to be tried here, of a library of which `llama_print_system_info` says this."""
    return amx.AMX in (build_features(system_info) or ()) and amx.AMX in (processor().features or ())


def choose(model: Path, library: Path, system_info: str) -> str:
    """The fastest of `KERNELS` that work for the weights in `model`.

    `library` is the folder of llama.cpp's libraries, `system_info` what `llama_print_system_info` says of them.
    Raises ModelError where none works.
    """
    if not tried(system_info):
        return ALL
    tensors = read(model).tensors
    if not any(map(amx.multiplies, tensors)):
        return NO_AMX
    key = _key(tensors, library)
    cache = _cache_file()
    if (kept := _kept(cache).get(key)) in KERNELS:
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
    """The kernels that a model gets in this process where `kernels` were chosen for it; to be called before it is
    loaded. A model gets plain ones where AMX is to be left out of a process that has it already."""
    return PLAIN if kernels == NO_AMX and not amx.refuse() else kernels


def trial(model: Path, kernels: str) -> Failed | None:
    """Why a step of two tokens fails with these kernels, tried in a process of its own; None where it does not."""
    command = [sys.executable, "-P", "-m", "bioner_edge.backends.kernel_trial", str(model), kernels, str(os.getpid())]
    try:
        run = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_TRIAL_S)
    except subprocess.TimeoutExpired:
        return Failed(f"no answer in {_TRIAL_S} s", certain=False)
    if run.returncode == 0:
        return None
    if run.returncode < 0:
        return Failed(describe_exit(run.returncode), run.returncode in _FAULTS)
    told = run.stderr.decode(errors="replace").strip().splitlines() or [describe_exit(run.returncode)]
    return Failed(told[-1], run.returncode == WRONG)


# --- What was found before


def _key(tensors: Iterable[Tensor], library: Path) -> str:
    """What an answer holds for: library files, a processor, and weights of these types and shapes.

    What matters of a shape is by which powers of two its sides can be divided: kernels ask for multiples of up to 256
    weights in a row and 32 rows, and leave a tensor to others where it has none.
    """
    cpu = processor()
    files = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in sorted(library.glob("lib*"))]
    kinds = {(t.type, len(t.shape), gcd(t.shape[0], 256), gcd(t.shape[1], 32)) for t in tensors if len(t.shape) > 1}
    return hashlib.sha256(json.dumps([files, cpu.name, sorted(cpu.features or ()), sorted(kinds)]).encode()).hexdigest()


def _cache_file() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "bioner-edge" / "kernels.json"


def _kept(cache: Path) -> dict[str, str]:
    """The answers so far; none where the file is missing or damaged: then the trial is run again."""
    try:
        found = json.loads(cache.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _keep(cache: Path, key: str, kernels: str) -> None:
    """Add an answer; a cache that cannot be written costs a trial each time, and nothing else."""
    with suppress(OSError):
        cache.parent.mkdir(parents=True, exist_ok=True)
        partial = cache.with_name(f"{cache.name}.{os.getpid()}")
        partial.write_text(json.dumps({**_kept(cache), key: kernels}, indent=1) + "\n", "utf-8")
        os.replace(partial, cache)
