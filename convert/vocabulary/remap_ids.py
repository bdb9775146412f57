"""Rewrite a tokenizer's files for other token ids, wherever transformers or this package reads one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bioner_edge.convert.vocabulary.special import optional
from bioner_edge.convert.vocabulary.tokenizer_json import Record, number

__all__ = ["Ids", "config", "named_ids", "write"]

Ids = Mapping[int, int]
"""Old id -> new id, for every token that is kept."""
Change = Callable[[int], int | None]
"""Old id -> new id; None where the token was removed."""

_ENDINGS = ("_token_id", "_token_ids", "_token_index")  # of keys in config.json and generation_config.json
_LISTS = frozenset({"suppress_tokens", "begin_suppress_tokens", "bad_words_ids"})
_CONFIGS = ("config.json", "generation_config.json")
_COPIED = ("chat_template.jinja", "special_tokens_map.json")


def named_ids(folder: Path, record: Record) -> set[int]:
    """The ids that the folder's files give a role: in both configurations, the settings and the post-processor."""
    found: set[int] = set()

    def note(index: int) -> int:
        found.add(index)
        return index

    for name in _CONFIGS:
        _configuration(optional(folder / name), note)
    _processor(record.json.get("post_processor"), note)
    for key, value in optional(folder / "tokenizer_config.json").items():
        token = value.get("content") if isinstance(value, dict) else value
        if key.endswith("_token") and isinstance(token, str) and token in record.vocabulary:
            found.add(record.vocabulary[token])
    return found


def config(values: Mapping[str, Any], ids: Ids) -> dict[str, Any]:
    """A config.json, including its `text_config`, for a vocabulary of only these tokens."""
    changed = _configuration(values, ids.get)
    for part in (changed, changed.get("text_config")):
        if isinstance(part, dict) and "vocab_size" in part:
            part["vocab_size"] = len(ids)
    return changed


def write(folder: Path, out: Path, record: Record, ids: Ids) -> None:
    """Write the tokenizer of `folder` to `out`: all its JSON files and the chat template."""
    files: dict[str, Mapping[str, Any]] = {"tokenizer.json": _tokenizer(record, ids)}
    if settings := optional(folder / "tokenizer_config.json"):
        files["tokenizer_config.json"] = _settings(settings, ids)
    if added := optional(folder / "added_tokens.json"):
        files["added_tokens.json"] = {content: ids[index] for content, index in added.items() if _is_kept(index, ids)}
    if values := optional(folder / "config.json"):
        files["config.json"] = config(values, ids)
    if values := optional(folder / "generation_config.json"):
        files["generation_config.json"] = _configuration(values, ids.get)
    out.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (out / name).write_text(json.dumps(content), "utf-8")
    for name in _COPIED:
        if (folder / name).is_file():
            shutil.copyfile(folder / name, out / name)


def _tokenizer(record: Record, ids: Ids) -> dict[str, Any]:
    tokens = {token: ids[index] for token, index in record.vocabulary.items() if index in ids}
    merges = [[left, right] for left, right in record.merges() if {left, right, left + right} <= tokens.keys()]
    written = {
        **record.json,
        "model": {**record.model, "vocab": tokens, "merges": merges},
        "added_tokens": [{**row, "id": ids[row["id"]]} for row in record.json.get("added_tokens") or []],
        "post_processor": _processor(record.json.get("post_processor"), ids.get),
    }
    padding = record.json.get("padding")
    if isinstance(padding, dict):
        written["padding"] = {**padding, "pad_id": _remap(padding.get("pad_id"), ids.get) or 0}
    return written


def _settings(settings: Mapping[str, Any], ids: Ids) -> dict[str, Any]:
    decoder = settings.get("added_tokens_decoder")
    if not isinstance(decoder, dict):
        return dict(settings)
    kept = {str(ids[int(i)]): row for i, row in decoder.items() if i.isdecimal() and int(i) in ids}
    return {**settings, "added_tokens_decoder": kept}


def _configuration(values: Mapping[str, Any], change: Change) -> dict[str, Any]:
    changed = dict(values)
    for key, value in values.items():
        if key.endswith(_ENDINGS) or key in _LISTS:
            changed[key] = _remap(value, change)
        elif key == "text_config" and isinstance(value, Mapping):
            changed[key] = _configuration(value, change)
    return changed


def _processor(processor: Any, change: Change) -> Any:
    """A post-processor: templates list tokens with their ids, older kinds have [token, id] as `sep` and `cls`."""
    if not isinstance(processor, dict):
        return processor
    changed = dict(processor)
    for name, value in processor.items():
        if name == "processors" and isinstance(value, list):
            changed[name] = [_processor(one, change) for one in value]
        elif name in ("sep", "cls"):
            changed[name] = _remap(value, change)
        elif name == "special_tokens" and isinstance(value, dict):
            changed[name] = {
                token: {**row, "ids": _remap(row.get("ids"), change)} if isinstance(row, dict) else row
                for token, row in value.items()
            }
    return changed


def _remap(value: Any, change: Change) -> Any:
    """An id, or nested lists of ids, without removed ones; anything else unchanged."""
    if isinstance(value, list):
        changed = [_remap(one, change) for one in value]
        return [new for new, old in zip(changed, value, strict=True) if new is not None or old is None]
    return value if number(value) is None else change(value)


def _is_kept(index: Any, ids: Ids) -> bool:
    return number(index) is not None and index in ids
