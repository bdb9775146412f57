"""The scripts about conversion, on models that take seconds."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from bioner_edge.benchmarks.studies import conversion, models, trimming
from bioner_edge.convert.onnx import export
from bioner_edge.errors import UsageError

Capture = pytest.CaptureFixture[str]
TINY = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_conversion(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(conversion.SHAPES, "tiny", TINY)
    assert conversion.main(["--shapes", "tiny", "--levels", "Q8_0", "--work", str(tmp_path)]) == 0
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| tiny")]
    assert [row[1] for row in rows] == ["merge", "convert", "Q8_0"]
    assert all(float(row[3].replace(",", "")) > 1 for row in rows)
    assert float(rows[2][5].strip(" |")) < float(rows[1][5].strip(" |"))
    assert list(tmp_path.iterdir()) == []
    assert conversion.main(["--shapes", "7B"]) == 2
    assert "unknown shape '7B'; known: 0.5B, 1.5B, tiny" in capsys.readouterr().err


@pytest.mark.thorough
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_conversion_by_exporters(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime_genai")
    monkeypatch.setitem(conversion.SHAPES, "tiny", TINY)
    run, settings, there = conversion._run, {}, {}

    def seen(shape: str, step: str, command: Sequence[object], product: Path, **given: Any) -> conversion.Row:
        settings[step], there[step] = given, {path.name for path in product.parent.iterdir()}
        return run(shape, step, command, product, **given)

    monkeypatch.setattr(conversion, "_run", seen)
    given = ["--shapes", "tiny", "--levels", "Q8_0", "--exporters", "builder", "--work", str(tmp_path)]
    assert conversion.main(given) == 0
    told = capsys.readouterr().out
    assert f"onnxruntime-genai {version('onnxruntime-genai')}" in told
    rows = {line.split(" | ")[1]: line.split(" | ") for line in told.splitlines() if line.startswith("| tiny")}
    assert list(rows) == ["merge", "onnx builder", "convert", "Q8_0"]
    merged, graph = (float(rows[step][5].strip(" |")) for step in ("merge", "onnx builder"))
    assert graph == pytest.approx(merged, rel=0.1), "the weights in float32, once, and a graph"
    assert float(rows["onnx builder"][3]) > 2 * merged, "torch is in that process"
    assert settings["onnx builder"]["env"].items() >= export.ALONE.items() and not settings["merge"]
    assert there["convert"] == {"base", "adapter"}, "what no later step reads is gone"
    assert list(tmp_path.iterdir()) == []


def test_an_exporter_that_cannot_be_is_refused_before_anything_is_made(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversion, "write_base", lambda *_: pytest.fail("a model was made"))
    assert conversion.main(["--exporters", "builder,nobody", "--work", str(tmp_path)]) == 2
    assert "unknown exporter 'nobody'; known: auto, builder, optimum" in capsys.readouterr().err


def test_a_step_that_fails_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"{tmp_path / 'none'}: it has no config.json"):
        conversion._export("tiny", "builder", tmp_path / "none", tmp_path / "out")
    with pytest.raises(UsageError, match="tiny onnx nobody: exit code 1"):
        conversion._run("tiny", "onnx nobody", [sys.executable, "-c", "raise SystemExit(1)"], tmp_path)


def test_an_unknown_shape_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown shape '7B'; known: 0\.5B, 1\.5B; or give a checkpoint's folder"):
        models.convert_shape("7B", tmp_path, argparse.Namespace(gguf="Q8_0", onnx=""))


def test_trimming(tiny_checkpoint: Path, tmp_path: Path, capsys: Capture) -> None:
    for name, text in (("given.jsonl", "Naloxone helps rats."), ("other.jsonl", "clonidine in the patient 🙂")):
        (tmp_path / name).write_text(json.dumps({"id": "1", "text": text}), "utf-8")
    files = [str(tmp_path / name) for name in ("given.jsonl", "other.jsonl")]
    assert trimming.main([str(tiny_checkpoint), *files]) == 0
    told = capsys.readouterr().out
    assert "tokens kept for 1 documents" in told and "running tokens are gone" in told
    assert trimming.main([str(tmp_path), *files]) == 2
