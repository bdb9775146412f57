"""The script that compares llama.cpp's kernels, on a model that takes seconds."""

from __future__ import annotations

from pathlib import Path

import pytest

from bioner_edge.backends.kernels import KERNELS
from bioner_edge.benchmarks.studies import kernels


def test_every_setting_is_a_row(tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert kernels.main([str(tiny_model), "--rounds", "1"]) == 0
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| tiny-F32 |")]
    assert [row[1] for row in rows] == [*KERNELS, "all", "all", "all"]
    assert [row[3] for row in rows] == ["ours", "ours", "ours", "asleep", "loop", "ours"]
    assert all(float(cell.strip(" |").replace(",", "")) > 0 for row in rows for cell in row[5:7])


def test_a_model_that_cannot_be_loaded_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert kernels.main([str(tmp_path / "no.gguf")]) == 2
    assert capsys.readouterr().err.startswith("kernels: ")
