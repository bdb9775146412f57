"""Load the torch model of a checkpoint for an exporter, after checking that no tensor would be lost.

transformers initializes a missing tensor randomly and ignores an unknown one; an exporter silently writes either. So
the checkpoint is first checked against the tables of `architectures`.
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

# Bidirectional attention, which cannot use a cache.
_CAUSAL = {"is_causal": (True, None), "use_bidirectional_attention": (None, False)}


@dataclass(frozen=True, slots=True)
class Staged:
    """A model ready for export: its architecture in config.json, the number of positions of its graph, and the torch
    model."""

    architecture: str
    context: int
    model: Any


def stage(folder: Path) -> Staged:
    """Load the checkpoint in `folder`. Raises ModelError as `check` does, and where transformers cannot load it."""
    architecture, context = check(folder)
    model = reference.read(folder)
    if type(model).__name__ != architecture:
        message = (
            f"architectures names {architecture}, but model_type {model.config.model_type!r} is {type(model).__name__}"
        )
        raise ModelError(f"{folder / 'config.json'}: {message}; save the model again")
    return Staged(architecture, context, model.requires_grad_(False))


def check(folder: Path) -> tuple[str, int]:
    """(architecture, number of positions that its graph is valid for) of the checkpoint in `folder`; only headers are
    read.

    Raises ModelError for a missing or surplus tensor, and for what an exporter would compute differently.
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
    _check_tensors(source, row)
    for key, allowed in _CAUSAL.items():
        if config.get(key) not in allowed:
            raise ModelError(
                f"{folder / 'config.json'}: {key} {config[key]}: a model with bidirectional attention cannot generate"
            )
    return architecture, _context(config, row)


def _check_tensors(source: Source, row: Architecture) -> None:
    """Raises ModelError where the tensors do not match config.json."""
    shapes, there = row.shapes(source.config), source.shapes()
    # Old checkpoints contain the rotary frequencies, which follow from config.json.
    frequencies = [name for name in there if name.endswith(".rotary_emb.inv_freq")]
    output, embedding = "lm_head.weight", "model.embed_tokens.weight"
    expect(source, shapes, ignored=(output, *frequencies))
    # 4 drops an output matrix that config.json ties, 5 keeps it
    if output in there and output not in shapes and not np.array_equal(source.tensor(output), source.tensor(embedding)):
        message = "config.json ties output and embedding, but lm_head.weight differs"
        raise ModelError(f"{source.folder}: {message}; set tie_word_embeddings to false")


def _context(config: Config, row: Architecture) -> int:
    """The model's context length, or the length that its first rotary factors apply to.

    With longrope, transformers switches to other factors for longer texts, also for tokens already read, while a cache
    keeps them as rotated. Up to that length both agree.
    """
    found = rope.read(config, {**rope.DIVIDED, **row.ropes}, row.base, row.rope_layers)
    if row.rope_layers:
        rope.read(config, rope.UNSCALED, row.base, rope.SLIDING)
    if found.rotated != heads(config)[2] and not row.parts:
        message = f"{found.rotated} of {heads(config)[2]} dimensions of a head are rotated"
        raise ModelError(f"config.json: partial_rotary_factor: {message}; this architecture rotates all of them")
    longest = positive(config, "max_position_embeddings")
    if found.kind != "longrope":
        return longest
    rope.tensors(found, config)
    trained = rope.keys(found, config)["rope.scaling.original_context_length"]
    assert isinstance(trained, int)
    return min(longest, trained)
