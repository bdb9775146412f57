"""The settings of a PEFT adapter: a validated adapter_config.json, and what it says about one module.

Every setting that peft 0.21 knows is either applied, without effect on a merge, or refused by name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bioner_edge.convert.checkpoint import load_json
from bioner_edge.errors import ModelError, unknown_name

__all__ = ["BY_PEFT", "AdapterSettings"]

BY_PEFT = "merge it with peft (merge_and_unload), save that model and give it as the base"
_SHIFTED = "trains on a modified base: save the adapter with path_initial_model_for_weight_conversion, as peft asks"

# Setting that changes the merge -> why it is refused and what to do.
_REFUSED = {
    "layer_replication": "repeats layers of the base, which peft cannot merge either",
    "target_parameters": f"adapts parameters of mixtures of experts: {BY_PEFT}",
    "alora_invocation_tokens": "acts only after its invocation tokens, so it cannot be merged",
    "megatron_config": "belongs to a Megatron base, whose code peft would import",
    "use_qalora": "belongs to a GPTQ base, so it cannot be merged into the weights",
    "monteclora_config": f"draws its weights at random: {BY_PEFT}",
    "use_bdlora": f"has block-diagonal factors: {BY_PEFT}",
    "arrow_config": "chooses among adapters for each token, so it cannot be merged",
    "kasa_config": f"truncates the base before adding to it: {BY_PEFT}",
}
# Prefix of init_lora_weights -> the same. All others leave the base unchanged.
_INITS = {
    "pissa": _SHIFTED,
    "corda": _SHIFTED,
    "olora": _SHIFTED,
    "lora_ga": _SHIFTED,
    "loftq": f"belongs to a base that it quantized: {BY_PEFT}",
}
_FOLLOWED = {
    "peft_type", "task_type", "base_model_name_or_path", "r", "lora_alpha", "rank_pattern", "alpha_pattern",
    "use_rslora", "use_dora", "lora_bias", "bias", "modules_to_save", "trainable_token_indices", "init_lora_weights",
    "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern",
}  # fmt: skip
# Settings of training, or of how peft finds its layers; fan_in_fan_out follows from the layer, as peft corrects it.
_WITHOUT_EFFECT = {
    "auto_mapping", "peft_version", "revision", "inference_mode", "lora_dropout", "fan_in_fan_out",
    "megatron_core", "loftq_config", "eva_config", "corda_config", "lora_ga_config", "velora_config",
    "qalora_group_size", "runtime_config", "ensure_weight_tying",
}  # fmt: skip


class AdapterSettings:
    """adapter_config.json in `folder`. Raises ModelError for the first setting that is not supported."""

    def __init__(self, folder: Path) -> None:
        path = folder / "adapter_config.json"
        self._config = config = load_json(path)
        for reason in (*_unsupported(config), *_malformed(config)):
            raise ModelError(f"{path}: {reason}")
        self.base = str(config.get("base_model_name_or_path") or "unknown")
        self.dora, self.lora_bias = bool(config.get("use_dora")), bool(config.get("lora_bias"))

    def rank(self, module: str) -> int:
        return int(_by_pattern(self._config.get("rank_pattern"), module, self._config["r"]))

    def scaling(self, module: str) -> float:
        """The factor of B @ A."""
        alpha, rank = (
            _by_pattern(self._config.get("alpha_pattern"), module, self._config["lora_alpha"]),
            self.rank(module),
        )
        return float(alpha / math.sqrt(rank) if self._config.get("use_rslora") else alpha / rank)

    def tokens(self, module: str) -> list[int]:
        """The token ids of the trained rows, for a tied module those of its partner; empty where unknown."""
        indices = self._config.get("trainable_token_indices")
        if isinstance(indices, dict):
            found = [ids for key, ids in indices.items() if module.endswith(key)] or list(indices.values())
            indices = found[0] if len(found) == 1 else None
        return (
            indices
            if isinstance(indices, list) and all(type(number) is int and number >= 0 for number in indices)
            else []
        )

    def copies(self, module: str) -> bool:
        """Whether modules_to_save includes it: it is then trained apart from a tensor that it was tied to."""
        keys = tuple(self._config.get("modules_to_save") or ())
        parts = module.split(".")
        return any(".".join(parts[: end + 1]).endswith(keys) for end in range(len(parts)))

    def targets(self, module: str) -> bool:
        """Whether target_modules includes a module, by the rules of peft's check_target_module_exists."""
        targets, excluded = self._config.get("target_modules"), self._config.get("exclude_modules")
        saved = self._config.get("modules_to_save") or ()
        if (excluded and _matches(excluded, module)) or any(_contains(part, module) for part in saved):
            return False
        if targets is None or targets == "all-linear" or not _matches(targets, module):
            return False
        return isinstance(targets, str) or module in targets or self._in_layers(module)

    def _in_layers(self, module: str) -> bool:
        layers, patterns = self._config.get("layers_to_transform"), self._config.get("layers_pattern")
        if layers is None or layers == []:
            return True
        expressions = [rf"(?:^|.*?\.){pattern}\.(?P<layer>\d+)\." for pattern in _list(patterns)]
        found = (re.match(expression, module) for expression in expressions or [r".*?\.[^.]*\.(?P<layer>\d+)\."])
        match = next(filter(None, found), None)
        return match is not None and int(match["layer"]) in ([layers] if isinstance(layers, int) else layers)


