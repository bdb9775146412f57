"""What an architecture is: a row that says how config.json and the tensors of a checkpoint become a GGUF."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from gguf import MODEL_ARCH, MODEL_ARCH_NAMES
from numpy.typing import NDArray

from bioner_edge.convert.architectures import rope
from bioner_edge.convert.architectures.config import Config, Metadata, heads, number, only, positive, sizes
from bioner_edge.errors import ModelError

__all__ = ["BIASES", "LINEAR", "NORMS", "Architecture", "Layer", "Shapes", "Weights"]

Weights = NDArray[np.float32]
Shapes = dict[str, tuple[int, ...]]
Layer = Mapping[str, tuple[str, ...]]  # a layer's tensor -> its dimensions, by the names of `config.sizes`

# (rows, columns), as a checkpoint stores them
LINEAR: Layer = {
    "self_attn.q_proj.weight": ("q", "hidden"),
    "self_attn.k_proj.weight": ("kv", "hidden"),
    "self_attn.v_proj.weight": ("kv", "hidden"),
    "self_attn.o_proj.weight": ("hidden", "q"),
    "mlp.gate_proj.weight": ("feed", "hidden"),
    "mlp.up_proj.weight": ("feed", "hidden"),
    "mlp.down_proj.weight": ("hidden", "feed"),
}
BIASES: Layer = {name.replace(".weight", ".bias"): shape[:1] for name, shape in LINEAR.items()}
NORMS: Layer = {"input_layernorm.weight": ("hidden",), "post_attention_layernorm.weight": ("hidden",)}

_EMBEDDING, _OUTPUT = "model.embed_tokens.weight", "lm_head.weight"


def _nothing(config: Config) -> Metadata:
    """No metadata beyond what every architecture has."""
    return {}


@dataclass(frozen=True, slots=True)
class Architecture:
    """How one Hugging Face architecture is written as GGUF.

    `layer` are the tensors of a layer, `biases` those present where a key of config.json is true. `defaults` are the
    defaults of its configuration class, `base` the default rotary base. `only` are the values that llama.cpp assumes;
    any other is refused. `ropes` are the kinds of rotary scaling that llama.cpp supports for it, `parts` whether it
    supports partial rotation of a head, and `rope_layers` the type of layers that the rotary keys describe, where
    layers differ. `changes` maps the ending of a checkpoint tensor's name to a function that changes the tensor; `more`
    returns the metadata specific to this architecture and refuses values that cannot be written. `own_output` says that
    llama.cpp needs an output matrix even where it is tied to the embedding. `tolerance` is the largest accepted
    difference of an F32 logit from transformers', in standard deviations.
    """

    gguf: MODEL_ARCH
    layer: Layer
    ropes: Mapping[str, str]
    biases: Mapping[str, Layer] = field(default_factory=dict)
    defaults: Config = field(default_factory=dict)
    base: float = 10000.0
    only: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    parts: bool = False
    rope_layers: str | None = None
    changes: Mapping[str, Callable[[Weights, Config], Weights]] = field(default_factory=dict)
    more: Callable[[Config], Metadata] = _nothing
    own_output: bool = False
    tolerance: float = 1e-3

    @property
    def name(self) -> str:
        """The value of general.architecture, and the prefix of the keys."""
        return str(MODEL_ARCH_NAMES[self.gguf])

    def metadata(self, config: Config) -> Metadata:
        """The keys without the architecture's prefix. Raises ModelError for what llama.cpp does not support."""
        config = self._whole(config)
        for key, allowed in self.only.items():
            only(config, key, *allowed)
        count, kv_count, width = heads(config)
        return {
            "context_length": positive(config, "max_position_embeddings"),
            "embedding_length": positive(config, "hidden_size"),
            "block_count": positive(config, "num_hidden_layers"),
            "feed_forward_length": positive(config, "intermediate_size"),
            "attention.head_count": count,
            "attention.head_count_kv": kv_count,
            "attention.key_length": width,
            "attention.value_length": width,
            "attention.layer_norm_rms_epsilon": number(config, "rms_norm_eps", 1e-6),
            "vocab_size": positive(config, "vocab_size"),
            **rope.keys(self._rope(config), config),
            **self.more(config),
        }

    def shapes(self, config: Config) -> Shapes:
        """The shapes of the required tensors, by checkpoint name."""
        config = self._whole(config)
        size = sizes(config)
        layer = dict(self.layer)
        for key, biases in self.biases.items():
            layer |= biases if config.get(key) else {}
        found: Shapes = {_EMBEDDING: (size["vocabulary"], size["hidden"])}
        for at in range(positive(config, "num_hidden_layers")):
            for name, dimensions in layer.items():
                found[f"model.layers.{at}.{name}"] = tuple(size[dimension] for dimension in dimensions)
        found["model.norm.weight"] = (size["hidden"],)
        if not config.get("tie_word_embeddings"):
            found[_OUTPUT] = found[_EMBEDDING]
        return found

    def derived_tensors(self, config: Config) -> dict[str, Weights]:
        """Tensors computed from config.json alone, by GGUF name."""
        config = self._whole(config)
        return rope.tensors(self._rope(config), config)

    def duplicated(self, config: Config) -> dict[str, str]:
        """Tensors that are written a second time: GGUF name -> checkpoint name."""
        tied = self._whole(config).get("tie_word_embeddings")
        return {"output.weight": _EMBEDDING} if tied and self.own_output else {}

    def convert_tensor(self, name: str, tensor: Weights, config: Config) -> Weights:
        """The tensor as the GGUF stores it. Shape: unchanged."""
        for ending, change in self.changes.items():
            if name.endswith(ending):
                return change(tensor, self._whole(config))
        return tensor

    def _whole(self, config: Config) -> Config:
        return {**self.defaults, **config}

    def _rope(self, config: Config) -> rope.Rope:
        found = rope.read(config, self.ropes, self.base, self.rope_layers)
        if found.rotated != heads(config)[2] and not self.parts:
            message = f"{found.rotated} of {heads(config)[2]} dimensions of a head are rotated"
            raise ModelError(f"config.json: partial_rotary_factor: {message}; only full rotation can be converted")
        return found
