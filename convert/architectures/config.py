"""Values of config.json, checked: what is not what its key promises is a ModelError that names the key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bioner_edge.errors import ModelError

__all__ = ["Config", "Metadata", "heads", "number", "only", "positive", "shared_width", "sizes", "within_window"]

Config = Mapping[str, Any]
Metadata = dict[str, bool | int | float | str | list[bool]]  # a GGUF's keys, without the architecture's prefix


# What is counted before a tensor is looked at: llama.cpp's own limit, and far beyond any model.
_MOST = {"num_hidden_layers": 512, "head_dim": 1 << 16}


def positive(config: Config, key: str, default: int | None = None) -> int:
    """A positive whole number of config.json. Raises ModelError where it is something else."""
    value = config.get(key)
    value = default if value is None else value
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ModelError(f"config.json: {key!r} must be a positive whole number, not {repr(value)[:80]}")
    if value > (most := _MOST.get(key, (1 << 31) - 1)):
        raise ModelError(f"config.json: {key!r} must be at most {most}, not {repr(value)[:80]}")
    return value


def number(config: Config, key: str, default: float | None = None) -> float:
    """A positive number of config.json. Raises ModelError where it is something else."""
    value = config.get(key)
    value = default if value is None else value
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < 1e300:
        raise ModelError(f"config.json: {key!r} must be a positive number, not {repr(value)[:80]}")
    return float(value)


def only(config: Config, key: str, *allowed: Any) -> None:
    """Raises ModelError where llama.cpp would compute with another value than config.json's; absent is the first."""
    value = config.get(key, allowed[0])
    if value not in allowed:
        wanted = " or ".join(repr(value) for value in allowed)
        raise ModelError(
            f"config.json: {key} {repr(value)[:80]} cannot be converted, only {wanted}: llama.cpp knows no other"
        )


def heads(config: Config) -> tuple[int, int, int]:
    """Attention heads, key/value heads, and the width of one."""
    count = positive(config, "num_attention_heads")
    kv_count = positive(config, "num_key_value_heads", count)
    if count % kv_count:
        raise ModelError(f"config.json: {count} attention heads cannot share {kv_count} key/value heads evenly")
    width = positive(config, "head_dim", positive(config, "hidden_size") // count)
    if width % 2:
        raise ModelError(f"config.json: heads of {width} numbers have no halves to rotate; the width must be even")
    return count, kv_count, width


def sizes(config: Config) -> dict[str, int]:
    """The dimensions that tensors have, by the names that the rows of the table use."""
    count, kv_count, width = heads(config)
    hidden, feed = positive(config, "hidden_size"), positive(config, "intermediate_size")
    return {
        "vocabulary": positive(config, "vocab_size"),
        "hidden": hidden,
        "feed": feed,
        "gate and up": 2 * feed,
        "width": width,
        "q": count * width,
        "kv": kv_count * width,
        "qkv": (count + 2 * kv_count) * width,
    }


def shared_width(config: Config) -> None:
    """Raises ModelError unless the heads are together as wide as the model, where llama.cpp takes that for granted."""
    count, _, width = heads(config)
    if count * width != positive(config, "hidden_size"):
        message = f"{count} heads of {width} numbers in a model of {config['hidden_size']}"
        raise ModelError(f"config.json: {message} cannot be converted: llama.cpp takes them as equally wide here")


def within_window(config: Config, sliding: bool) -> Metadata:
    """The context's length where llama.cpp knows no sliding window: no longer than that, and none is missed."""
    longest = positive(config, "max_position_embeddings")
    if sliding and config.get("sliding_window") is not None:
        longest = min(longest, positive(config, "sliding_window"))
    return {"context_length": longest}
