"""Rotary position embeddings: read both spellings of config.json and write what llama.cpp needs.

transformers 5 writes `rope_parameters`, for Gemma 3 one per type of layer; 4 wrote `rope_theta`, `rope_scaling` and
`rope_local_base_freq` instead. Contradictory settings are refused, and so is a kind of scaling that llama.cpp does not
support for an architecture: without it, the model would be wrong at every position.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bioner_edge.convert.architectures.config import Config, Metadata, heads, number, only, positive
from bioner_edge.errors import ModelError, unknown_name

__all__ = ["DIVIDED", "FULL", "SCALED", "SLIDING", "UNSCALED", "Rope", "keys", "read", "tensors"]

# The types of layers that may have their own settings.
FULL = "full_attention"
SLIDING = "sliding_attention"

# How config.json spells a kind of scaling -> the kind. Which of them llama.cpp computes depends on the architecture:
# all support one factor for positions, only some a divisor per frequency.
UNSCALED = {"default": "default"}
SCALED = UNSCALED | {"linear": "linear", "yarn": "yarn"}
DIVIDED = SCALED | {"llama3": "llama3", "longrope": "longrope"}

# The key of the base beside `rope_scaling`, by type of layer.
_BASES = {None: "rope_theta", FULL: "rope_theta", SLIDING: "rope_local_base_freq"}
_TRAINED = "original_max_position_embeddings"


@dataclass(frozen=True, slots=True)
class Rope:
    """Rotary settings of config.json: the kind of scaling, its parameters, and how many dimensions of a head are
    rotated."""

    kind: str
    base: float
    rotated: int
    settings: Config


def read(config: Config, kinds: Mapping[str, str], base: float, layers: str | None = None) -> Rope:
    """The rotary settings of config.json, where layers differ those of one type of layers; `base` is the default base.

    Raises ModelError where they contradict each other, lack a number, or are of a kind that is not in `kinds`.
    """
    settings = _settings(config, layers)
    spelled = str(settings.get("rope_type", "default"))
    if spelled not in kinds:
        raise ModelError(f"config.json: {unknown_name('rope scaling', spelled, kinds)}; only these can be converted")
    _agree(settings, config, "partial_rotary_factor", "partial_rotary_factor")
    rotated = int(heads(config)[2] * number(settings, "partial_rotary_factor", 1.0))
    if rotated % 2 or not 0 < rotated <= heads(config)[2]:
        raise ModelError(f"config.json: {rotated} of a head's {heads(config)[2]} dimensions cannot be rotated in pairs")
    return Rope(kinds[spelled], number(settings, "rope_theta", base), rotated, settings)


def keys(rope: Rope, config: Config) -> Metadata:
    """The metadata of the rotary embedding, without the architecture's prefix."""
    found: Metadata = {"rope.dimension_count": rope.rotated, "rope.freq_base": rope.base}
    if rope.kind in ("linear", "yarn", "longrope"):
        found["rope.scaling.type"] = rope.kind
    if rope.kind in ("linear", "yarn"):
        found["rope.scaling.factor"] = number(rope.settings, "factor")
    if rope.kind in ("yarn", "longrope"):
        found["rope.scaling.original_context_length"] = _trained_length(rope, config)
        found["rope.scaling.attn_factor"] = _yarn(rope) if rope.kind == "yarn" else _longrope(rope, config)
    return found


def tensors(rope: Rope, config: Config) -> dict[str, NDArray[np.float32]]:
    """The divisor of each rotary frequency, by GGUF name. Shape: (rotated / 2,)"""
    if rope.kind == "llama3":
        return {"rope_freqs.weight": _llama3(rope, config)}
    if rope.kind == "longrope":
        return {f"rope_factors_{length}.weight": _factors(rope, f"{length}_factor") for length in ("long", "short")}
    return {}


def _settings(config: Config, layers: str | None) -> dict[str, Any]:
    """Merge both spellings. `rope_scaling` never applied to sliding-window layers."""
    new, old = (_object(config, key) for key in ("rope_parameters", "rope_scaling"))
    nested = [key for key in (FULL, SLIDING) if key in new]
    if new and bool(nested) != bool(layers):
        layout = f"hold {FULL} and {SLIDING}" if layers else "be the same for all layers"
        raise ModelError(f"config.json: rope_parameters must {layout} in this architecture")
    settings = _with_rope_type(_object(new, layers) if layers else new)
    if layers != SLIDING:
        for key, value in _with_rope_type(old).items():
            if settings.setdefault(key, value) != value:
                message = f"{key!r} is {value!r} in rope_scaling and {settings[key]!r} in rope_parameters"
                raise ModelError(f"config.json: {message}; keep one of the two")
    _agree(settings, config, "rope_theta", _BASES[layers])
    return settings


