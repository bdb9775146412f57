"""Checkpoints as data: every value as other libraries read it, no header is trusted, little memory is used."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bioner_edge.convert import shards
from bioner_edge.convert.checkpoint import Checkpoint, expect
from bioner_edge.errors import ModelError

Rows = Mapping[str, Any]


def folder(path: Path, header: Rows | bytes, data: bytes = bytes(64), **config: Any) -> Path:
    """A checkpoint of one shard, as wrong as wanted."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps(config), "utf-8")
    (path / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def row(shape: list[Any], start: Any, end: Any, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


HOSTILE: dict[str, tuple[Rows | bytes, str]] = {
    "overlap": ({"a": row([4], 0, 16), "b": row([4], 12, 28)}, "tensor 'b' shares its bytes with another"),
    "the same bytes": ({"a": row([4], 0, 16), "b": row([2, 2], 0, 16)}, "tensor 'b' shares its bytes with another"),
    "before the data": ({"a": row([4], -16, 0)}, "tensor 'a' has shape (4,) but bytes -16 to 0"),
    "backwards": ({"a": row([4], 16, 0)}, "but bytes 16 to 0"),
    "negative sides": ({"a": row([-2, -2], 0, 16)}, "has shape (-2, -2) but bytes 0 to 16"),
    "too few bytes": ({"a": row([4], 0, 12)}, "has shape (4,) but bytes 0 to 12"),
    "huge": ({"a": row([1 << 62], 0, 1 << 64)}, "ends inside tensor 'a'"),
    "huge product": ({"a": row([1 << 40, 1 << 40], 0, 1 << 82)}, "ends inside tensor 'a'"),
    "sides of text": ({"a": row(["4"], 0, 16)}, "damaged safetensors header"),
    "broken sides": ({"a": row([4.5], 0, 18)}, "damaged safetensors header"),
    "sides that are true": ({"a": row([True], 0, 4)}, "damaged safetensors header"),
    "offsets of text": ({"a": row([4], "0", "16")}, "damaged safetensors header"),
    "three offsets": ({"a": {**row([4], 0, 16), "data_offsets": [0, 8, 16]}}, "damaged safetensors header"),
    "no type": ({"a": {"shape": [4], "data_offsets": [0, 16]}}, "damaged safetensors header"),
    "another type": ({"a": row([2], 0, 16, "F64")}, "tensor 'a' has type F64; only F32, F16, BF16 can be converted"),
    "no object": (b"[1, 2]", "damaged safetensors header"),
    "no text": (b"\xff\xff\xff\xff", "damaged safetensors header"),
    "deep": (b"[" * 100_000, "damaged safetensors header"),
}


@pytest.mark.parametrize(("header", "message"), HOSTILE.values(), ids=HOSTILE.keys())
def test_headers_are_not_trusted(tmp_path: Path, header: Rows | bytes, message: str) -> None:
    with pytest.raises(ModelError, match=re.escape(message)) as caught:
        Checkpoint(folder(tmp_path / "m", header))
    assert "\n" not in str(caught.value) and "model.safetensors: " in str(caught.value)


def test_a_tensor_in_two_shards(tmp_path: Path) -> None:
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    where = folder(tmp_path / "m", {})
    for name in names:
        shards.write(where / name, {"a": (2,)}, lambda name: np.ones(2, np.float32))
    index = {"weight_map": dict(zip("ab", names, strict=True))}
    (where / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match="tensor 'a' is in model-00001"):
        Checkpoint(where)


@pytest.mark.parametrize(
    ("config", "how"),
    [
        ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}, " with bitsandbytes"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, " with gptq"),
        ({"quantization_config": {"bits": 4}}, ""),
        ({"quantization": {"group_size": 64, "bits": 4}}, ""),
    ],
)
def test_quantized_checkpoints_are_refused(tmp_path: Path, config: dict[str, Any], how: str) -> None:
    told = f"already quantized{how}; give the unquantized base"
    with pytest.raises(ModelError, match=told):
        Checkpoint(folder(tmp_path / "m", {"a": row([2], 0, 8, "U8")}, **config))
    assert Checkpoint(folder(tmp_path / "m", {}, quantization_config=None)).shapes() == {}


