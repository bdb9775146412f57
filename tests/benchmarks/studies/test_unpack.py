"""A GGUF file becomes a checkpoint, and the same file again."""

from __future__ import annotations

from pathlib import Path

import pytest

import bioner_edge
from bioner_edge.benchmarks.studies import unpack
from bioner_edge.convert import About, convert
from bioner_edge.models import registry

DATA = Path(bioner_edge.__file__).parent / "data"


def test_there_and_back_is_the_same_to_the_bit(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    pytest.importorskip("torch")
    checkpoint = unpack.unpack(DATA / "chemdis-9m-Q8_0.gguf", tmp_path, DATA / "chemdis-9m-int8-onnx")
    assert checkpoint == tmp_path / "chemdis-9m"
    (again,) = convert(checkpoint, tmp_path / "out", ["Q8_0"], About(name="again"), check=False)
    sides = [gguf.GGUFReader(path).tensors for path in (DATA / "chemdis-9m-Q8_0.gguf", again)]
    ours, theirs = ({tensor.name: bytes(tensor.data) for tensor in side} for side in sides)
    assert ours == theirs
    found = [bioner_edge.load(path, format="multi_tag", labels=["Chemical", "Disease"]) for path in (again, None)]
    keys = [[e.key for e in extractor("Naloxone reverses the effect of clonidine.").entities] for extractor in found]
    assert keys[0] == keys[1] != []


def test_other_kinds_of_models_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx = str(registry.find("chemdis-9m-onnx")[0])
    assert unpack.main([onnx, str(tmp_path), "--tokenizer", onnx]) == 2
    assert capsys.readouterr().err.startswith("unpack: a GGUF file is unpacked")
