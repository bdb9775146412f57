"""AMX, the tile registers of recent Xeons: which weights llama.cpp multiplies with them, and how to disable them.

llama.cpp decides once per process whether to use AMX: when the first model is loaded, whatever its settings, it
requests the registers from Linux and builds its list of weight layouts. Settings of a model do not change that list, so
`refuse` has it built early, without AMX, and then checks it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from bioner_edge.models.gguf_header import Tensor

__all__ = ["AMX", "multiplies", "refuse"]

AMX = "AMX_INT8"
"""The feature, as llama.cpp calls it."""

# Tensor type -> the number that the row length must be a multiple of (ggml-cpu/amx/amx.cpp).
_ROW_LENGTH = {"Q4_0": 32, "Q4_1": 32, "Q8_0": 32, "Q4_K": 256, "Q5_K": 256, "Q6_K": 256, "IQ4_XS": 256, "F16": 16}
_ROW_COUNT = 32  # the number of rows must be a multiple of it
_LAYOUT = "AMX"
_SMALL_STACK = 2048  # bytes: MINSIGSTKSZ, too few for a signal frame with tile registers (8 KiB more)


def multiplies(tensor: Tensor) -> bool:
    """Whether llama.cpp has AMX kernels for a tensor."""
    length = _ROW_LENGTH.get(tensor.type)
    if length is None or len(tensor.shape) < 2:
        return False
    return tensor.shape[0] % length == 0 and tensor.shape[1] % _ROW_COUNT == 0


def refuse() -> bool:
    """Disable AMX in this process from now on. Returns False if llama.cpp uses it already.

    Linux grants the registers only to a process whose alternate signal stacks can hold them
    (Documentation/arch/x86/xstate.rst). With a small stack in place the request fails; llama.cpp reports that on
    standard error and falls back to its other kernels. It is too late once a model was loaded, or another library was
    granted the registers: Linux then rejects a small stack and grants them again.
    """
    from bioner_edge.backends.native import layouts

    if sys.platform != "linux":  # no request that could fail
        return _LAYOUT not in layouts()
    with _no_signals(), _silent_stderr(), suppress(OSError), _small_signal_stack():
        layouts()
    return _LAYOUT not in layouts()


@contextmanager
def _no_signals() -> Iterator[None]:
    """Block signals: their frames would not fit into the small stack."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _small_signal_stack() -> Iterator[None]:
    """A signal stack too small for tile registers. Raises OSError if the system rejects it."""

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
    except OSError:  # no standard error
        yield
        return
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
