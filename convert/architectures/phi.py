"""Phi-3, Phi-3.5 and Phi-4-mini: fused projections, kept fused; one divisor per rotary frequency for long contexts.

llama.cpp uses the long divisors where the context is longer than in training, transformers where the text is: they
agree for texts and contexts up to that length.
"""

from __future__ import annotations

from gguf import MODEL_ARCH

from bioner_edge.convert.architectures.config import Config, Metadata, shared_width, within_window
from bioner_edge.convert.architectures.contract import NORMS, Architecture

__all__ = ["PHI3"]


def _phi3(config: Config) -> Metadata:
    shared_width(config)
    return within_window(config, sliding=True)


PHI3 = Architecture(
    gguf=MODEL_ARCH.PHI3,
    layer={
        "self_attn.qkv_proj.weight": ("qkv", "hidden"),
        "self_attn.o_proj.weight": ("hidden", "q"),
        "mlp.gate_up_proj.weight": ("gate and up", "hidden"),
        "mlp.down_proj.weight": ("hidden", "feed"),
        **NORMS,
    },
    # Phi-3 was released with su and yarn as names of longrope
    ropes={"default": "default", "longrope": "longrope", "su": "longrope", "yarn": "longrope"},
    defaults={"original_max_position_embeddings": 4096, "rms_norm_eps": 1e-5},
    only={"hidden_act": ("silu", "swish")},
    parts=True,
    more=_phi3,
)
