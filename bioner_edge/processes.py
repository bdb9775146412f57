"""Child processes: describe how one ended, and end it with its parent, together with its own children."""

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

_POLL_MS = 500


def describe_exit(code: int) -> str:
    """Describe an exit code of `subprocess`: "SIGSEGV", "exit code 3"."""
    if code >= 0:
        return f"exit code {code}"
    name = signal.Signals(-code).name if -code in {*signal.Signals} else f"signal {-code}"
    return f"{name}, perhaps because memory ran out" if name == "SIGKILL" else name


def kill_group(process: subprocess.Popen[Any]) -> None:
    """Kill a process that was started with `process_group=0`, and its children; it may have ended before."""
    with suppress(ProcessLookupError, PermissionError):  # macOS: for a group of zombies
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def run_group(command: Sequence[str], timeout_s: float) -> subprocess.CompletedProcess[bytes]:
    """Run a command without input and capture its output. Neither it nor its children outlive this call.

    Raises subprocess.TimeoutExpired, and OSError if it cannot be started.
    """
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, process_group=0) as process:
        try:
            out, err = process.communicate(timeout=timeout_s)
        except BaseException:
            kill_group(process)
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def end_with_parent(parent: int | None = None, connection: int | None = None) -> None:
    """Kill this process when its parent ends; if it leads a group, with the group.

    `parent` is the id of the process that started it, by default that of its current parent; give it where the starter
    may already be gone. `connection` is a socket whose other end the parent holds: once that is closed, the parent
    counts as gone too. PR_SET_PDEATHSIG of Linux does not help: to it, the parent is the thread that started a process.
    """
    threading.Thread(target=_watch, args=(parent or os.getppid(), connection), daemon=True).start()


def _watch(parent: int, connection: int | None) -> None:
    poll = select.poll()
    if connection is not None:
        poll.register(connection, select.POLLHUP)
    while os.getppid() == parent:  # a fork of the parent may hold the connection open
        if any(events & (select.POLLHUP | select.POLLERR) for _, events in poll.poll(_POLL_MS)):
            break
    end_group()


def end_group() -> NoReturn:
    """End this process at once, with its group if it leads one. The system frees memory faster than libraries do."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(0)
