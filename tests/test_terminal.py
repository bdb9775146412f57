"""What long work tells on standard error, on a terminal and in a pipe."""

from __future__ import annotations

import subprocess
import sys

import pytest

from bioner_edge.report import Figure, Report
from bioner_edge.terminal import Terminal

Capture = pytest.CaptureFixture[str]


def test_figures_say_whether_they_hold(capsys: Capture) -> None:
    report = Terminal()
    report.step("begin\x1b[2J")
    report.figure(Figure("a", 0.5, 1.0))
    report.figure(Figure("b", 0.5, 1.0, at_least=True))
    report.figure(Figure("c", float("nan"), 1.0))
    report.figure(Figure("d", 0.25))
    assert capsys.readouterr().err.splitlines() == [
        "begin\ufffd[2J", "  ✓ a: 0.5 (at most 1)", "  ✗ b: 0.5 (at least 1)", "  ✗ c: nan (at most 1)", "  - d: 0.25",
    ]  # fmt: skip


def draw_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard error is a terminal of 60 columns, on which each advance is drawn."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setattr("bioner_edge.terminal._EVERY_S", 0.0)
    for name, value in {"TERM": "xterm", "COLUMNS": "60", "TTY_COMPATIBLE": "1"}.items():
        monkeypatch.setenv(name, value)


def test_messages_stand_above_the_bar_and_the_bar_is_wiped(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_all(monkeypatch)
    report, before = Terminal(prefix="bioner-edge: "), sys.stderr
    long = "a message that is longer than the terminal is wide, " * 3
    with report.progress("[red]tensors\x1b[2J", 24, "tensors") as advance:
        advance(12)
        assert "[red]tensors\ufffd[2J" in (drawn := capsys.readouterr().err) and "12/24 tensors" in drawn
        report.warning("one")
        assert "\x1b[2Kbioner-edge: warning: one\n" in capsys.readouterr().err
        report.figure(Figure("a", 0.5, 1.0))
        print(long, file=sys.stderr)
        assert f"\x1b[2K{long}\n" in capsys.readouterr().err
    assert sys.stderr is before
    end = capsys.readouterr().err
    assert end.endswith("\x1b[2K") and "\x1b[?25h" in end


def test_an_interruption_leaves_a_clean_line_and_the_cursor(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_all(monkeypatch)
    with pytest.raises(KeyboardInterrupt), Terminal().progress("a", 9, "bytes") as advance:
        advance(3)
        raise KeyboardInterrupt
    drawn = capsys.readouterr().err
    assert drawn.endswith("\x1b[2K") and drawn.count("\x1b[?25l") == drawn.count("\x1b[?25h") == 1


@pytest.mark.parametrize("setting", ["quiet", "no bar", "dumb", "pipe"])
def test_where_no_bar_is_drawn(capsys: Capture, monkeypatch: pytest.MonkeyPatch, setting: str) -> None:
    draw_all(monkeypatch)
    if setting == "dumb":
        monkeypatch.setenv("TERM", "dumb")
    if setting == "pipe":
        monkeypatch.setattr("sys.stderr.isatty", lambda: False)
    report = Terminal(quiet=setting == "quiet", bar=setting != "no bar")
    with report.progress("b", 2) as advance:
        report.step("a")
        advance()
        report.step("c")
    assert capsys.readouterr().err == ("" if setting == "quiet" else "a\nc\n")


def test_one_that_says_nothing(capsys: Capture) -> None:
    report = Report()
    report.step("a")
    report.warning("b")
    report.figure(Figure("c", 1.0))
    with report.progress("d", 2) as advance:
        advance(1, "note")
    assert capsys.readouterr() == ("", "")


def test_rich_is_loaded_once_something_is_drawn() -> None:
    code = """
import sys
from bioner_edge.terminal import Terminal
sys.stderr.isatty = lambda: True
report = Terminal()
report.step("a")
with report.progress("b", 2) as advance:
    advance()
print([name for name in sys.modules if name.split(".")[0] == "rich"])
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
