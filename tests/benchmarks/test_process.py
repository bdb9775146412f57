"""Processes of their own: an answer, or a reason in one line; none outlives its caller."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from bioner_edge.benchmarks.process import Failure, apart


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that `apart("helping", …)` runs."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path / "helping.py"


def test_an_answer(module: Path) -> None:
    module.write_text("import json, sys\nprint(json.dumps({'twice': 2 * json.load(sys.stdin)['n']}))")
    assert apart("helping", {"n": 21}) == {"twice": 42}


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("import sys; sys.exit('m.gguf: damaged')", "m.gguf: damaged"),
        ("raise ValueError('what happened')", "ValueError: what happened"),
        ("import os; os.kill(os.getpid(), 9)", "killed by SIGKILL, as the kernel does where memory runs out"),
        ("import os; os.kill(os.getpid(), 6)", "killed by SIGABRT"),
        ("raise SystemExit(7)", "ended with exit code 7 and said nothing"),
        ("print('no JSON')", "the measuring process ended without a result"),
    ],
)
def test_a_reason_in_one_line(code: str, told: str, module: Path) -> None:
    module.write_text(code)
    with pytest.raises(Failure) as failure:
        apart("helping", {})
    assert str(failure.value) == told


def test_much_is_said_and_much_is_given(module: Path) -> None:
    module.write_text("import json, sys\nprint('x' * 10**6, file=sys.stderr)\nprint(json.dumps(json.load(sys.stdin)))")
    assert apart("helping", {"text": "y" * 10**6}) == {"text": "y" * 10**6}


def test_it_is_heard_while_it_works(module: Path) -> None:
    module.write_text("import time\ntime.sleep(1.2)\nprint('{}')")
    heard: list[float] = []
    assert apart("helping", {}, lambda: heard.append(time.monotonic())) == {}
    assert heard


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_it_does_not_outlive_an_interruption(module: Path) -> None:
    module.write_text(
        "import os, pathlib, time\npathlib.Path(__file__).with_name('pid').write_text(str(os.getpid()))\ntime.sleep(60)"
    )

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        apart("helping", {}, interrupt)
    told = module.with_name("pid")
    assert not told.exists() or not os.path.exists(f"/proc/{told.read_text()}")