def _object(config: Config, key: str) -> dict[str, Any]:
    value = config.get(key) or {}
    if not isinstance(value, dict):
        raise ModelError(f"config.json: {key!r} must be an object, not {value!r}")
    return value


def _with_rope_type(settings: dict[str, Any]) -> dict[str, Any]:
    """Name the kind of scaling `rope_type`; older files call it `type`."""
    kind = settings.get("rope_type", settings.get("type"))
    others = {key: value for key, value in settings.items() if key not in ("rope_type", "type")}
    return others if kind is None else {**others, "rope_type": kind}


def _agree(settings: dict[str, Any], config: Config, key: str, top: str) -> None:
    """Copy a value that config.json has outside the rotary settings. Raises ModelError where the two differ."""
    value = config.get(top)
    if value is not None and settings.setdefault(key, value) != value:
        raise ModelError(f"config.json: {top} is {value} at the top and {settings[key]} in rope_parameters")


def _trained_length(rope: Rope, config: Config) -> int:
    """The context length of training, before scaling."""
    settings = dict(rope.settings)
    _agree(settings, config, _TRAINED, _TRAINED)
    return positive(settings, _TRAINED, positive(config, "max_position_embeddings"))


def _yarn(rope: Rope) -> float:
    """The factor on top of the attention factor that llama.cpp derives from `factor` itself (llama-context.cpp)."""
    only(rope.settings, "beta_fast", 32, None)
    only(rope.settings, "beta_slow", 1, None)
    only(rope.settings, "truncate", True)
    factor = number(rope.settings, "factor")
    if factor < 1:
        raise ModelError(f"config.json: a yarn factor of {factor} cannot be converted, only 1 or more")

    def scale(by: float) -> float:
        return 0.1 * by * math.log(factor) + 1.0

    attention_factor = rope.settings.get("attention_factor")
    if attention_factor is None and rope.settings.get("mscale") and rope.settings.get("mscale_all_dim"):
        attention_factor = scale(number(rope.settings, "mscale")) / scale(number(rope.settings, "mscale_all_dim"))
    return (
        1.0
        if attention_factor is None
        else number({"attention_factor": attention_factor}, "attention_factor") / scale(1.0)
    )


def _longrope(rope: Rope, config: Config) -> float:
    """The factor of cosine and sine. (transformers 4 used the ratio even where `factor` was given.)"""
    trained = _trained_length(rope, config)
    ratio = positive(config, "max_position_embeddings") / trained
    if rope.settings.get("attention_factor") is not None:
        return number(rope.settings, "attention_factor")
    if number(rope.settings, "factor", ratio) != ratio:
        message = (
            f"factor {rope.settings['factor']} in the rotary settings, but a context {ratio} times that of training"
        )
        raise ModelError(f"config.json: {message}; give attention_factor")
    return math.sqrt(1 + math.log(ratio) / math.log(trained)) if ratio > 1 else 1.0


def _factors(rope: Rope, key: str) -> NDArray[np.float32]:
    values = rope.settings.get(key)
    try:
        factors = np.array(values, np.float32)
    except (TypeError, ValueError):
        factors = np.empty(0, np.float32)
    if factors.shape != (rope.rotated // 2,) or not np.isfinite(factors).all() or factors.min() <= 0:
        raise ModelError(f"config.json: {key!r} must hold {rope.rotated // 2} positive numbers, one per frequency")
    return factors


def _llama3(rope: Rope, config: Config) -> NDArray[np.float32]:
    factor, low, high = (number(rope.settings, key) for key in ("factor", "low_freq_factor", "high_freq_factor"))
    if high <= low:
        raise ModelError(f"config.json: high_freq_factor {high} must be larger than low_freq_factor {low}")
    exponents = np.arange(0, rope.rotated, 2, dtype=np.float64) / rope.rotated
    wavelengths = 2 * math.pi * rope.base**exponents
    # 1 for frequencies that rotated often in training, `factor` for those that hardly did, a smooth step between
    smooth = np.clip((_trained_length(rope, config) / wavelengths - low) / (high - low), 0.0, 1.0)
    return (1 / ((1 - smooth) / factor + smooth)).astype(np.float32)
