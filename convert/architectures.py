"""What each model family needs to become a GGUF: a table, and the few functions that its rows name.

A row says which GGUF architecture it is, which metadata follow from config.json, which tensors must be there and how
they are shaped, which of them change on the way, and which are made from the configuration alone. A new family is a
row and, where it differs, a function beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from gguf import MODEL_ARCH, MODEL_ARCH_NAMES
from numpy.typing import NDArray

from bioner_edge.errors import ModelError, known

__all__ = ["ARCHITECTURES", "Architecture", "Config", "Weights", "of", "positive"]

Config = Mapping[str, Any]
Weights = NDArray[np.float32]
Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Architecture:
    """How one Hugging Face architecture is written as GGUF.

    `metadata` gives the keys without the architecture's prefix; `shapes` the tensors, by their name in the checkpoint;
    `changes` a function per ending of such a name; `made` tensors, by their name in the GGUF, that have no
    counterpart in the checkpoint.
    """

    gguf: MODEL_ARCH
    metadata: Callable[[Config], dict[str, int | float]]
    shapes: Callable[[Config], Shapes]
    changes: Mapping[str, Callable[[Weights, Config], Weights]]
    made: Callable[[Config], dict[str, Weights]]

    @property
    def name(self) -> str:
        """The value of general.architecture and the prefix of the keys."""
        return str(MODEL_ARCH_NAMES[self.gguf])

    def changed(self, name: str, tensor: Weights, config: Config) -> Weights:
        """The tensor as the GGUF holds it. Shape: as it came."""
        for ending, change in self.changes.items():
            if name.endswith(ending):
                return change(tensor, config)
        return tensor


def of(config: Config) -> Architecture:
    """The row of config.json's architecture. Raises ModelError for one that is not in the table."""
    named = config.get("architectures")
    name = named[0] if isinstance(named, list) and named else "none given"
    if name not in ARCHITECTURES:
        raise ModelError(f"config.json: {known('architecture', str(name), ARCHITECTURES)}; use a model of one of these")
    return ARCHITECTURES[name]


def positive(config: Config, key: str, default: int | None = None) -> int:
    """A positive whole number of config.json. Raises ModelError where it is something else."""
    value = config.get(key)
    value = default if value is None else value
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ModelError(f"config.json: {key!r} must be a positive whole number, not {value!r}")
    return value


