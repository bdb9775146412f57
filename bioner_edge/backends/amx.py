"""AMX, the tile registers of recent Xeons: which weights llama.cpp multiplies with them, and how it is kept from it.

llama.cpp decides once in a process whether it uses AMX: when the first model is loaded, whatever its settings, it asks
Linux for the registers, and makes the list of the layouts that weights may have. So it is never enough to know what is
right for a model: what counts is that list, which `refuse` makes early, and then reads.
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

# A type of weights -> what the length of a row is a multiple of, as ggml-cpu/amx/amx.cpp asks.
_ROW_LENGTH = {"Q4_0": 32, "Q4_1": 32, "Q8_0": 32, "Q4_K": 256, "Q5_K": 256, "Q6_K": 256, "IQ4_XS": 256, "F16": 16}
_ROW_COUNT = 32  # what the number of rows is a multiple of
_LAYOUT = "AMX"
_SMALL_STACK = 2048  # bytes: MINSIGSTKSZ, too few for a signal frame with tile registers (8 KiB more)


def multiplies(tensor: Tensor) -> bool:
    """Whether llama.cpp has kernels of AMX for a tensor."""
    length = _ROW_LENGTH.get(tensor.type)
    if length is None or len(tensor.shape) < 2:
        return False
    return tensor.shape[0] % length == 0 and tensor.shape[1] % _ROW_COUNT == 0


def refuse() -> bool:
    """Keep AMX out of this process from now on; False where llama.cpp has it already.

    Linux grants the registers only to a process whose alternate signal stacks could hold them
    (Documentation/arch/x86/xstate.rst). With a small stack meanwhile llama.cpp is told no, says so on standard error,
    and goes on with its other kernels. It is too late where a model was loaded, or another library has been granted
    them: Linux then takes no small stack, and says yes again.
    """
    from bioner_edge.backends.native import layouts

    if sys.platform != "linux":  # nobody can be told no
        return _LAYOUT not in layouts()
    with _no_signals(), _silent_stderr(), suppress(OSError), _small_signal_stack():
        layouts()
    return _LAYOUT not in layouts()


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
    """Raises OSError where the system takes none as small."""

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
