"""Write a LoRA adapter as GGUF, which llama.cpp adds to its base at run time.

    NAME.lora_a (rank, columns), NAME.lora_b (rows, rank), by the name of the base's tensor in the GGUF

llama.cpp scales each pair by the file's alpha over the pair's rank. rsLoRA and patterns of rank or alpha scale
differently, so alpha is the value that fits most pairs, and B of the others is rescaled. Anything but a pair of
matrices on a linear layer is refused: without it, the model would be silently wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
from gguf import GGUFType
from gguf import GGUFWriter as Writer
from numpy.typing import NDArray

from bioner_edge.backends.adapter_file import ADAPTABLE
from bioner_edge.convert.architectures import Architecture
from bioner_edge.convert.checkpoint import Source
from bioner_edge.convert.gguf.writer import names as tensor_names
from bioner_edge.convert.merging.adapter import Adapter
from bioner_edge.errors import ModelError, UsageError, unknown_name
from bioner_edge.models import gguf_header

__all__ = ["LEVELS", "write"]

# Level -> the tensor type of the matrices.
LEVELS: dict[str, np.dtype[np.floating]] = {"F32": np.dtype(np.float32), "F16": np.dtype(np.float16)}
_INSTEAD = "merge the adapter into its base instead"


def write(
    path: Path,
    adapter: Adapter,
    base: Source,
    architecture: Architecture,
    *,
    name: str,
    license: str,
    level: str = "F32",
) -> None:
    """Write `path`, which is complete only when this returns and is removed on failure.

    `base` is the model that the adapter was trained on. Raises UsageError for an unknown level, ModelError for an
    adapter that llama.cpp cannot apply at run time or that belongs to another base, and for a full disk.
    """
    if level not in LEVELS:
        raise UsageError(unknown_name("level", level, LEVELS))
    for reason in _adapter_errors(adapter, base):
        raise ModelError(f"{adapter.file}: {reason}; {_INSTEAD}")
    names = _names(adapter, base, architecture)
    alpha = _alpha(adapter)
    writer = Writer(path, architecture.name)
    writer.add_type(GGUFType.ADAPTER)
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", alpha)
    writer.add_name(name)
    writer.add_license(license)
    for theirs, ours in names.items():
        a, b = _factors(theirs, adapter, base, architecture, alpha)
        writer.add_tensor(f"{ours}.lora_a", _cast(a, theirs, level))
        writer.add_tensor(f"{ours}.lora_b", _cast(b, theirs, level))
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        gguf_header.read(path)  # numpy writes through a C buffer and does not report what that loses on a full disk
    except (OSError, ModelError) as error:
        with suppress(OSError):  # what is still in its buffer
            writer.close()
        path.unlink(missing_ok=True)
        why = getattr(error, "strerror", None) or "it could be written only in part"
        raise ModelError(f"{path}: cannot be written: {why}; free disk space or choose another path") from None


def _adapter_errors(adapter: Adapter, base: Source) -> Iterator[str]:
    """Why llama.cpp cannot apply the adapter at run time; a message each."""
    for name, target in adapter.targets.items():
        if target.dora:
            yield f"{name!r} uses DoRA, which also scales the base's rows, while llama.cpp can only add to them"
        if target.added_bias:
            yield f"{name!r} has its own bias, which llama.cpp does not add"
        if target.embedding:
            yield f"{name!r} is an embedding, which llama.cpp does not adapt where it is tied to the output"
    for name in adapter.replaced:
        yield f"{name!r} was trained in full, not as a pair of matrices"
    for name in adapter.tokens:
        yield f"{name!r} has token rows that were trained in full, not as a pair of matrices"
    for name, original in adapter.originals.items():
        if name in base.shapes() and not np.array_equal(base.tensor(name), adapter.tensor(original)):
            yield f"{name!r} was trained on weights that differ from the base's, for example after a vocabulary resize"
    if not any(target.scaling for target in adapter.targets.values()):
        yield "it changes nothing: it has no target, or every alpha is 0"


def _names(adapter: Adapter, base: Source, architecture: Architecture) -> dict[str, str]:
    """Target name in the checkpoint -> in the GGUF. Raises ModelError for a target that is not a linear layer there."""
    names = {theirs: ours for ours, theirs in tensor_names(architecture, base.config).items()}
    shapes = base.shapes()
    for theirs, target in adapter.targets.items():
        if theirs not in names or theirs not in shapes:
            tied = theirs == "lm_head.weight"
            what = (
                f"is the embedding in this base; {_INSTEAD}"
                if tied
                else "is not in this base; give the base that it was trained on"
            )
            raise ModelError(f"{adapter.file}: {theirs!r} {what}")
        shape = adapter.shapes[target.b][0], adapter.shapes[target.a][1]
        if shape != shapes[theirs]:
            message = f"{theirs!r} has shape {shape}, but {shapes[theirs]} in this base"
            raise ModelError(f"{adapter.file}: {message}; give the base that it was trained on")
        if not ADAPTABLE.fullmatch(names[theirs]):
            raise ModelError(f"{adapter.file}: {theirs!r} is not a layer that llama.cpp adapts at run time; {_INSTEAD}")
    return {theirs: names[theirs] for theirs in adapter.targets}


def _alpha(adapter: Adapter) -> float:
    """The most frequent scaling × rank; never 0, which llama.cpp reads as not given."""
    found = Counter(target.scaling * target.rank for target in adapter.targets.values() if target.scaling)
    return found.most_common(1)[0][0]


def _factors(
    name: str, adapter: Adapter, base: Source, architecture: Architecture, alpha: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A, and B with its rows in GGUF order, rescaled where `alpha` does not give its scaling.

    Shapes: (rank, columns), (rows, rank)
    """
    target = adapter.targets[name]
    a, b = adapter.factors(name)
    b = b[_order(name, len(b), architecture, base.config)]
    if (factor := target.scaling * target.rank / alpha) != 1:
        b = (b * np.float64(factor)).astype(np.float32)
    return a, b


def _order(name: str, rows: int, architecture: Architecture, config: Mapping[str, object]) -> NDArray[np.intp]:
    """For each row of the GGUF's tensor, the row of the checkpoint's. Shape: (rows,)

    Raises ModelError where the family changes the tensor beyond reordering its rows, since B cannot follow.
    """
    numbered = architecture.convert_tensor(name, np.arange(rows, dtype=np.float32)[:, None], config)
    order = numbered[:, 0].astype(np.intp)
    if not np.array_equal(np.sort(numbered[:, 0]), np.arange(rows)):
        raise ModelError(f"{architecture.name} changes {name!r} beyond reordering its rows; {_INSTEAD}")
    return order


def _cast(tensor: NDArray[np.float32], name: str, level: str) -> NDArray[np.floating]:
    kind = LEVELS[level]
    if np.abs(tensor).max(initial=0.0) > np.finfo(kind).max:
        raise ModelError(f"the adapter of {name!r} has values that {kind} cannot hold; write it as F32")
    return np.ascontiguousarray(tensor, kind)
