"""Gemma 2 and the text model of Gemma 3: norm weights stored minus one, sliding-window layers between full ones.

llama.cpp itself scales the embedding by the root of its width, and derives the attention scale from the number of
layers, so only that scale can be converted.
"""

from __future__ import annotations

from gguf import MODEL_ARCH

from bioner_edge.convert.architectures import rope
from bioner_edge.convert.architectures.config import Config, Metadata, heads, number, positive
from bioner_edge.convert.architectures.contract import LINEAR, NORMS, Architecture, Layer, Weights
from bioner_edge.errors import ModelError

__all__ = ["GEMMA2", "GEMMA3"]

# The layer count by which llama.cpp recognizes the largest model of a family, whose attention scale differs.
_LARGEST = {MODEL_ARCH.GEMMA2: 46, MODEL_ARCH.GEMMA3: 62}


def _plus_one(tensor: Weights, config: Config) -> Weights:
    """transformers multiplies by 1 + weight, llama.cpp by the weight."""
    return tensor + 1


def _gemma2(config: Config) -> Metadata:
    _attention_scale(config, MODEL_ARCH.GEMMA2)
    return {
        "attn_logit_softcapping": number(config, "attn_logit_softcapping"),
        "final_logit_softcapping": number(config, "final_logit_softcapping"),
        **_windows(config, period=2),
    }


def _gemma3(config: Config) -> Metadata:
    _attention_scale(config, MODEL_ARCH.GEMMA3)
    found = _windows(config, period=positive(config, "sliding_window_pattern", 6))
    if found:
        found["rope.freq_base_swa"] = rope.read(config, rope.UNSCALED, 10000.0, rope.SLIDING).base
    if config.get("final_logit_softcapping") is not None:
        found["final_logit_softcapping"] = number(config, "final_logit_softcapping")
    return found


def _attention_scale(config: Config, family: MODEL_ARCH) -> None:
    """Raises ModelError unless the attention scale is the one that llama.cpp uses (models/gemma3.cpp)."""
    count, _, width = heads(config)
    if positive(config, "num_hidden_layers") == _LARGEST[family]:
        width = positive(config, "hidden_size") // count
    if number(config, "query_pre_attn_scalar") != width:
        message = f"query_pre_attn_scalar {config['query_pre_attn_scalar']} cannot be converted"
        raise ModelError(f"config.json: {message}, only {width}: llama.cpp supports no other at this size")


def _windows(config: Config, period: int) -> Metadata:
    """The window and which layers use it; by default all but every `period`-th. Empty where no layer does."""
    layers = positive(config, "num_hidden_layers")
    types = config.get("layer_types")
    if types is None:
        types = [rope.SLIDING if (layer + 1) % period else rope.FULL for layer in range(layers)]
    if not isinstance(types, list) or len(types) != layers or not all(t in (rope.SLIDING, rope.FULL) for t in types):
        raise ModelError(
            f"config.json: layer_types must hold {rope.SLIDING} or {rope.FULL} for each of {layers} layers"
        )
    sliding = [kind == rope.SLIDING for kind in types]
    if not any(sliding):
        return {}
    return {
        "attention.sliding_window": positive(config, "sliding_window"),
        "attention.sliding_window_pattern": sliding,
    }


_FOUR_NORMS: Layer = {
    **NORMS,
    "pre_feedforward_layernorm.weight": ("hidden",),
    "post_feedforward_layernorm.weight": ("hidden",),
}
_ONLY = {
    "hidden_activation": ("gelu_pytorch_tanh",),
    "attention_bias": (False,),
    "use_bidirectional_attention": (None, False),
}
_DEFAULTS = {
    "num_key_value_heads": 4,
    "head_dim": 256,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "tie_word_embeddings": True,
}
# ggml looks up GELU in a float16 table (ggml-cpu/vec.h), so each layer adds noise of about 3e-4 of its output.
_TOLERANCE = 1e-2

GEMMA2 = Architecture(
    gguf=MODEL_ARCH.GEMMA2,
    layer={**LINEAR, **_FOUR_NORMS},
    ropes=rope.SCALED,
    defaults={**_DEFAULTS, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
    only={**_ONLY, "tie_word_embeddings": (True,)},
    changes={"norm.weight": _plus_one},
    more=_gemma2,
    tolerance=_TOLERANCE,
)

GEMMA3 = Architecture(
    gguf=MODEL_ARCH.GEMMA3,
    layer={
        **LINEAR,
        "self_attn.q_norm.weight": ("width",),
        "self_attn.k_norm.weight": ("width",),
        **_FOUR_NORMS,
    },
    ropes={"default": "default", "linear": "linear"},
    defaults=_DEFAULTS,
    base=1_000_000.0,
    only={**_ONLY, "attn_logit_softcapping": (None,)},
    rope_layers=rope.FULL,
    changes={"norm.weight": _plus_one},
    more=_gemma3,
    tolerance=_TOLERANCE,
)
