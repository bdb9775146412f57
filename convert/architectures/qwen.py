"""Qwen2, Qwen2.5 and Qwen3: Qwen2 has biases on q, k and v; Qwen3 has q and k norms and its own head width."""

from __future__ import annotations

from gguf import MODEL_ARCH

from bioner_edge.convert.architectures import rope
from bioner_edge.convert.architectures.config import Config, Metadata, shared_width, within_window
from bioner_edge.convert.architectures.contract import BIASES, LINEAR, NORMS, Architecture, Layer

__all__ = ["QWEN2", "QWEN3"]

_QKV_BIASES: Layer = {f"self_attn.{part}_proj.bias": BIASES[f"self_attn.{part}_proj.bias"] for part in "qkv"}
_Q_AND_K_NORMS: Layer = {"self_attn.q_norm.weight": ("width",), "self_attn.k_norm.weight": ("width",)}


def _window(config: Config) -> Metadata:
    return within_window(config, sliding=bool(config.get("use_sliding_window")))


def _qwen2(config: Config) -> Metadata:
    shared_width(config)
    return _window(config)


QWEN2 = Architecture(
    gguf=MODEL_ARCH.QWEN2,
    layer={**LINEAR, **_QKV_BIASES, **NORMS},
    ropes=rope.SCALED,
    defaults={"num_key_value_heads": 32, "sliding_window": 4096},
    only={"hidden_act": ("silu", "swish")},
    more=_qwen2,
)

QWEN3 = Architecture(
    gguf=MODEL_ARCH.QWEN3,
    layer={**LINEAR, **_Q_AND_K_NORMS, **NORMS},
    ropes=rope.SCALED,
    defaults={"num_key_value_heads": 32, "head_dim": 128, "sliding_window": 4096},
    only={"hidden_act": ("silu", "swish"), "attention_bias": (False,)},
    more=_window,
)
