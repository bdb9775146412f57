"""A Hugging Face checkpoint: config.json and safetensors shards; and the interface of every source of weights."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bioner_edge.convert.shards import Shapes, Shards
from bioner_edge.errors import ModelError

__all__ = ["Checkpoint", "Source", "expect", "load_json"]

_INDEX = "model.safetensors.index.json"


class Source(Protocol):
    """A model's weights, one tensor at a time: a checkpoint, or a checkpoint with changes.

    `config` is its config.json, `files` the safetensors files that it is read from.
    """

    @property
    def folder(self) -> Path: ...

    @property
    def config(self) -> Mapping[str, Any]: ...

    @property
    def files(self) -> tuple[Path, ...]: ...

    def shapes(self) -> Shapes:
        """Name in the checkpoint -> shape, for every tensor."""

    def tensor(self, name: str) -> NDArray[np.float32]:
        """One tensor, finite, owned by the caller. Raises ModelError for NaN, infinity and truncated files."""


class Checkpoint:
    """A model folder saved by transformers. Raises ModelError where it cannot be read or its weights are pickled."""

    def __init__(self, folder: Path) -> None:
        if not (folder / "config.json").is_file():
            adapter = (folder / "adapter_config.json").is_file()
            what = "an adapter, not a model: merge it into its base" if adapter else "it has no config.json"
            raise ModelError(f"{folder}: {what}; give the folder of a whole model")
        self.folder = folder
        self.config = load_json(folder / "config.json")
        _refuse_quantized(folder, self.config)
        self._shards = Shards(_files(folder))
        self.files = self._shards.files

    def shapes(self) -> Shapes:
        return self._shards.shapes()

    def tensor(self, name: str) -> NDArray[np.float32]:
        return self._shards.tensor(name)


def expect(source: Source, shapes: Shapes, ignored: Collection[str] = ()) -> None:
    """Raises ModelError unless the tensors are exactly those of `shapes`, plus any of `ignored`."""
    there = source.shapes()
    for name, shape in shapes.items():
        if name not in there:
            raise ModelError(f"{source.folder}: tensor {name!r} is missing; fetch the model again")
        if there[name] != shape:
            raise ModelError(f"{source.folder}: tensor {name!r} has shape {there[name]}, config.json asks for {shape}")
    if extra := sorted(there.keys() - shapes.keys() - set(ignored)):
        raise ModelError(
            f"{source.folder}: tensor {extra[0]!r} does not belong to its architecture ({len(extra)} such)"
        )


def load_json(path: Path) -> dict[str, Any]:
    """A JSON object of a model's folder. Raises ModelError where it is missing or not an object."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise ModelError(f"{path}: not JSON; fetch or save the model again") from None
    if not isinstance(value, dict):
        raise ModelError(f"{path}: must hold a JSON object; fetch or save the model again")
    return value


def _refuse_pickled(folder: Path) -> None:
    """Raises ModelError where the weights in a folder are pickled."""
    if pickled := sorted(p.name for p in folder.iterdir() if p.suffix in {".bin", ".pt", ".pth", ".ckpt"}):
        why = "pickled weights can run code when they are read"
        raise ModelError(f"{folder / pickled[0]}: {why}; save the model as safetensors (safe_serialization=True)")


def _refuse_quantized(folder: Path, config: Mapping[str, Any]) -> None:
    for key in ("quantization_config", "quantization"):  # transformers', MLX's
        if settings := config.get(key):
            method = settings.get("quant_method") if isinstance(settings, dict) else None
            how = f" with {method}" if isinstance(method, str) else ""
            raise ModelError(f"{folder}: already quantized{how}; give the unquantized base")


def _files(folder: Path) -> list[Path]:
    """The safetensors files of a folder: those of its index, or the single one."""
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
    _refuse_pickled(folder)
    raise ModelError(f"{folder}: contains neither model.safetensors nor {_INDEX}")