def test_expected_tensors(tmp_path: Path) -> None:
    source = Checkpoint(folder(tmp_path / "m", {"a": row([2, 2], 0, 16), "b": row([4], 16, 32), "c": row([], 32, 36)}))
    expect(source, {"a": (2, 2), "b": (4,), "c": ()})
    expect(source, {"a": (2, 2)}, ignored=("b", "c", "d"))
    for shapes, message in (
        ({"d": (1,)}, "tensor 'd' is missing; fetch the model again"),
        ({"a": (4,)}, r"tensor 'a' has shape \(2, 2\), config.json asks for \(4,\)"),
        ({"a": (2, 2)}, r"tensor 'b' does not belong to its architecture \(2 such\)"),
    ):
        with pytest.raises(ModelError, match=message):
            expect(source, shapes)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_values_are_those_of_other_libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str) -> None:
    torch = pytest.importorskip("torch")
    save = pytest.importorskip("safetensors.torch")
    monkeypatch.setattr(shards, "_PIECE", 7)
    torch.manual_seed(0)
    tensors = {name: torch.randn(shape).to(getattr(torch, dtype)) for name, shape in SHAPES.items()}
    where = folder(tmp_path / "m", {})
    save.save_file(tensors, where / "model.safetensors")
    source = Checkpoint(where)
    assert source.shapes() == SHAPES
    for name, tensor in tensors.items():
        assert source.tensor(name).tobytes() == tensor.float().numpy().tobytes()
        assert source.tensor(name).shape == SHAPES[name] and source.tensor(name).dtype == np.float32


SHAPES: dict[str, tuple[int, ...]] = {"matrix": (5, 9), "of pieces": (7, 2), "none": (0, 3), "one": (), "long": (50,)}


@settings(max_examples=30, deadline=None)
@given(
    shapes=st.dictionaries(st.text(min_size=1), st.lists(st.integers(0, 5), max_size=3).map(tuple), max_size=5),
    seed=st.integers(0, 2**32 - 1),
)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, shapes: dict[str, tuple[int, ...]], seed: int
) -> None:
    shapes = {name.encode(errors="replace").decode(): shape for name, shape in shapes.items() if name != "__metadata__"}
    path = tmp_path_factory.mktemp("written") / "model.safetensors"
    random = np.random.default_rng(seed)
    tensors = {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    shards.write(path, shapes, tensors.__getitem__)
    read = shards.Shards([path])
    assert list(read.shapes().items()) == list(shapes.items())
    assert all(read.tensor(name).tobytes() == tensor.tobytes() for name, tensor in tensors.items())
    theirs = pytest.importorskip("safetensors.numpy").load_file(path)
    assert all(theirs[name].tobytes() == tensor.tobytes() for name, tensor in tensors.items())


@pytest.mark.parametrize("at", [0, 6, 7, 43, 49])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int, value: float) -> None:
    monkeypatch.setattr(shards, "_PIECE", 7)
    values = np.zeros(50, np.float32)
    values[at] = value
    source = Checkpoint(folder(tmp_path / "m", {"a": row([50], 0, 200)}, values.tobytes()))
    with pytest.raises(ModelError, match="tensor 'a' holds NaN or infinity; its training diverged"):
        source.tensor("a")


def test_a_file_that_changes_meanwhile(tmp_path: Path) -> None:
    source = Checkpoint(folder(tmp_path / "m", {"a": row([16], 0, 64)}))
    file = source.files[0]
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ModelError, match="ends inside tensor 'a'; fetch it again"):
        source.tensor("a")
    file.unlink()
    with pytest.raises(ModelError, match="cannot be read: No such file"):
        source.tensor("a")


MEASURED = """
import resource, sys
from pathlib import Path
from bioner_edge.convert.checkpoint import Checkpoint

def anonymous(key):
    return int(Path("/proc/self/status").read_text().split(key)[1].split()[0]) * 1024

source = Checkpoint(Path(sys.argv[1]))
before = anonymous("VmHWM:")
source.tensor("a")
print(anonymous("VmHWM:") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc, which is Linux's")
def test_reading_takes_the_tensor_and_little_more(tmp_path: Path) -> None:
    """All memory, not only the anonymous; a hole in the file is read as zeros."""
    size = 40_000_000
    where = folder(tmp_path / "m", {"a": row([size // 1000, 1000], 0, 2 * size, "BF16")}, b"")
    with (where / "model.safetensors").open("r+b") as stream:
        stream.truncate((where / "model.safetensors").stat().st_size + 2 * size)
    run = subprocess.run([sys.executable, "-c", MEASURED, where], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 4 * size + 24_000_000
