"""Choose the matrix kernels of llama.cpp that work on this processor, found out by trying them in another process.

llama.cpp multiplies quantized weights with kernels for the processor that it was compiled on. Those for AMX, which
recent Xeons have, are broken where GCC 12.2 or an older one compiled them (llama.cpp issue 20824): it declares 8 of the
64 bytes that configure the tiles and drops the stores of the others, and the first step of two tokens ends the process
with SIGSEGV. pip compiles with `-march=native`, so every such machine has them. A name of a compiler or a processor
does not tell whether they work, a step does: it is tried once for each library file, processor and set of weight types,
and the answer is kept in the user's cache folder. A library that was not built for AMX, or a processor without it,
needs no trial.

Where a trial fails the next kernels are tried, from the fastest on:

    all      whatever llama.cpp chooses
    no-amx   the same without AMX: the repacked kernels for AVX stay
    plain    weights as the file has them, no kernels of their own layout
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bioner_edge.errors import ModelError
from bioner_edge.hardware.cpu_features import of_build, processor
from bioner_edge.models.gguf_header import read

__all__ = ["KERNELS", "choose", "loading", "trial"]

KERNELS = ("all", "no-amx", "plain")
"""From the fastest to the one that always works."""

_AMX = "AMX_INT8"
_TRIAL_S = 600  # a large model on a slow disk is loaded twice
_SMALL_STACK = 2048  # bytes: MINSIGSTKSZ, too few for a signal frame with tile registers (8 KiB more)


def choose(model: Path, library: Path, system_info: str) -> str:
    """The fastest of `KERNELS` that work for the weights in `model`.

    `library` is the folder of llama.cpp's libraries, `system_info` what `llama_print_system_info` says of them.
    Raises ModelError where none works.
    """
    if _AMX not in (of_build(system_info) or ()) or _AMX not in (processor().features or ()):
        return KERNELS[0]
    key = _key(model, library)
    cache = _cache_file()
    if (kept := _kept(cache).get(key)) in KERNELS:
        return kept
    for kernels in KERNELS:
        if (reason := trial(model, kernels)) is None:
            _keep(cache, key, kernels)
            return kernels
    raise ModelError(f"{model}: no kernels of llama.cpp work on this processor: {reason}; take an ONNX model")


def trial(model: Path, kernels: str) -> str | None:
    """Why a step of two tokens fails with these kernels, tried in a process of its own; None where it does not."""
    command = [sys.executable, "-P", "-m", "bioner_edge.backends.kernel_trial", str(model), kernels]
    try:
        run = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_TRIAL_S)
    except subprocess.TimeoutExpired:
        return f"no answer in {_TRIAL_S} s"
    if run.returncode == 0:
        return None
    if run.returncode < 0:
        return f"signal {-run.returncode}"
    return (run.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {run.returncode}"])[-1]


@contextmanager
def loading(kernels: str) -> Iterator[bool]:
    """Load a model inside: yields whether llama.cpp may lay weights out anew, its `use_extra_bufts`.

    Without AMX: Linux grants the tile registers only to a process whose alternate signal stacks could hold them
    (Documentation/arch/x86/xstate.rst), and llama.cpp asks for them once, when the first model is loaded. With a small
    stack meanwhile it is told no, says so on standard error, and goes on with its other kernels.
    """
    if kernels != "no-amx":
        yield kernels == "all"
        return
    with _no_signals(), _small_signal_stack(), _silent_stderr():
        yield True


@contextmanager
def _no_signals() -> Iterator[None]:
    """Signals wait meanwhile: their frames would not fit into the small stack."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _small_signal_stack() -> Iterator[None]:
    class Stack(ctypes.Structure):  # stack_t
        _fields_ = (("sp", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))

    libc = ctypes.CDLL(None, use_errno=True)
    memory = ctypes.create_string_buffer(_SMALL_STACK)
    small, before = Stack(ctypes.addressof(memory), 0, _SMALL_STACK), Stack()
    if libc.sigaltstack(ctypes.byref(small), ctypes.byref(before)):
        raise OSError(ctypes.get_errno(), "sigaltstack")
    try:
        yield
    finally:
        libc.sigaltstack(ctypes.byref(before), None)


@contextmanager
def _silent_stderr() -> Iterator[None]:
    try:
        kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    except OSError:  # there is none
        yield
        return
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


# --- What was found before


def _key(model: Path, library: Path) -> str:
    """What an answer holds for: library files, a processor, the types of the weights."""
    cpu = processor()
    files = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in sorted(library.glob("lib*"))]
    types = sorted({tensor.type for tensor in read(model).tensors})
    return hashlib.sha256(json.dumps([files, cpu.name, sorted(cpu.features or ()), types]).encode()).hexdigest()


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
