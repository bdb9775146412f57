"""A Hugging Face checkpoint as data: config.json and safetensors shards, read one tensor at a time as float32.

Neither torch nor safetensors is needed: a shard is a JSON header and raw bytes. Only one tensor is in memory, so the
size of the model does not matter.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bioner_edge.errors import ModelError

__all__ = ["Checkpoint", "load_json"]

_INDEX = "model.safetensors.index.json"
_LONGEST_HEADER = 100_000_000  # bytes; the limit of the safetensors library
# Type in the header -> how its bytes are read.
_TYPES = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}


def load_json(path: Path) -> dict[str, Any]:
    """A JSON object of a model's folder. Raises ModelError where it is missing or is none."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise ModelError(f"{path}: not JSON; fetch or save the model again") from None
    if not isinstance(value, dict):
        raise ModelError(f"{path}: must hold a JSON object; fetch or save the model again")
    return value


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a tensor's bytes lie."""

    file: Path
    type: str
    shape: tuple[int, ...]
    offset: int  # bytes from the file's start


class Checkpoint:
    """The folder of a model that transformers saved. Raises ModelError where it cannot be read or is pickled."""

    def __init__(self, folder: Path) -> None:
        if not (folder / "config.json").is_file():
            adapter = (folder / "adapter_config.json").is_file()
            what = "an adapter, not a model: merge it into its base" if adapter else "no config.json in it"
            raise ModelError(f"{folder}: {what}; give the folder of a whole model")
        self.folder = folder
        self.config = load_json(folder / "config.json")
        self.files = tuple(_shards(folder))
        self._places = {name: place for file in self.files for name, place in _header(file).items()}

    def expect(self, shapes: Mapping[str, tuple[int, ...]], ignored: Collection[str] = ()) -> None:
        """Raises ModelError unless the tensors are exactly those of `shapes`, and `ignored` where they are there."""
        for name, shape in shapes.items():
            if name not in self._places:
                raise ModelError(f"{self.folder}: tensor {name!r} is missing; fetch the model again")
            if self._places[name].shape != shape:
                there = self._places[name].shape
                raise ModelError(f"{self.folder}: tensor {name!r} has shape {there}, config.json asks for {shape}")
        if extra := sorted(self._places.keys() - shapes.keys() - set(ignored)):
            raise ModelError(f"{self.folder}: tensor {extra[0]!r} has no place in its architecture ({len(extra)} such)")

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def tensor(self, name: str) -> NDArray[np.float32]:
        """One tensor. Raises ModelError where a value is not finite, or the file shrank meanwhile."""
        place = self._places[name]
        raw = np.fromfile(place.file, _TYPES[place.type], prod(place.shape), offset=place.offset)
        if raw.size != prod(place.shape):
            raise ModelError(f"{place.file}: ends inside tensor {name!r}; fetch it again")
        if place.type == "BF16":  # a bfloat16 is the upper half of a float32
            values = (raw.astype(np.uint32) << 16).view(np.float32)
        else:
            values = raw.astype(np.float32, copy=False)
        if not np.isfinite(values).all():
            raise ModelError(f"{place.file}: tensor {name!r} holds NaN or infinity; its training diverged")
        return values.reshape(place.shape)


def _shards(folder: Path) -> list[Path]:
    """The safetensors files of a folder: those of its index, or the only one."""
    if (folder / _INDEX).is_file():
        names = load_json(folder / _INDEX).get("weight_map")
        if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
            raise ModelError(f"{folder / _INDEX}: no weight_map; fetch or save the model again")
        files = [folder / name for name in sorted(set(names.values()))]
        for file in files:
            if file.parent != folder or not file.is_file():
                raise ModelError(f"{file}: this shard is in {_INDEX} but not in the folder; fetch it again")
        return files
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    if pickled := sorted(p.name for p in folder.iterdir() if p.suffix in {".bin", ".pt", ".pth", ".ckpt"}):
        why = "pickled weights can run code when they are read"
        raise ModelError(f"{folder / pickled[0]}: {why}; save the model as safetensors (safe_serialization=True)")
    raise ModelError(f"{folder}: no model.safetensors and no {_INDEX} in it")


def _header(file: Path) -> dict[str, _Place]:
    """The tensors of a shard, their bytes checked against the file's size."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if not 2 <= length <= min(size - 8, _LONGEST_HEADER):
            raise ModelError(f"{file}: damaged safetensors header ({length} bytes in a file of {size}); fetch it again")
        try:
            rows = json.loads(stream.read(length))
            rows.pop("__metadata__", None)
            return {name: _place(file, row, 8 + length, size, name) for name, row in rows.items()}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise ModelError(f"{file}: damaged safetensors header; fetch it again") from None


def _place(file: Path, row: dict[str, Any], data: int, size: int, name: str) -> _Place:
    kind, shape, (start, end) = row["dtype"], tuple(map(int, row["shape"])), row["data_offsets"]
    if kind not in _TYPES:
        raise ModelError(f"{file}: tensor {name!r} is {kind}, only {', '.join(_TYPES)} can be converted")
    if min(shape, default=1) < 0 or start < 0 or end - start != prod(shape) * np.dtype(_TYPES[kind]).itemsize:
        raise ModelError(f"{file}: tensor {name!r} of shape {shape} has its bytes at {start} to {end}; fetch it again")
    if data + end > size:
        raise ModelError(f"{file}: ends inside tensor {name!r}; fetch it again")
    return _Place(file, kind, shape, data + start)
