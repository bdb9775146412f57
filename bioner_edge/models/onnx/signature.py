"""The inputs and outputs that an ONNX graph must have: tokens and a KV cache in, logits and the longer cache out.

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
_MOST = 4  # names of one kind in a message; a graph has two for each layer
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
    """What is particular to one graph. `caches` has, by layer, key before value, (suffix, heads, size): the suffix is
    what follows `past_key_values.` and `present.`; `positions`: whether the graph asks for position_ids."""

    vocabulary_size: int
    caches: tuple[tuple[str, int, int], ...]
    positions: bool

    @property
    def bytes_per_position(self) -> int:
        """What a token takes in the cache, in float32."""
        return sum(4 * heads * size for _, heads, size in self.caches)


def signature(graph: Graph, path: Path) -> Signature:
    """The signature of a graph. Raises ModelError, which lists all that is missing, unexpected or of another type."""
    inputs, outputs = ({value.name: value for value in values} for values in (graph.inputs, graph.outputs))
    layers = 1 + max((int(found[1]) for name in inputs if (found := _PAST.fullmatch(name))), default=0)
    suffixes = [f"{layer}.{part}" for layer in range(layers) for part in _PARTS]
    wrong = [
        *_differences("input", inputs, {**_INPUTS, **{f"past_key_values.{s}": _CACHED for s in suffixes}}),
        *_differences("output", outputs, {**_OUTPUTS, **{f"present.{s}": _CACHED for s in suffixes}}),
    ]
    if not wrong:
        unlike = [s for s in suffixes if _sizes(inputs[f"past_key_values.{s}"]) != _sizes(outputs[f"present.{s}"])]
        wrong = [f"present.{s} of another shape than past_key_values.{s}" for s in unlike[:1]]
    if wrong:
        raise ModelError(
            f"{path}: not a graph that can be run here: {'; '.join(wrong)}; expected {_EXPECTED}; convert it again"
        )
    caches = tuple((s, *_sizes(inputs[f"past_key_values.{s}"])) for s in suffixes)
    return Signature(int(outputs["logits"].shape[2]), caches, "position_ids" in inputs)


def _sizes(value: Value) -> tuple[int, int]:
    """(heads, size) of a cache."""
    return int(value.shape[1]), int(value.shape[3])


def _differences(
    kind: str, there: Mapping[str, Value], expected: Mapping[str, tuple[str, tuple[str, ...]]]
) -> list[str]:
    """What is wrong with the inputs or the outputs, kind by kind of fault."""
    missing = [name for name in expected if name not in there and name not in _OPTIONAL]
    more = [_spelled(value) for name, value in there.items() if name not in expected]
    other = [
        _spelled(there[name]) for name, wanted in expected.items() if name in there and not _fits(there[name], *wanted)
    ]
    return [
        f"{fault} {kind}{'s' * (len(names) > 1)} {_listed(names)}"
        for fault, names in (("missing", missing), ("unexpected", more), ("unfit", other))
        if names
    ]


def _fits(value: Value, type_: str, dims: Sequence[str]) -> bool:
    kinds = [_FIXED if isinstance(dim, int) and dim > 0 else _FREE for dim in value.shape]
    fits = [wanted in (kind, _ANY) for kind, wanted in zip(kinds, dims, strict=False)]
    return value.type == type_ and len(kinds) == len(dims) and all(fits)


def _spelled(value: Value) -> str:
    return f"{printable(value.name)[:60]} {value.type} [{', '.join(printable(str(dim))[:40] for dim in value.shape)}]"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_MOST]) + (f" and {len(names) - _MOST} more" if len(names) > _MOST else "")
