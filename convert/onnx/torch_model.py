"""What an exporter is given: the torch model of a checkpoint, once it is sure that none of its parts would be lost.

transformers gives random values to a tensor that is missing, and passes over one that it does not know; an exporter
writes either without a word. So the checkpoint is held against the tables of `architectures` first.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bioner_edge.convert.architectures import ARCHITECTURES, Architecture, Config, positive, rope
from bioner_edge.convert.architectures.config import heads
from bioner_edge.convert.checkpoint import Checkpoint, Source, expect
from bioner_edge.convert.verification import reference
from bioner_edge.errors import ModelError, unknown_name

__all__ = ["Staged", "check", "stage"]

# Attention that looks ahead: no cache can hold it.
_CAUSAL = {"is_causal": (True, None), "use_bidirectional_attention": (None, False)}


@dataclass(frozen=True, slots=True)
class Staged:
    """A model about to be exported: its class in config.json, how many positions its graph is for, and the model."""

    architecture: str
    context: int
    model: Any


def stage(folder: Path) -> Staged:
    """Load the checkpoint in `folder`. Raises ModelError as `check` does, and where transformers cannot."""
    architecture, context = check(folder)
    model = reference.read(folder)
    if type(model).__name__ != architecture:
        message = f"architectures says {architecture}, model_type {model.config.model_type!r} is {type(model).__name__}"
        raise ModelError(f"{folder / 'config.json'}: {message}; save the model again")
    return Staged(architecture, context, model.requires_grad_(False))


def check(folder: Path) -> tuple[str, int]:
    """The class of the checkpoint in `folder`, and the positions that its graph is right for; only headers are read.

    Raises ModelError where a tensor is missing or one too many, and for what an exporter would compute otherwise.
    """
    source = Checkpoint(folder)
    named = source.config.get("architectures")
    architecture = str(named[0]) if isinstance(named, list) and named else "none given"
    if architecture not in ARCHITECTURES:
        raise ModelError(
            f"{folder / 'config.json'}: {unknown_name('architecture', architecture, ARCHITECTURES)}; use one of these"
        )
    row = ARCHITECTURES[architecture]
    config = {**row.defaults, **source.config}
    _complete(source, row)
    for key, allowed in _CAUSAL.items():
        if config.get(key) not in allowed:
            raise ModelError(f"{folder / 'config.json'}: {key} {config[key]}: a model that reads ahead cannot generate")
    return architecture, _context(config, row)


def _complete(source: Source, row: Architecture) -> None:
    """Raises ModelError where the tensors are not those of config.json."""
    shapes, there = row.shapes(source.config), source.shapes()
    # Old checkpoints hold the rotary frequencies, which follow from config.json.
    frequencies = [name for name in there if name.endswith(".rotary_emb.inv_freq")]
    output, embedding = "lm_head.weight", "model.embed_tokens.weight"
    expect(source, shapes, ignored=(output, *frequencies))
    # 4 drops an output matrix that config.json ties, 5 keeps it
    if output in there and output not in shapes and not np.array_equal(source.tensor(output), source.tensor(embedding)):
        message = "config.json ties output and embedding, but lm_head.weight differs"
        raise ModelError(f"{source.folder}: {message}; set tie_word_embeddings to false")


def _context(config: Config, row: Architecture) -> int:
    """As many positions as the model has, or as its first rotary factors are for.

    Where longrope has more, transformers takes other factors for a text that is longer, also for what it has read
    before; a cache holds that as it was rotated. Up to that length both agree.
    """
    found = rope.read(config, {**rope.DIVIDED, **row.ropes}, row.base, row.rope_layers)
    if row.rope_layers:
        rope.read(config, rope.UNSCALED, row.base, rope.SLIDING)
    if found.rotated != heads(config)[2] and not row.parts:
        message = f"{found.rotated} of {heads(config)[2]} numbers of a head are rotated"
        raise ModelError(f"config.json: partial_rotary_factor: {message}; this architecture rotates all of them")
    longest = positive(config, "max_position_embeddings")
    if found.kind != "longrope":
        return longest
    rope.tensors(found, config)
    trained = rope.keys(found, config)["rope.scaling.original_context_length"]
    assert isinstance(trained, int)
    return min(longest, trained)
