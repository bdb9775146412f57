"""Read a PEFT LoRA adapter: the tensors of adapter_model.safetensors by their effect on the base.

Every tensor must be recognized; an unknown one is an error, since a silently dropped tensor is noticed only when the
model produces nonsense.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bioner_edge.convert.merging.adapter_config import BY_PEFT, AdapterSettings
from bioner_edge.convert.shards import Shards
from bioner_edge.errors import ModelError

__all__ = ["AdaptedModule", "Adapter", "Tokens"]

_FILE = "adapter_model.safetensors"
_PREFIX = "base_model.model."  # of every tensor name that peft writes

# The default adapter's name, which a model has and peft omits when it saves; peft merges a file that has it.
_DEFAULT = re.compile(
    r"(?<=\.lora_[AB])\.default(?=\.(?:weight|bias)$)"
    r"|(?<=\.lora_embedding_[AB])\.default$"
    r"|(?<=\.lora_magnitude_vector)\.default(?=\.weight$)"
)
# An adapter's name in a tensor name, which peft silently ignores.
_NAMED = re.compile(
    r"(\.(?:lora_[AB]|lora_embedding_[AB]|lora_magnitude_vector|modules_to_save|trainable_tokens_delta))"
    r"\.(?!weight$|bias$)[^.]+(?=$|\.weight$|\.bias$)"
)
# Wrappers of modules in training: torch.compile, FSDP, checkpointing, data parallelism.
_WRAPPERS = re.compile(r"\b_orig_mod\.|\b_fsdp_wrapped_module\.|\b_checkpoint_wrapped_module\.|^module\.")

# Ending of a tensor's name -> its part in the module; the first match counts.
_PARTS = {
    ".lora_A.weight": "a",
    ".lora_B.weight": "b",
    ".lora_B.bias": "added bias",
    ".lora_embedding_A": "embedding a",
    ".lora_embedding_B": "embedding b",
    ".lora_magnitude_vector": "magnitude",
    ".lora_magnitude_vector.weight": "magnitude",  # early versions
    ".token_adapter.trainable_tokens_delta": "tokens",
    ".token_adapter.base_layer.weight": "original",
    ".base_layer.weight": "original",
    ".base_layer.bias": "bias beneath",
    ".modules_to_save.weight": "weight again",
    ".modules_to_save.bias": "bias again",
    ".original_module.weight": "superseded weight",
    ".original_module.bias": "superseded bias",
    ".weight": "weight",
    ".bias": "bias",
}
# Required parts of a module -> optional ones.
_KINDS = {
    frozenset({"a", "b"}): {"magnitude", "added bias", "original", "bias beneath"},
    frozenset({"embedding a", "embedding b"}): {"magnitude", "original"},
    frozenset({"tokens"}): {"original"},
    frozenset({"weight"}): {"bias", "weight again", "bias again", "superseded weight", "superseded bias"},
    frozenset({"bias"}): set(),
}


@dataclass(frozen=True, slots=True)
class AdaptedModule:
    """The update of one base tensor, scaling * B @ A, by the names of the factors in the file.

    `magnitude` is DoRA's vector; `added_bias` is added to the layer's bias, also scaled.
    """

    a: str
    b: str
    rank: int
    scaling: float
    embedding: bool
    magnitude: str | None
    added_bias: str | None

    @property
    def dora(self) -> bool:
        return self.magnitude is not None


@dataclass(frozen=True, slots=True)
class Tokens:
    """Trained rows of an embedding: the name of their new values in the file, and the token ids."""

    values: str
    ids: tuple[int, ...]


class Adapter:
    """An adapter's folder. Raises ModelError where it cannot be read, or cannot be merged here.

    Keys are names of base tensors (model.layers.0.self_attn.q_proj.weight), values names in the file: `replaced` are
    trained in full; `originals` are the weights beneath a trained part, usually those of the base, but with the rows of
    a resized vocabulary.
    """

    def __init__(self, folder: Path) -> None:
        if not (folder / "adapter_config.json").is_file():
            whole = (folder / "config.json").is_file()
            what = "a whole model, not an adapter: give it as the base" if whole else "it has no adapter_config.json"
            raise ModelError(f"{folder}: {what}")
        self.folder, self.file = folder, folder / _FILE
        self.settings = AdapterSettings(folder)
        if not self.file.is_file():
            raise ModelError(f"{folder}: {_missing_reason(folder)}")
        self._shards = Shards([self.file])
        self.shapes = self._shards.shapes()
        self.targets: dict[str, AdaptedModule] = {}
        self.tokens: dict[str, Tokens] = {}
        self.replaced: dict[str, str] = {}
        self.originals: dict[str, str] = {}
        for module, parts in self._modules().items():
            self._take(module, parts)

    def factors(self, name: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """A and B of a base tensor, whose update is scaling * B @ A. Shapes: (rank, columns), (rows, rank)

        The rows of an embedding are its tokens, those of a layer its outputs; only Conv1D stores outputs as columns.
        """
        target = self.targets[name]
        a, b = self.tensor(target.a), self.tensor(target.b)
        return (b.T, a.T) if target.embedding else (a, b)

    def tensor(self, name: str) -> NDArray[np.float32]:
        """A tensor of the file. Raises ModelError where it holds NaN or infinity."""
        return self._shards.tensor(name)

    def same(self, *names: str) -> bool:
        """Whether tensors of the file are equal; true for fewer than two."""
        if len(set(names)) < 2:
            return True
        if len({self.shapes[name] for name in names}) > 1:
            return False
        pieces = zip(*map(self._shards.pieces, names), strict=True)
        return all(np.array_equal(piece, other) for piece, *others in pieces for other in others)

    def _modules(self) -> dict[str, dict[str, str]]:
        """Module -> part -> name in the file, for every tensor."""
        modules: dict[str, dict[str, str]] = {}
        for name in self.shapes:
            known = _DEFAULT.sub("", name)
            ending = next((ending for ending in _PARTS if known.endswith(ending)), None)
            if ending is None:
                raise self._unknown_tensor_error(name)
            if (expected := _saved_name(known)) != known:
                raise self._name_error(name, expected)
            parts = modules.setdefault(known.removeprefix(_PREFIX).removesuffix(ending), {})
            if parts.setdefault(_PARTS[ending], name) != name:
                raise self._unknown_tensor_error(name)
        return modules

    def _take(self, module: str, parts: Mapping[str, str]) -> None:
        """Assign each tensor of a module to its part."""
        needed = next((needed for needed in _KINDS if needed <= parts.keys()), frozenset[str]())
        for part, name in parts.items():
            if part not in needed | _KINDS.get(needed, set()):
                raise self._unknown_tensor_error(name)
        if needed & {"a", "embedding a"}:
            self.targets[f"{module}.weight"] = self._target(module, parts)
        if "tokens" in parts:
            self.tokens[f"{module}.weight"] = Tokens(parts["tokens"], self._ids(module, parts["tokens"]))
        if "original" in parts:
            self.originals[f"{module}.weight"] = parts["original"]
        if "bias beneath" in parts:
            self.replaced[f"{module}.bias"] = parts["bias beneath"]
        for part in parts.keys() & {"weight", "bias"}:
            self.replaced[f"{module}.{part}"] = parts[part]
            if (again := parts.get(f"{part} again")) and not self.same(parts[part], again):
                raise ModelError(f"{self.file}: {again!r} differs from {parts[part]!r}; save the adapter again")

    def _target(self, module: str, parts: Mapping[str, str]) -> AdaptedModule:
        embedding = "embedding a" in parts
        a, b = (parts["embedding a"], parts["embedding b"]) if embedding else (parts["a"], parts["b"])
        rank = self.settings.rank(module)
        for name, axis in ((a, 0), (b, 1)):
            if len(self.shapes[name]) != 2 or self.shapes[name][axis] != rank:
                message = f"{name!r} has shape {self.shapes[name]}, but adapter_config.json has rank {rank}"
                raise ModelError(f"{self.file}: {message}; save the adapter again")
        expected = {"magnitude": self.settings.dora, "added bias": self.settings.lora_bias and not embedding}
        for part, key in (("magnitude", "use_dora"), ("added bias", "lora_bias")):
            if expected[part] != (part in parts):
                there = f"{module!r} has {'a' if part in parts else 'no'} {part}"
                raise ModelError(f"{self.file}: {there}, but {key} is {expected[part]}; save the adapter again")
        scaling = self.settings.scaling(module)
        return AdaptedModule(a, b, rank, scaling, embedding, parts.get("magnitude"), parts.get("added bias"))

    def _ids(self, module: str, name: str) -> tuple[int, ...]:
        """The token ids of a module's trained rows."""
        ids, rows = self.settings.tokens(module), next(iter(self.shapes[name]), 0)
        if len(ids) != rows or len(set(ids)) != rows:
            message = f"{name!r} has {rows} rows, but trainable_token_indices names another number of tokens"
            raise ModelError(f"{self.file}: {message}; save the adapter again")
        return tuple(ids)

    def _name_error(self, name: str, expected: str) -> ModelError:
        message = f"tensor {name!r} does not have the name that peft gives it, so peft would not merge it"
        return ModelError(f"{self.file}: {message}; rename it to {expected!r}, and the others likewise")

    def _unknown_tensor_error(self, name: str) -> ModelError:
        message = f"tensor {name!r} does not belong in a LoRA adapter with these settings"
        return ModelError(f"{self.file}: {message}; {BY_PEFT}")


def _saved_name(name: str) -> str:
    """A tensor's name as peft saves it: with the prefix, without wrappers and adapter name."""
    bare = _NAMED.sub(r"\1", _WRAPPERS.sub("", name))
    return bare if bare.startswith(_PREFIX) else _PREFIX + bare


def _missing_reason(folder: Path) -> str:
    if (folder / "adapter_model.bin").is_file():
        return "adapter_model.bin is pickled, which can run code when it is read; save the adapter as safetensors"
    return f"it has no {_FILE}; save or fetch the adapter again"
