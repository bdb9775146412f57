"""A part of a run in a process of its own, so that none inherits memory, caches or a crash of another."""

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

__all__ = ["Failure", "apart", "describe_error"]

_LOOK_EVERY_S = 0.5


class Failure(Exception):
    """A process ended without a result; the message says why, in a line."""


def describe_error(error: Exception) -> str:
    """What went wrong, in a line: of what is no user's error its class and place, as its words may hold a text."""
    if isinstance(error, BionerError | Failure):
        return str(error)
    if isinstance(error, OSError) and error.strerror:  # of the system, which has no text: a disk is full, say
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    last = extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {Path(last.filename).name}:{last.lineno}, which is a defect: please report it"


def apart(module: str, spec: Mapping[str, Any], tick: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """What `python -m MODULE PARENT` answers to a JSON object on its standard input: another one. PARENT is the number
    of this process.

    `tick` is called while it works. Raises Failure where it ends in any other way. It does not outlive this call, nor
    does what it starts.
    """
    command = [sys.executable, "-P", "-m", module, str(os.getpid())]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, process_group=0) as process:
        try:
            given: bytes | None = json.dumps(spec).encode()
            while True:
                try:
                    out, told = process.communicate(given, timeout=_LOOK_EVERY_S)
                    break
                except subprocess.TimeoutExpired:
                    given = None  # it has that already
                    tick()
        except BaseException:
            kill_group(process)
            raise
    if process.returncode:
        raise Failure(_reason(process.returncode, told.decode("utf-8", "replace")))
    try:
        answer: dict[str, Any] = json.loads(out)
    except ValueError:
        raise Failure("the measuring process ended without a result") from None
    return answer


def _reason(code: int, told: str) -> str:
    """Why a process ended with an exit code, given what it said on standard error."""
    if code < 0:
        return f"ended by {describe_exit(code)}"
    lines = [line for line in told.splitlines() if line.strip()]
    return lines[-1].strip() if lines else f"ended with exit code {code} and said nothing"
