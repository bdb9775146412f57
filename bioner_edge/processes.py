"""Processes that this one starts: how one ended, in words; none outlives the one that started it, nor do its own."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NoReturn

__all__ = ["describe_exit", "end_group", "end_with_parent", "kill_group", "run_group"]

_LOOK_EVERY_MS = 500


def describe_exit(code: int) -> str:
    """What an exit code of `subprocess` says: "SIGSEGV", "exit code 3"."""
    if code >= 0:
        return f"exit code {code}"
    name = signal.Signals(-code).name if -code in {*signal.Signals} else f"signal {-code}"
    return f"{name}, perhaps because memory ran out" if name == "SIGKILL" else name


def kill_group(process: subprocess.Popen[Any]) -> None:
    """End a process that was started with `process_group=0`, and whatever it has started; it may have ended before."""
    with suppress(ProcessLookupError, PermissionError):  # macOS: of a group that has nothing but the dead
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def run_group(command: Sequence[str], timeout_s: float) -> subprocess.CompletedProcess[bytes]:
    """Run a command without an input, and keep what it prints. It and what it has started do not outlive this call.

    Raises subprocess.TimeoutExpired, and OSError where it cannot be started.
    """
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, process_group=0) as process:
        try:
            out, told = process.communicate(timeout=timeout_s)
        except BaseException:
            kill_group(process)
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, told)


def end_with_parent(parent: int | None = None, connection: int | None = None) -> None:
    """From now on this process is killed when its parent is gone; one that leads a group, with the group.

    `parent` is the number of the process that started it, by default that of the one it has now: it might be gone
    already. `connection` is a socket whose other end the parent holds: when that is closed the parent has gone too. The
    system could do it (PR_SET_PDEATHSIG on Linux), but for it a parent is the thread that started a process.
    """
    threading.Thread(target=_watch, args=(parent or os.getppid(), connection), daemon=True).start()


def _watch(parent: int, connection: int | None) -> None:
    poll = select.poll()
    if connection is not None:
        poll.register(connection, select.POLLHUP)
    while os.getppid() == parent:  # another end of the connection may live on in a fork of the parent
        if any(events & (select.POLLHUP | select.POLLERR) for _, events in poll.poll(_LOOK_EVERY_MS)):
            break
    end_group()


def end_group() -> NoReturn:
    """End this process at once; where it leads a group, with whatever it has started. The system frees faster than
    libraries do."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(0)
