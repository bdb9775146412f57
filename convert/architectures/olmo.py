"""OLMo 2: norms after attention and feed-forward instead of before, and over all heads of q and of k."""

from __future__ import annotations

from gguf import MODEL_ARCH

from bioner_edge.convert.architectures import rope
from bioner_edge.convert.architectures.config import Config, Metadata, shared_width
from bioner_edge.convert.architectures.contract import LINEAR, Architecture

__all__ = ["OLMO2"]


def _olmo2(config: Config) -> Metadata:
    shared_width(config)
    return {}


OLMO2 = Architecture(
    gguf=MODEL_ARCH.OLMO2,
    layer={
        **LINEAR,
        "self_attn.q_norm.weight": ("q",),
        "self_attn.k_norm.weight": ("kv",),
        "post_attention_layernorm.weight": ("hidden",),
        "post_feedforward_layernorm.weight": ("hidden",),
    },
    ropes=rope.SCALED,
    defaults={"rms_norm_eps": 1e-5},
    only={"hidden_act": ("silu", "swish"), "attention_bias": (False,)},
    more=_olmo2,
    own_output=True,
)
