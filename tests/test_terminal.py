"""What a conversion tells on standard error, on a terminal and in a pipe."""

from __future__ import annotations

import pytest

from bioner_edge.report import Figure
from bioner_edge.terminal import Terminal

Capture = pytest.CaptureFixture[str]


def test_figures_say_whether_they_hold(capsys: Capture) -> None:
    with Terminal() as report:
        report.step("begin\x1b[2J")
        report.figure(Figure("a", 0.5, 1.0))
        report.figure(Figure("b", 0.5, 1.0, at_least=True))
        report.figure(Figure("c", float("nan"), 1.0))
        report.figure(Figure("d", 0.25))
        report.progress("tensors", 1, 2)  # nobody looks at a pipe while it fills
    assert capsys.readouterr().err.splitlines() == [
        "begin\ufffd[2J", "  ✓ a: 0.5 (at most 1)", "  ✗ b: 0.5 (at least 1)", "  ✗ c: nan (at most 1)", "  - d: 0.25",
    ]  # fmt: skip


def test_progress_is_drawn_on_a_terminal_and_wiped(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with Terminal() as report:
        report.progress("tensors", 12, 24)
        report.progress("tensors", 13, 24)  # too soon after the first
        report.step("done")
    drawn = capsys.readouterr().err
    assert "\r  tensors ━━━━━━━━━━━━             12/24\x1b[K" in drawn and "13/24" not in drawn
    assert drawn.index("12/24") < drawn.index("\r\x1b[K") < drawn.index("done")


def test_quiet(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with Terminal(quiet=True) as report:
        report.step("a")
        report.progress("b", 1, 2)
        report.figure(Figure("c", 1.0))
    assert capsys.readouterr().err == ""
