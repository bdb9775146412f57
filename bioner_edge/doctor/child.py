"""Run Python code in a process of its own, so that a crash does not end `doctor`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import Any

from bioner_edge.errors import ModelError
from bioner_edge.processes import describe_exit, run_group

__all__ = ["MOST_S", "run_python"]

MOST_S = 60  # a busy machine can take fifty times as long: threads wait for each other


def run_python(code: str) -> Any:
    """Run Python code in a process of its own and return what it prints as JSON. Raises ModelError, with the reason, if
    it fails, and TimeoutError after MOST_S seconds."""
    begun = f"from bioner_edge.processes import end_with_parent; end_with_parent({os.getpid()}); "
    try:
        run = run_group([sys.executable, "-c", begun + code], MOST_S)
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"no answer in {MOST_S} s; is the machine busy with something else?") from None
    if run.returncode < 0:
        raise ModelError(f"its process was ended by {describe_exit(run.returncode)}")
    if run.returncode:
        last = run.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise ModelError(re.sub(r"^[\w.]+Error: ", "", last[0]) if last else f"exit code {run.returncode}")
    return json.loads(run.stdout.splitlines()[-1])
