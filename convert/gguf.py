"""Writes a checkpoint as a GGUF of one float type, tensor by tensor."""

from __future__ import annotations

from math import prod
from pathlib import Path

import numpy as np
from gguf import GGUFWriter as Writer
from gguf import TensorNameMap
from numpy.typing import NDArray

from bioner_edge.convert.architectures import Architecture, Weights
from bioner_edge.convert.checkpoint import Checkpoint
from bioner_edge.convert.quantize import LEVELS
from bioner_edge.convert.tokenizer import Tokenizer
from bioner_edge.errors import ModelError

__all__ = ["FLOATS", "write"]

# Level -> the type of its matrices. Vectors are float32 in both.
FLOATS: dict[str, np.dtype[np.floating]] = {"F32": np.dtype(np.float32), "F16": np.dtype(np.float16)}
_VECTORS = FLOATS["F32"]


def write(
    path: Path,
    checkpoint: Checkpoint,
    architecture: Architecture,
    tokenizer: Tokenizer,
    level: str,
    *,
    name: str,
    licence: str,
) -> None:
    """Write `path`, which is not complete until this returns: let it have a name that nobody loads.

    Raises ModelError for a tensor that is missing, of another shape, not finite, or too large for float16.
    """
    config = checkpoint.config
    shapes = architecture.shapes(config)
    checkpoint.expect(shapes, ignored=("lm_head.weight",))
    _tied(checkpoint, "lm_head.weight" in shapes)
    made = architecture.made(config)
    matrix = FLOATS[level]

    writer = Writer(path, architecture.name)
    try:
        writer.add_name(name)
        writer.add_license(licence)
        writer.add_file_type(LEVELS[level])
        for key, value in architecture.metadata(config).items():
            if isinstance(value, int):
                writer.add_uint32(f"{architecture.name}.{key}", value)
            else:
                writer.add_float32(f"{architecture.name}.{key}", value)
        tokenizer.write(writer)

        names = _names(architecture, config["num_hidden_layers"], shapes)
        for ours, tensor in made.items():
            _announce(writer, ours, tensor.shape, _VECTORS)
        for theirs, shape in shapes.items():
            _announce(writer, names[theirs], shape, matrix)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for tensor in made.values():
            writer.write_tensor_data(tensor)
        for theirs in shapes:
            tensor = architecture.changed(theirs, checkpoint.tensor(theirs), config)
            writer.write_tensor_data(_typed(tensor, matrix, theirs))
    finally:
        writer.close()


def _tied(checkpoint: Checkpoint, untied: bool) -> None:
    """Raises ModelError where an output matrix would be dropped that is not the embedding."""
    if untied or "lm_head.weight" not in checkpoint:
        return
    if not np.array_equal(checkpoint.tensor("lm_head.weight"), checkpoint.tensor("model.embed_tokens.weight")):
        told = "config.json ties output and embedding, but lm_head.weight differs"
        raise ModelError(f"{checkpoint.folder}: {told}; set tie_word_embeddings to false")


def _names(architecture: Architecture, layers: int, shapes: dict[str, tuple[int, ...]]) -> dict[str, str]:
    """The name in the checkpoint -> the name in the GGUF."""
    table = TensorNameMap(architecture.gguf, layers)
    names = {theirs: table.get_name(theirs, (".weight", ".bias")) for theirs in shapes}
    if lost := [theirs for theirs, ours in names.items() if ours is None]:
        raise ModelError(f"tensor {lost[0]!r} has no name in GGUF's {architecture.name}; the row and gguf disagree")
    return {theirs: str(ours) for theirs, ours in names.items()}


def _announce(writer: Writer, name: str, shape: tuple[int, ...], matrix: np.dtype[np.floating]) -> None:
    kind = _VECTORS if len(shape) == 1 else matrix
    writer.add_tensor_info(name, shape, kind, prod(shape) * kind.itemsize)


def _typed(tensor: Weights, matrix: np.dtype[np.floating], name: str) -> NDArray[np.floating]:
    """The tensor in the type that the file holds it in, contiguous. Shape: as it came."""
    kind = _VECTORS if tensor.ndim == 1 else matrix
    if np.abs(tensor).max(initial=0.0) > np.finfo(kind).max:
        raise ModelError(f"tensor {name!r} has values that {kind} cannot hold; leave that level out")
    return np.ascontiguousarray(tensor, kind)
