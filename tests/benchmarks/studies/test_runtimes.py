"""The scripts that compare llama.cpp with onnxruntime, on a model that takes seconds."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxruntime_genai")

from bioner_edge.backends.scripted import Scripted
from bioner_edge.benchmarks.studies import agreement, conversion, runtimes
from bioner_edge.convert import About, convert
from bioner_edge.document import Document
from bioner_edge.extract import Extractor

Capture = pytest.CaptureFixture[str]
TINY = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
TEXT = "Naloxone reverses the antihypertensive effect of clonidine."


@pytest.fixture(scope="module")
def tiny_onnx(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny_model` on the other runtime."""
    about = About(name="tiny", labels=("Chemical", "Disease"), formats=("multi_tag",), unit="sentence")
    out = tmp_path_factory.mktemp("onnx")
    return convert(tiny_model.parent / "checkpoint", out, ["F32"], about, to="onnx", check=False)[0]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(f'{{"id": "{n}", "text": "{text}"}}\n' for n, text in enumerate((TEXT, TEXT[9:]))), "utf-8")
    return path


def test_both_runtimes_agree(tiny_model: Path, tiny_onnx: Path, corpus: Path, capsys: Capture) -> None:
    assert agreement.main([str(tiny_model), str(tiny_onnx), str(corpus), "--threads", "1"]) == 0
    told = capsys.readouterr().out
    assert "2 documents, 0 differ" in told and told.count("strict micro-F1") == 2


def test_other_weights_are_told(tiny_model: Path, corpus: Path, tmp_path: Path, capsys: Capture) -> None:
    """A model whose output rows are turned around writes something else at the first choice."""
    from bioner_edge.convert.checkpoint import Checkpoint
    from bioner_edge.convert.merging import merge

    class Other(Checkpoint):
        def tensor(self, name: str) -> Any:
            tensor = super().tensor(name)
            return np.ascontiguousarray(tensor[::-1]) if name == "lm_head.weight" else tensor

    source = tiny_model.parent / "checkpoint"
    merge.save(Other(source), tmp_path / "other", tokenizer=source)
    about = About(name="other", labels=("Chemical", "Disease"), formats=("multi_tag",), unit="sentence")
    (other,) = convert(tmp_path / "other", tmp_path, ["F32"], about, check=False)
    assert agreement.main([str(tiny_model), str(other), str(corpus), "--documents", "1", "--threads", "1"]) == 1
    told = capsys.readouterr().out
    assert "1 documents, 1 differ, 1 of them by more" in told and "- 0: at step 0 one wrote" in told


def extractor(play: Callable[[list[int]], Any]) -> Extractor:
    return Extractor(Scripted(play, context=4096), format="multi_tag", labels=["Chemical"])


def test_difference_gives_the_margins_of_both() -> None:
    """Two models that part at the first tag: one begins it by 0.5, the other goes on by 0.25."""

    def play(lead: float) -> Callable[[list[int]], Any]:
        def logits(ids: list[int]) -> Any:
            row = np.full(257, -30, np.float32)  # it means what it writes
            row[ord("a")] = 0.0
            row[ord("<")] = lead
            return row

        return logits

    document = Document("1", "ab")
    place = agreement.difference(extractor(play(0.5)), extractor(play(-0.25)), document)
    assert place is not None and place.step == 1  # after that which read the instruction
    assert place.wrote == (b"<", b"a") and place.margins == (0.5, 0.25)
    assert agreement.difference(extractor(play(0.5)), extractor(play(0.5)), document) is None


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_table(capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(conversion.SHAPES, "tiny", TINY)
    asked = ["tiny", "--rounds", "1", "--prompt", "20", "--tokens", "4", "--threads", "1", "--work", str(tmp_path)]
    assert runtimes.main([*asked, "--gguf", "Q8_0", "--onnx", "int8"]) == 0
    lines = [
        line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| tiny")
    ]
    assert [line[0] for line in lines] == ["tiny-Q8_0", "tiny-int8-onnx"]
    for line in lines:
        assert all(float(cell.replace(",", "")) > 0 for cell in line[1:6])
    assert lines[0][-2:] == ["–", "–"] and all(cell.endswith("%") for cell in lines[1][-2:])
    assert list(tmp_path.iterdir()) == []


def test_refused(tmp_path: Path, tiny_model: Path, corpus: Path, capsys: Capture) -> None:
    assert runtimes.main([]) == 2
    assert runtimes.main(["7B"]) == 2
    assert "unknown shape '7B'; known: 0.5B, 1.5B; or give a checkpoint's folder" in capsys.readouterr().err
    bare = tmp_path / "bare.gguf"
    shutil.copyfile(tiny_model, bare)
    assert agreement.main([str(tiny_model), str(bare), str(corpus)]) == 2
    assert "no manifest that says what it was tuned for" in capsys.readouterr().err
