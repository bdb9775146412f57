"""Write a model as an F32 GGUF, tensor by tensor; every level is made from that file."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFWriter as Writer
from gguf import LlamaFileType, TensorNameMap
from numpy.typing import NDArray

from bioner_edge.convert.architectures import Architecture, Config
from bioner_edge.convert.checkpoint import Source, expect
from bioner_edge.convert.vocabulary import Tokenizer
from bioner_edge.errors import ModelError
from bioner_edge.report import Report

__all__ = ["names", "write"]

_FLOAT = np.dtype(np.float32)
# llama.cpp takes the tokenizer of a model with this in its name for Phi-3's, and changes text around special tokens.
_PHI3 = re.compile("phi-?3", re.IGNORECASE)
# Type of a metadata value -> GGUFWriter method.
_ADD: dict[type, Callable[[Writer, str, Any], None]] = {
    bool: Writer.add_bool,
    int: Writer.add_uint32,
    float: Writer.add_float32,
    str: Writer.add_string,
    list: Writer.add_array,
}


def write(
    path: Path,
    source: Source,
    architecture: Architecture,
    tokenizer: Tokenizer,
    *,
    name: str,
    license: str,
    report: Report | None = None,
) -> tuple[float, str]:
    """Write `path`, which is complete only when this returns: give it a temporary name.

    Returns the largest magnitude of a weight and the name of its tensor. Raises ModelError for a tensor that is
    missing, misshapen or not finite, and for one that would be dropped.
    """
    config = source.config
    shapes = architecture.shapes(config)
    # Old checkpoints contain the rotary frequencies, which follow from config.json; transformers ignores them too.
    frequencies = [name for name in source.shapes() if name.endswith(".rotary_emb.inv_freq")]
    expect(source, shapes, ignored=("lm_head.weight", *frequencies))
    _check_tied(source, "lm_head.weight" in shapes)
    made = architecture.derived_tensors(config)
    written = names(architecture, config) | architecture.duplicated(config)  # name in the GGUF -> in the checkpoint
    largest = (0.0, "")

    writer = Writer(path, architecture.name)
    try:
        writer.add_name(_PHI3.sub("phi 3", name))
        writer.add_license(license)
        writer.add_file_type(LlamaFileType.ALL_F32)
        for key, value in architecture.metadata(config).items():
            _ADD[type(value)](writer, f"{architecture.name}.{key}", value)
        tokenizer.write(writer)

        announced = {ours: tensor.shape for ours, tensor in made.items()}
        announced |= {ours: shapes[theirs] for ours, theirs in written.items()}
        for ours, shape in announced.items():
            writer.add_tensor_info(ours, shape, _FLOAT, prod(shape) * _FLOAT.itemsize)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for tensor in made.values():
            writer.write_tensor_data(tensor)
        with (report or Report()).progress("writing", len(written), "tensors") as advance:
            for theirs in written.values():
                tensor = np.ascontiguousarray(architecture.convert_tensor(theirs, source.tensor(theirs), config))
                largest = max(largest, (_magnitude(tensor), theirs))
                writer.write_tensor_data(tensor)
                del tensor  # before the next one is read
                advance()
    finally:
        writer.close()
    return largest


def names(architecture: Architecture, config: Config) -> dict[str, str]:
    """Tensor name in the GGUF -> name in the checkpoint.

    Raises ModelError for a tensor that gguf has no name for.
    """
    table = TensorNameMap(architecture.gguf, config["num_hidden_layers"])
    found = {}
    for theirs in architecture.shapes(config):
        ours = table.get_name(theirs, (".weight", ".bias"))
        if ours is None:
            raise ModelError(f"tensor {theirs!r} has no name in GGUF's {architecture.name}; the row and gguf disagree")
        found[str(ours)] = theirs
    return found


def _check_tied(source: Source, untied: bool) -> None:
    """Raises ModelError where an output matrix that differs from the embedding would be dropped."""
    if untied or "lm_head.weight" not in source.shapes():
        return
    if _digest(source, "lm_head.weight") != _digest(source, "model.embed_tokens.weight"):
        message = "config.json ties output and embedding, but lm_head.weight differs"
        raise ModelError(f"{source.folder}: {message}; set tie_word_embeddings to false")


def _digest(source: Source, name: str) -> bytes:
    """Hashed here, so that only one of two large tensors is in memory."""
    return hashlib.blake2b(np.ascontiguousarray(source.tensor(name)).data).digest()


def _magnitude(tensor: NDArray[np.float32]) -> float:
    """The largest magnitude, without a copy of the tensor."""
    return max(float(tensor.max(initial=0.0)), -float(tensor.min(initial=0.0)))
