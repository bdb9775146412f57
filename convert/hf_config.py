"""Read config.json with either generation of transformers, 4 or 5.

transformers 5 writes the rotary settings as `rope_parameters`, for Gemma 3 one per type of layer. 4.57 ignores that key
and silently uses its class's default base. 5 reads both spellings, except one of Phi-3's old names.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bioner_edge.convert.architectures.rope import FULL, SLIDING
from bioner_edge.convert.checkpoint import load_json
from bioner_edge.errors import ModelError

__all__ = ["load", "record", "to_v4", "to_v5"]

_TRAINED = "original_max_position_embeddings"
# Settings that 4 reads from the top level of config.json.
_TOP = ("rope_theta", "partial_rotary_factor")
# Model types whose class in 4 reads only the older `type`; the others read `rope_type`.
_TYPE = ("olmo2", "phi3")
# Earlier names of longrope in Phi-3; 4 reads both.
_LONGROPE = ("su", "yarn")


def load(folder: Path, **changes: Any) -> Any:
    """The configuration in `folder` as an object of the installed transformers, with `changes` to its values.

    Raises ModelError as `record` does, ValueError for a model type unknown to the installed transformers.
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
    """The config.json in `folder`, spelled for the installed transformers.

    Raises ModelError where it is missing or not a JSON object, and for settings that this transformers cannot express.
    """
    import transformers

    spelled = to_v4 if int(transformers.__version__.split(".")[0]) < 5 else to_v5
    return spelled(load_json(folder / "config.json"))


def to_v5(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config.json in the spelling that transformers 5 reads."""
    old = config.get("rope_scaling")
    if config.get("model_type") != "phi3" or not isinstance(old, dict) or _kind(old) not in _LONGROPE:
        return dict(config)
    return {**config, "rope_scaling": {**old, "rope_type": "longrope", "type": "longrope"}}


def to_v4(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config.json in the spelling of transformers 4; one already spelled so is returned unchanged.

    Raises ModelError for settings that 4 cannot express.
    """
    found = {key: value for key, value in config.items() if key != "rope_parameters"}
    settings = _object(config, "rope_parameters")
    if SLIDING in settings or FULL in settings:
        found |= _sliding_attention(_object(settings, SLIDING))
        settings = _object(settings, FULL)
    return found | _full_attention(settings, config) if settings else found


def _full_attention(settings: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the layers with full attention."""
    kind = _kind(settings)
    found = {key: settings[key] for key in _TOP if key in settings}
    scaling = {key: value for key, value in settings.items() if key not in (*_TOP, "rope_type", "type")}
    if kind == "longrope" and _TRAINED in scaling:
        found[_TRAINED] = scaling[_TRAINED]  # 4 reads it only here
        if config.get("model_type") == "phi3":  # its class accepts only the factors
            del scaling[_TRAINED]
    named = "type" if config.get("model_type") in _TYPE else "rope_type"
    return {**found, "rope_scaling": None if kind == "default" else {named: kind, **scaling}}


def _sliding_attention(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the sliding-window layers, of which 4 supports only the base."""
    if _kind(settings) != "default" or set(settings) - {"rope_type", "type", "rope_theta"}:
        message = (
            f"rope_parameters scale {SLIDING}, which transformers 4 does not support: pip install 'transformers>=5'"
        )
        raise ModelError(f"config.json: {message}")
    return {"rope_local_base_freq": settings["rope_theta"]} if "rope_theta" in settings else {}


def _object(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = config.get(key) or {}
    if not isinstance(value, dict):
        raise ModelError(f"config.json: {key!r} must be an object, not {value!r}")
    return value


def _kind(settings: Mapping[str, Any]) -> Any:
    return settings.get("rope_type", settings.get("type", "default"))
