"""Validated values of config.json: a value of the wrong type or range is a ModelError that names its key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bioner_edge.errors import ModelError

__all__ = ["Config", "Metadata", "heads", "number", "only", "positive", "shared_width", "sizes", "within_window"]

Config = Mapping[str, Any]
Metadata = dict[str, bool | int | float | str | list[bool]]  # a GGUF's keys, without the architecture's prefix


# Upper limits, checked before any tensor is read: llama.cpp's own, and one far beyond any model.
_MOST = {"num_hidden_layers": 512, "head_dim": 1 << 16}


def positive(config: Config, key: str, default: int | None = None) -> int:
    """A positive integer of config.json. Raises ModelError for anything else."""
    value = config.get(key)
    value = default if value is None else value
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ModelError(f"config.json: {key!r} must be a positive integer, not {repr(value)[:80]}")
    if value > (most := _MOST.get(key, (1 << 31) - 1)):
        raise ModelError(f"config.json: {key!r} must be at most {most}, not {repr(value)[:80]}")
    return value


def number(config: Config, key: str, default: float | None = None) -> float:
    """A positive number of config.json. Raises ModelError for anything else."""
    value = config.get(key)
    value = default if value is None else value
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < 1e300:
        raise ModelError(f"config.json: {key!r} must be a positive number, not {repr(value)[:80]}")
    return float(value)


def only(config: Config, key: str, *allowed: Any) -> None:
    """Raises ModelError for a value that llama.cpp does not support; a missing key counts as the first of `allowed`."""
    value = config.get(key, allowed[0])
    if value not in allowed:
        supported = " or ".join(repr(value) for value in allowed)
        raise ModelError(
            f"config.json: {key} {repr(value)[:80]} cannot be converted, only {supported}: llama.cpp supports no other"
        )


def heads(config: Config) -> tuple[int, int, int]:
    """(attention heads, key/value heads, width of one head)."""
    count = positive(config, "num_attention_heads")
    kv_count = positive(config, "num_key_value_heads", count)
    if count % kv_count:
        raise ModelError(f"config.json: {count} attention heads cannot share {kv_count} key/value heads evenly")
    width = positive(config, "head_dim", positive(config, "hidden_size") // count)
    if width % 2:
        raise ModelError(f"config.json: heads of width {width} cannot be rotated in halves; the width must be even")
    return count, kv_count, width


def sizes(config: Config) -> dict[str, int]:
    """Tensor dimensions by the names that the rows of the table use."""
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
    """Raises ModelError unless heads × width is hidden_size, which llama.cpp assumes here."""
    count, _, width = heads(config)
    if count * width != positive(config, "hidden_size"):
        message = f"{count} heads of width {width} and hidden_size {config['hidden_size']}"
        raise ModelError(
            f"config.json: {message} cannot be converted: llama.cpp assumes that their product is hidden_size"
        )


def within_window(config: Config, sliding: bool) -> Metadata:
    """The context length, limited to the sliding window, which llama.cpp does not implement for this architecture."""
    longest = positive(config, "max_position_embeddings")
    if sliding and config.get("sliding_window") is not None:
        longest = min(longest, positive(config, "sliding_window"))
    return {"context_length": longest}
