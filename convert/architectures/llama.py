"""Llama, SmolLM2 (a Llama architecture), Mistral, Granite, SmolLM3: the rows of q and k are reordered.

A checkpoint stores the two halves of each head separately; for these architectures llama.cpp rotates adjacent pairs.
"""

from __future__ import annotations

from dataclasses import replace

from gguf import MODEL_ARCH

from bioner_edge.convert.architectures import rope
from bioner_edge.convert.architectures.config import Config, Metadata, heads, number, positive, within_window
from bioner_edge.convert.architectures.contract import BIASES, LINEAR, NORMS, Architecture, Layer, Weights
from bioner_edge.errors import ModelError

__all__ = ["GRANITE", "LLAMA", "MISTRAL", "SMOLLM3"]

_NO_ROPE_STEP = 4  # llama.cpp leaves every fourth layer of SmolLM3 without rotary embedding (models/smollm3.cpp)


def _pair(tensor: Weights, count: int) -> Weights:
    """Reorder each head's rows from halves to pairs: 0, n/2, 1, n/2 + 1, … Shape: (count * width, …) both ways."""
    halves = tensor.reshape(count, 2, tensor.shape[0] // count // 2, *tensor.shape[1:])
    return halves.swapaxes(1, 2).reshape(tensor.shape)


def _pair_q(tensor: Weights, config: Config) -> Weights:
    return _pair(tensor, heads(config)[0])


def _pair_k(tensor: Weights, config: Config) -> Weights:
    return _pair(tensor, heads(config)[1])


def _mistral(config: Config) -> Metadata:
    return within_window(config, sliding=True)


def _granite(config: Config) -> Metadata:
    return {
        "attention.scale": number(config, "attention_multiplier", 1.0),
        "embedding_scale": number(config, "embedding_multiplier", 1.0),
        "residual_scale": number(config, "residual_multiplier", 1.0),
        "logit_scale": number(config, "logits_scaling", 1.0),
    }


def _smollm3(config: Config) -> Metadata:
    """Raises ModelError unless the layers without rotary embedding are those that llama.cpp leaves without."""
    layers = positive(config, "num_hidden_layers")
    step = positive(config, "no_rope_layer_interval", _NO_ROPE_STEP)
    given = config.get("no_rope_layers") or [(layer + 1) % step for layer in range(layers)]
    if not isinstance(given, list) or len(given) < layers:
        raise ModelError(f"config.json: no_rope_layers must be a list of {layers} numbers, not {given!r}")
    rotated = [bool(value) for value in given[:layers]]
    if rotated != [bool((layer + 1) % _NO_ROPE_STEP) for layer in range(layers)]:
        without = [layer for layer, value in enumerate(rotated) if not value]
        message = f"layers {without} have no rotary embedding"
        raise ModelError(f"config.json: {message}; in llama.cpp it is every {_NO_ROPE_STEP}th layer")
    return within_window(config, sliding=bool(config.get("use_sliding_window")))


_SILU = {"hidden_act": ("silu", "swish")}
_PAIRS = {
    "q_proj.weight": _pair_q,
    "q_proj.bias": _pair_q,
    "k_proj.weight": _pair_k,
    "k_proj.bias": _pair_k,
}
_LAYER: Layer = {**LINEAR, **NORMS}
_BIASES: dict[str, Layer] = {
    "attention_bias": {name: shape for name, shape in BIASES.items() if name.startswith("self_attn.")},
    "mlp_bias": {name: shape for name, shape in BIASES.items() if name.startswith("mlp.")},
}

LLAMA = Architecture(
    gguf=MODEL_ARCH.LLAMA,
    layer=_LAYER,
    ropes=rope.DIVIDED,
    biases=_BIASES,
    only=_SILU,
    changes=_PAIRS,
)

MISTRAL = replace(
    LLAMA,
    biases={},
    defaults={"num_key_value_heads": 8, "sliding_window": 4096},
    more=_mistral,
)

GRANITE = replace(LLAMA, gguf=MODEL_ARCH.GRANITE, more=_granite)

SMOLLM3 = Architecture(
    gguf=MODEL_ARCH.SMOLLM3,
    layer=_LAYER,
    ropes=rope.SCALED,
    defaults={"num_key_value_heads": 4, "tie_word_embeddings": True},
    base=2_000_000.0,
    only={**_SILU, "attention_bias": (False,), "mlp_bias": (False,)},
    changes=_PAIRS,
    more=_smollm3,
)
