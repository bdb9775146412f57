"""One config.json, read alike by both generations of transformers.

transformers 5 writes the rotary settings as `rope_parameters`, for Gemma 3 one per type of layer. 4.57 does not know
that key and takes its class's rotary base, without a word. 5 reads both spellings, but for one of Phi-3's old names.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bioner_edge.convert.architectures.rope import FULL, SLIDING
from bioner_edge.convert.checkpoint import load_json
from bioner_edge.errors import ModelError

__all__ = ["as_five", "as_four", "load", "record"]

_TRAINED = "original_max_position_embeddings"
# Settings that 4 looks for at the top of config.json.
_TOP = ("rope_theta", "partial_rotary_factor")
# Kinds of model whose class in 4 takes the older `type` alone; the others' want `rope_type`.
_TYPE = ("olmo2", "phi3")
# What longrope was called when Phi-3 came out; 4 knows both names.
_LONGROPE = ("su", "yarn")


def load(folder: Path, **changes: Any) -> Any:
    """The configuration in `folder` as an object of the transformers that is installed, with some values changed.

    Raises ModelError as `record` does, ValueError for a kind of model that this transformers does not know.
    """
    import transformers

    settings = record(folder)
    kind = settings.get("model_type")
    if not isinstance(kind, str) or kind not in transformers.CONFIG_MAPPING:
        raise ValueError(f"model_type {kind!r} is unknown to transformers {transformers.__version__}")
    config = transformers.CONFIG_MAPPING[kind].from_dict(settings)
    for key, value in changes.items():
        setattr(config, key, value)
    return config


def record(folder: Path) -> dict[str, Any]:
    """The config.json in `folder`, spelled for the transformers that is installed.

    Raises ModelError where it is missing or no JSON object, and for what this transformers has no words for.
    """
    import transformers

    spelled = as_four if int(transformers.__version__.split(".")[0]) < 5 else as_five
    return spelled(load_json(folder / "config.json"))


def as_five(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config.json as transformers 5 reads it: what it does not understand, spelled otherwise."""
    old = config.get("rope_scaling")
    if config.get("model_type") != "phi3" or not isinstance(old, dict) or _kind(old) not in _LONGROPE:
        return dict(config)
    return {**config, "rope_scaling": {**old, "rope_type": "longrope", "type": "longrope"}}


def as_four(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config.json as transformers 4 spells it. One that is spelled so comes back as it was.

    Raises ModelError for settings that 4 has no words for.
    """
    found = {key: value for key, value in config.items() if key != "rope_parameters"}
    settings = _object(config, "rope_parameters")
    if SLIDING in settings or FULL in settings:
        found |= _in_windows(_object(settings, SLIDING))
        settings = _object(settings, FULL)
    return found | _everywhere(settings, config) if settings else found


def _everywhere(settings: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the layers that see the whole text."""
    kind = _kind(settings)
    found = {key: settings[key] for key in _TOP if key in settings}
    scaling = {key: value for key, value in settings.items() if key not in (*_TOP, "rope_type", "type")}
    if kind == "longrope" and _TRAINED in scaling:
        found[_TRAINED] = scaling[_TRAINED]  # 4 looks for it here alone
        if config.get("model_type") == "phi3":  # whose class takes nothing but the factors
            del scaling[_TRAINED]
    named = "type" if config.get("model_type") in _TYPE else "rope_type"
    return {**found, "rope_scaling": None if kind == "default" else {named: kind, **scaling}}


def _in_windows(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the layers with a sliding window, of which 4 knows the base alone."""
    if _kind(settings) != "default" or set(settings) - {"rope_type", "type", "rope_theta"}:
        message = f"rope_parameters scale {SLIDING}, which transformers 4 cannot do: pip install 'transformers>=5'"
        raise ModelError(f"config.json: {message}")
    return {"rope_local_base_freq": settings["rope_theta"]} if "rope_theta" in settings else {}


def _object(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = config.get(key) or {}
    if not isinstance(value, dict):
        raise ModelError(f"config.json: {key!r} must be an object, not {value!r}")
    return value


def _kind(settings: Mapping[str, Any]) -> Any:
    return settings.get("rope_type", settings.get("type", "default"))
