"""Run a part of a benchmark in a process of its own, so that none inherits memory, caches or a crash of another."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from traceback import extract_tb
from typing import Any

from bioner_edge.errors import BionerError
from bioner_edge.processes import describe_exit, kill_group

__all__ = ["Failure", "describe_error", "run_module"]

_LOOK_EVERY_S = 0.5


class Failure(Exception):
    """A process ended without a result; the message is the reason in one line."""


def describe_error(error: Exception) -> str:
    """An error in one line: a user's error in full, any other as class and location, since its message may contain
    text."""
    if isinstance(error, BionerError | Failure):
        return str(error)
    if isinstance(error, OSError) and error.strerror:  # a system error, such as a full disk, contains no document text
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    last = extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {Path(last.filename).name}:{last.lineno}, which is a bug: please report it"


def run_module(module: str, spec: Mapping[str, Any], tick: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """The JSON object that `python -m MODULE PARENT` answers to one on its standard input. PARENT is the id of this
    process.

    `tick` is called while it works. Raises Failure where it ends without a result. The process, and those it starts, do
    not outlive this call.
    """
    command = [sys.executable, "-P", "-m", module, str(os.getpid())]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, process_group=0) as process:
        try:
            given: bytes | None = json.dumps(spec).encode()
            while True:
                try:
                    out, stderr = process.communicate(given, timeout=_LOOK_EVERY_S)
                    break
                except subprocess.TimeoutExpired:
                    given = None  # it already has the input
                    tick()
        except BaseException:
            kill_group(process)
            raise
    if process.returncode:
        raise Failure(_reason(process.returncode, stderr.decode("utf-8", "replace")))
    try:
        answer: dict[str, Any] = json.loads(out)
    except ValueError:
        raise Failure("the measuring process ended without a result") from None
    return answer


def _reason(code: int, stderr: str) -> str:
    """Why a process ended with an exit code, given its standard error."""
    if code < 0:
        return f"ended by {describe_exit(code)}"
    lines = [line for line in stderr.splitlines() if line.strip()]
    return lines[-1].strip() if lines else f"ended with exit code {code} and said nothing"