def _heads(config: Config) -> tuple[int, int, int]:
    """Attention heads, key/value heads, and the width of one."""
    heads = positive(config, "num_attention_heads")
    kv_heads = positive(config, "num_key_value_heads", heads)
    if heads % kv_heads:
        raise ModelError(f"config.json: {heads} attention heads cannot share {kv_heads} key/value heads evenly")
    return heads, kv_heads, positive(config, "head_dim", positive(config, "hidden_size") // heads)


def _rope(config: Config) -> dict[str, Any]:
    """The rotary parameters: transformers 5 keeps them in `rope_parameters`, 4 in `rope_theta` and `rope_scaling`.

    Raises ModelError for a kind of scaling that is not known here: written without it, the model would be wrong at
    every position.
    """
    rope = {**(config.get("rope_scaling") or {}), **(config.get("rope_parameters") or {})}
    kind = rope.setdefault("rope_type", rope.get("type", "default"))
    if kind not in ("default", "llama3"):
        raise ModelError(f"config.json: {known('rope scaling', str(kind), ('default', 'llama3'))}")
    top = config.get("rope_theta")
    if top is not None and rope.setdefault("rope_theta", top) != top:
        raise ModelError(f"config.json: rope_theta is {top} at the top and {rope['rope_theta']} in rope_parameters")
    for factor in (config.get("partial_rotary_factor"), rope.get("partial_rotary_factor")):
        if factor not in (None, 1, 1.0):
            raise ModelError(f"config.json: partial_rotary_factor {factor} cannot be converted, only 1")
    rope.setdefault("rope_theta", 10000.0)  # transformers' own default
    return rope


# --- Llama: q and k are stored with the two halves of each head apart; llama.cpp turns neighbouring pairs.


def _llama_metadata(config: Config) -> dict[str, int | float]:
    heads, kv_heads, width = _heads(config)
    if config.get("hidden_act", "silu") != "silu":
        raise ModelError(f"config.json: hidden_act {config['hidden_act']!r} cannot be converted, only 'silu'")
    return {
        "context_length": positive(config, "max_position_embeddings"),
        "embedding_length": positive(config, "hidden_size"),
        "block_count": positive(config, "num_hidden_layers"),
        "feed_forward_length": positive(config, "intermediate_size"),
        "attention.head_count": heads,
        "attention.head_count_kv": kv_heads,
        "attention.key_length": width,
        "attention.value_length": width,
        "attention.layer_norm_rms_epsilon": float(config.get("rms_norm_eps", 1e-6)),
        "rope.dimension_count": width,
        "rope.freq_base": float(_rope(config)["rope_theta"]),
        "vocab_size": positive(config, "vocab_size"),
    }


def _llama_shapes(config: Config) -> Shapes:
    hidden, feed = positive(config, "hidden_size"), positive(config, "intermediate_size")
    heads, kv_heads, width = _heads(config)
    linear = {  # (rows, columns); attention's biases and the feed-forward's are asked for apart
        "self_attn.q_proj": (heads * width, hidden),
        "self_attn.k_proj": (kv_heads * width, hidden),
        "self_attn.v_proj": (kv_heads * width, hidden),
        "self_attn.o_proj": (hidden, heads * width),
        "mlp.gate_proj": (feed, hidden),
        "mlp.up_proj": (feed, hidden),
        "mlp.down_proj": (hidden, feed),
    }
    biased = [part for part, key in (("self_attn.", "attention_bias"), ("mlp.", "mlp_bias")) if config.get(key)]
    shapes: Shapes = {"model.embed_tokens.weight": (positive(config, "vocab_size"), hidden)}
    for layer in range(positive(config, "num_hidden_layers")):
        for name, shape in linear.items():
            shapes[f"model.layers.{layer}.{name}.weight"] = shape
            if name.startswith(tuple(biased)):
                shapes[f"model.layers.{layer}.{name}.bias"] = shape[:1]
        shapes[f"model.layers.{layer}.input_layernorm.weight"] = (hidden,)
        shapes[f"model.layers.{layer}.post_attention_layernorm.weight"] = (hidden,)
    shapes["model.norm.weight"] = (hidden,)
    if not config.get("tie_word_embeddings"):
        shapes["lm_head.weight"] = shapes["model.embed_tokens.weight"]
    return shapes


def _paired(tensor: Weights, heads: int) -> Weights:
    """Each head's rows from halves to pairs: 0, n/2, 1, n/2 + 1, … Shape: (heads * width, …) both ways."""
    halves = tensor.reshape(heads, 2, tensor.shape[0] // heads // 2, *tensor.shape[1:])
    return halves.swapaxes(1, 2).reshape(tensor.shape)


def _paired_q(tensor: Weights, config: Config) -> Weights:
    return _paired(tensor, _heads(config)[0])


def _paired_k(tensor: Weights, config: Config) -> Weights:
    return _paired(tensor, _heads(config)[1])


def _llama3_frequencies(config: Config) -> dict[str, Weights]:
    """What Llama 3's scaling divides each rotary frequency by; nothing under the default. Shape: (width / 2,)"""
    rope, width = _rope(config), _heads(config)[2]
    if rope["rope_type"] == "default":
        return {}
    try:
        factor, low, high = (float(rope[key]) for key in ("factor", "low_freq_factor", "high_freq_factor"))
        trained = float(rope["original_max_position_embeddings"])
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"config.json: llama3 rope scaling lacks a number: {error}") from None
    wavelengths = 2 * math.pi * float(rope["rope_theta"]) ** (np.arange(0, width, 2, dtype=np.float64) / width)
    # 1 for what turned often enough in training, `factor` for what hardly turned, a smooth step between
    smooth = np.clip((trained / wavelengths - low) / (high - low), 0.0, 1.0)
    return {"rope_freqs.weight": (1 / ((1 - smooth) / factor + smooth)).astype(np.float32)}


_LLAMA = Architecture(
    gguf=MODEL_ARCH.LLAMA,
    metadata=_llama_metadata,
    shapes=_llama_shapes,
    changes={
        "q_proj.weight": _paired_q,
        "q_proj.bias": _paired_q,
        "k_proj.weight": _paired_k,
        "k_proj.bias": _paired_k,
    },
    made=_llama3_frequencies,
)

# The `architectures` entry of config.json -> its row.
ARCHITECTURES: dict[str, Architecture] = {"LlamaForCausalLM": _LLAMA}
