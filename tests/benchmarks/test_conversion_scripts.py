"""The scripts about conversion, on models that take seconds."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

from bioner_edge.benchmarks import conversion, fidelity, trimming
from bioner_edge.convert import About, convert

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


def test_fidelity(tiny_model: Path, tmp_path: Path, capsys: Capture) -> None:
    gold = tmp_path / "gold.jsonl"
    entity = {"start": 0, "end": 8, "label": "Chemical"}
    gold.write_text(json.dumps({"id": "1", "text": "Naloxone helps.", "entities": [entity]}), "utf-8")
    asked = fidelity.examples(tiny_model, gold, 5)
    assert len(asked) == 1 and 0 < asked[0].answer < len(asked[0].ids) - 5
    (same,) = fidelity.rows(tiny_model, [tiny_model], asked)
    assert same.divergence == (0.0, 0.0) and same.agreement == (1.0, 1.0)
    made = convert(tiny_model.parent / "checkpoint", tmp_path, ["Q8_0", "Q4_0"], About(name="m"), check=False)
    eight, four = fidelity.rows(tiny_model, made, asked)
    assert 0 < eight.divergence[0] < four.divergence[0] and eight.bits_per_weight > four.bits_per_weight
    assert fidelity.main([str(tiny_model), str(made[0]), "--corpus", str(gold)]) == 0
    assert "| m-Q8_0.gguf | " in capsys.readouterr().out
    assert fidelity.main([str(made[0]), str(made[1]), "--corpus", str(gold)]) == 2
    assert "its manifest must name a format" in capsys.readouterr().err


def test_trimming(tiny_model: Path, tmp_path: Path, capsys: Capture) -> None:
    for name, text in (("given.jsonl", "Naloxone helps rats."), ("other.jsonl", "clonidine in the patient 🙂")):
        (tmp_path / name).write_text(json.dumps({"id": "1", "text": text}), "utf-8")
    files = [str(tmp_path / name) for name in ("given.jsonl", "other.jsonl")]
    assert trimming.main([str(tiny_model.parent / "checkpoint"), *files]) == 0
    told = capsys.readouterr().out
    assert "tokens kept for 1 documents" in told and "running tokens are gone" in told
    assert trimming.main([str(tmp_path), *files]) == 2
