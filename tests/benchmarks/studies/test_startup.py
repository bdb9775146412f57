"""The script runs and prints its table; what it measures is nobody's to assert."""

from __future__ import annotations

from pathlib import Path

import pytest

from bioner_edge.benchmarks.studies import startup


def test_table(tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    times = iter([(9.0, 1), (0.2, 1), (0.1, 1), (9.0, 1), (2.0, 80_000_000), (1.0, 70_000_000)])
    monkeypatch.setattr(startup, "_run", lambda arguments: next(times))
    assert startup.main(["--model", str(tiny_model), "--threads", "1", "--repeats", "2"]) == 0
    out = capsys.readouterr().out
    assert "| `bioner-edge --help`, s | 0.100 | 0.150 |" in out
    assert "| one abstract, from shell to result, s | 1.000 | 1.500 |" in out
    assert "| peak RSS of the run on one abstract, MB | 70 | 75 |" in out
    assert "| of it decoding, in one process, s | " in out and "tiny-F32.gguf" in out


def test_a_command_is_measured() -> None:
    seconds, rss_bytes = startup._run(["--version"])
    assert seconds > 0 and rss_bytes > 2**20


def test_a_model_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert startup.main(["--model", "no.gguf"]) == 2
    assert capsys.readouterr().err == "startup: no.gguf: no such model file\n"
