"""Processes of their own: an answer, or a reason in one line; none outlives its caller."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bioner_edge.benchmarks.process import Failure, describe_error, run_module
from bioner_edge.errors import InputError


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that `run_module("helping", …)` runs."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path / "helping.py"


def test_an_answer(module: Path) -> None:
    module.write_text("import json, sys\nprint(json.dumps({'twice': 2 * json.load(sys.stdin)['n']}))")
    assert run_module("helping", {"n": 21}) == {"twice": 42}


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("import sys; sys.exit('m.gguf: damaged')", "m.gguf: damaged"),
        ("raise ValueError('what happened')", "ValueError: what happened"),
        ("import os; os.kill(os.getpid(), 9)", "ended by SIGKILL, perhaps because memory ran out"),
        ("import os; os.kill(os.getpid(), 6)", "ended by SIGABRT"),
        ("raise SystemExit(7)", "ended with exit code 7 and said nothing"),
        ("print('no JSON')", "the measuring process ended without a result"),
    ],
)
def test_a_reason_in_one_line(code: str, told: str, module: Path) -> None:
    module.write_text(code)
    with pytest.raises(Failure) as failure:
        run_module("helping", {})
    assert str(failure.value) == told


def test_much_is_said_and_much_is_given(module: Path) -> None:
    module.write_text("import json, sys\nprint('x' * 10**6, file=sys.stderr)\nprint(json.dumps(json.load(sys.stdin)))")
    assert run_module("helping", {"text": "y" * 10**6}) == {"text": "y" * 10**6}


def test_it_is_heard_while_it_works(module: Path) -> None:
    module.write_text("import time\ntime.sleep(1.2)\nprint('{}')")
    heard: list[float] = []
    assert run_module("helping", {}, lambda: heard.append(time.monotonic())) == {}
    assert heard


def test_it_does_not_outlive_an_interruption_nor_does_what_it_started(
    module: Path, gone: Callable[[int], None], until: Callable[[Callable[[], Any]], Any]
) -> None:
    pids = begun(module)

    def interrupt() -> None:
        until(pids.exists)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_module("helping", {}, interrupt)
    for pid in pids.read_text().split():
        gone(int(pid))


def test_it_does_not_outlive_one_that_is_killed(
    module: Path, gone: Callable[[int], None], until: Callable[[Callable[[], Any]], Any]
) -> None:
    pids = begun(module, "end_with_parent(int(sys.argv[1]))")
    asking = "from bioner_edge.benchmarks.process import run_module; run_module('helping', {})"
    process = subprocess.Popen([sys.executable, "-c", asking])
    until(pids.exists)
    process.kill()
    process.wait()
    for pid in pids.read_text().split():
        gone(int(pid))


def begun(module: Path, first: str = "") -> Path:
    """A file with the numbers of the helping process and of one that it has started, once there are such."""
    module.write_text(f"""
import os, pathlib, subprocess, sys, time
from bioner_edge.processes import end_with_parent
{first}
other = subprocess.Popen(["sleep", "600"])
here = pathlib.Path(__file__)
here.with_name("new").write_text(f"{{os.getpid()}} {{other.pid}}")
here.with_name("new").rename(here.with_name("pids"))
time.sleep(600)
""")
    return module.with_name("pids")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (InputError("x.jsonl: line 3"), "x.jsonl: line 3"),
        (OSError(28, "No space left on device", "/run/results.jsonl"), "/run/results.jsonl: No space left on device"),
        (PermissionError(13, "Permission denied", "/run"), "/run: Permission denied"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (OSError("odd"), "OSError in test_process.py:"),
        (ValueError("Aspirin eased asthma."), "ValueError in test_process.py:"),
    ],
)
def test_what_went_wrong_in_one_line(error: Exception, told: str) -> None:
    try:
        raise error
    except Exception as caught:
        found = describe_error(caught)
    assert found.startswith(told) and "Aspirin" not in found
    assert ("a bug" in found) == told.endswith(":")
