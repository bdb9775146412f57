"""The required inputs and outputs of an ONNX graph: tokens and a KV cache in, logits and the extended cache out.

input_ids [B, n], attention_mask [B, past + n], optionally position_ids [B, n], all int64; past_key_values.N.key and
.value [B, heads, past, size] of layers N = 0, 1, …; logits [B, 1 or n, vocabulary]; present.N.key and .value [B, heads,
past + n, size], all float32. B, n and past must be free, the rest fixed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bioner_edge.errors import ModelError, printable
from bioner_edge.models.onnx.graph import Graph, Value

__all__ = ["Signature", "signature"]

_PAST = re.compile(r"past_key_values\.(0|[1-9][0-9]{0,3})\.(key|value)", re.ASCII)
_PARTS = ("key", "value")
_FREE, _FIXED, _ANY = "free", "fixed", "any"
_MAX_NAMES = 4  # of one kind in a message; a graph has two for each layer
# Name -> (type, dimensions).
_INPUTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "input_ids": ("int64", (_FREE, _FREE)),
    "attention_mask": ("int64", (_FREE, _FREE)),
    "position_ids": ("int64", (_FREE, _FREE)),
}
_OUTPUTS: dict[str, tuple[str, tuple[str, ...]]] = {"logits": ("f32", (_FREE, _ANY, _FIXED))}
_OPTIONAL = {"position_ids"}
_CACHED: tuple[str, tuple[str, ...]] = ("f32", (_FREE, _FIXED, _FREE, _FIXED))
_EXPECTED = (
    "input_ids, attention_mask and perhaps position_ids int64 [B, n], past_key_values.N.key and .value f32 "
    "[B, heads, past, size] from N = 0 on, to logits f32 [B, n, vocabulary] and present.N.key and .value"
)


@dataclass(frozen=True, slots=True)
class Signature:
    """The variable part of a graph's signature. `caches` has (suffix, heads, size) by layer, key before value; the
    suffix follows `past_key_values.` and `present.`. `positions`: whether the graph has the input position_ids."""

    vocabulary_size: int
    caches: tuple[tuple[str, int, int], ...]
    positions: bool

    @property
    def bytes_per_position(self) -> int:
        """Bytes of a token in the cache, in float32."""
        return sum(4 * heads * size for _, heads, size in self.caches)


def signature(graph: Graph, path: Path) -> Signature:
    """The signature of a graph. Raises ModelError that lists what is missing, unexpected or unfit."""
    inputs, outputs = ({value.name: value for value in values} for values in (graph.inputs, graph.outputs))
    layers = 1 + max((int(found[1]) for name in inputs if (found := _PAST.fullmatch(name))), default=0)
    suffixes = [f"{layer}.{part}" for layer in range(layers) for part in _PARTS]
    differences = [
        *_differences("input", inputs, {**_INPUTS, **{f"past_key_values.{s}": _CACHED for s in suffixes}}),
        *_differences("output", outputs, {**_OUTPUTS, **{f"present.{s}": _CACHED for s in suffixes}}),
    ]
    if not differences:
        unlike = [s for s in suffixes if _sizes(inputs[f"past_key_values.{s}"]) != _sizes(outputs[f"present.{s}"])]
        differences = [f"present.{s} of another shape than past_key_values.{s}" for s in unlike[:1]]
    if differences:
        message = f"not a graph that can be run here: {'; '.join(differences)}"
        raise ModelError(f"{path}: {message}; expected {_EXPECTED}; convert it again")
    caches = tuple((s, *_sizes(inputs[f"past_key_values.{s}"])) for s in suffixes)
    return Signature(int(outputs["logits"].shape[2]), caches, "position_ids" in inputs)


def _sizes(value: Value) -> tuple[int, int]:
    """(heads, size) of a cache."""
    return int(value.shape[1]), int(value.shape[3])


def _differences(
    kind: str, there: Mapping[str, Value], expected: Mapping[str, tuple[str, tuple[str, ...]]]
) -> list[str]:
    """How the inputs or the outputs differ, grouped: missing, unexpected, unfit."""
    missing = [name for name in expected if name not in there and name not in _OPTIONAL]
    more = [_describe(value) for name, value in there.items() if name not in expected]
    other = [
        _describe(there[name]) for name, value in expected.items() if name in there and not _fits(there[name], *value)
    ]
    return [
        f"{group} {kind}{'s' * (len(names) > 1)} {_list_names(names)}"
        for group, names in (("missing", missing), ("unexpected", more), ("unfit", other))
        if names
    ]


def _fits(value: Value, type_: str, dims: Sequence[str]) -> bool:
    kinds = [_FIXED if isinstance(dim, int) and dim > 0 else _FREE for dim in value.shape]
    fits = [expected in (kind, _ANY) for kind, expected in zip(kinds, dims, strict=False)]
    return value.type == type_ and len(kinds) == len(dims) and all(fits)


def _describe(value: Value) -> str:
    return f"{printable(value.name)[:60]} {value.type} [{', '.join(printable(str(dim))[:40] for dim in value.shape)}]"


def _list_names(names: Sequence[str]) -> str:
    return ", ".join(names[:_MAX_NAMES]) + (f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else "")