def _unsupported(config: Mapping[str, Any]) -> Iterator[str]:
    """Settings that are not supported, a message each."""
    kind, task = config.get("peft_type"), config.get("task_type")
    if kind != "LORA":
        yield f"{unknown_name('adapter', str(kind), ('LORA',))}; {BY_PEFT}"
    if task not in (None, "CAUSAL_LM"):
        yield f"task_type {task!r} is not supported, only CAUSAL_LM"
    for key, why in _REFUSED.items():
        if config.get(key):
            yield f"{key} {why}"
    start = config.get("init_lora_weights")
    for prefix, why in _INITS.items():
        if isinstance(start, str) and start.lower().startswith(prefix):
            yield f"init_lora_weights {start!r} {why}"
    for key in sorted(config.keys() - _FOLLOWED - _WITHOUT_EFFECT - _REFUSED.keys()):
        if config[key]:
            yield f"unknown setting {key!r}; if it does not affect the merge, remove it from this file"


def _malformed(config: Mapping[str, Any]) -> Iterator[str]:
    """Values of the wrong type, a message each."""
    for key, pattern, good in (("r", "rank_pattern", _is_positive), ("lora_alpha", "alpha_pattern", _is_number)):
        if not good(config.get(key)):
            yield f"{key} cannot be {config.get(key)!r}; save the adapter again"
        values = config.get(pattern) or {}
        if not isinstance(values, dict) or not all(map(good, values.values())):
            yield f"{pattern} cannot be {values!r}; save the adapter again"
    for key in (
        "modules_to_save",
        "target_modules",
        "exclude_modules",
        "layers_pattern",
        "rank_pattern",
        "alpha_pattern",
    ):
        for name in _list(config.get(key)):
            try:
                re.compile(name)
            except (re.error, TypeError):
                yield f"{key}: {name!r} is neither a name nor a regular expression; correct it"
    layers = config.get("layers_to_transform")
    if layers is not None and not all(type(layer) is int for layer in _list(layers)):
        yield f"layers_to_transform cannot be {layers!r}; save the adapter again"


def _is_positive(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 31


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e30


def _list(value: Any) -> list[Any]:
    """The items of a list or the keys of an object; a single value as a list of one, none as an empty one."""
    return list(value) if isinstance(value, list | dict) else [] if value in (None, "") else [value]


def _by_pattern(patterns: Mapping[str, Any] | None, module: str, default: Any) -> Any:
    """The value of the first pattern that matches the end of a module's name, as in peft's get_pattern_key."""
    key = next((key for key in patterns or () if re.match(rf"(.*\.)?({key})$", module)), module)
    return (patterns or {}).get(key, default)


def _matches(names: Any, module: str) -> bool:
    """Whether a regular expression matches a module, or a list contains it or the end of it."""
    if isinstance(names, str):
        return re.fullmatch(names, module) is not None
    return module in names or module.endswith(tuple(f".{name}" for name in names))


def _contains(part: str, module: str) -> bool:
    return re.match(rf"(^|.*\.){part}($|\..*)", module) is not None
