"""Drop tokens that have no embedding row and are never fed, such as a padding token added in training.

Batches are padded with it and masked, so many trainings add one without resizing the embedding. No text is tokenized to
a special token, and where no prompt contains it either, the model does not need it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bioner_edge.convert.vocabulary import model_file, tokenizer_json
from bioner_edge.convert.vocabulary.special import chat_template, optional
from bioner_edge.convert.vocabulary.tokenizer_json import Added

__all__ = ["drop_unused"]

_SETTINGS, _MAP = "tokenizer_config.json", "special_tokens_map.json"
_FILES = (
    "tokenizer.json", "tokenizer.model", _SETTINGS, _MAP, "added_tokens.json", "chat_template.jinja", "config.json",
    "generation_config.json", "vocab.json", "merges.txt",
)  # fmt: skip


def drop_unused(folder: Path, rows: int, out: Path) -> tuple[Path, list[str]]:
    """(the folder to read the tokenizer from, the tokens dropped): `folder`, or else `out`, written here.

    Dropped are special tokens whose id is `rows` or more, unless a role, the chat template or the post-processor uses
    them: those stay, and are refused later. All other ids are unchanged. Raises ModelError for files that cannot be
    read.
    """
    left = [token.content for token in _added_tokens(folder) if token.id >= rows and _is_unused(folder, token)]
    if not left:
        return folder, []
    out.mkdir(exist_ok=True)
    for name in _FILES:
        if (folder / name).is_file():
            shutil.copyfile(folder / name, out / name)
    for name, change in (
        ("tokenizer.json", _tokenizer),
        (_SETTINGS, _settings),
        (_MAP, _settings),
        ("added_tokens.json", _remove),
    ):
        if (out / name).is_file():
            (out / name).write_text(json.dumps(change(optional(folder / name), set(left))), "utf-8")
    return out, left


def _added_tokens(folder: Path) -> tuple[Added, ...]:
    if (path := folder / "tokenizer.json").is_file():
        return tokenizer_json.load(path).added
    return model_file.added_tokens(folder) if (folder / "tokenizer.model").is_file() else ()


def _is_unused(folder: Path, token: Added) -> bool:
    """Whether no text is tokenized to it, no prompt contains it, and no answer ends with it."""
    settings = optional(folder / _SETTINGS)
    pad, *others = (_content(settings.get(f"{role}_token")) for role in ("pad", "bos", "eos", "unk"))
    if not (token.special or token.content == pad) or token.content in others:
        return False
    ends = [optional(folder / name).get("eos_token_id") for name in ("config.json", "generation_config.json")]
    if any(token.id in (end if isinstance(end, list) else [end]) for end in ends):
        return False
    processor = optional(folder / "tokenizer.json").get("post_processor")
    named = json.dumps(token.content)
    return token.content not in (chat_template(folder, settings) or "") and named not in json.dumps(processor)


def _content(token: Any) -> Any:
    """The text of a token given as a string or as an object."""
    return token.get("content") if isinstance(token, dict) else token


def _tokenizer(written: Mapping[str, Any], left: set[str]) -> dict[str, Any]:
    padding = written.get("padding")
    pads = isinstance(padding, dict) and padding.get("pad_token") in left
    return {
        **written,
        "added_tokens": [row for row in written["added_tokens"] if row["content"] not in left],
        "model": {**written["model"], "vocab": _remove(written["model"]["vocab"], left)},
        "padding": None if pads else padding,
    }


def _settings(written: Mapping[str, Any], left: set[str]) -> dict[str, Any]:
    """Settings without the roles of the tokens, their entries in lists of tokens, and their descriptions by id."""
    changed: dict[str, Any] = {}
    for key, value in written.items():
        if key == "added_tokens_decoder" and isinstance(value, dict):
            changed[key] = {index: row for index, row in value.items() if _content(row) not in left}
        elif key.endswith("_tokens") and isinstance(value, list):
            changed[key] = [token for token in value if _content(token) not in left]
        elif not (key.endswith("_token") and isinstance(_content(value), str) and _content(value) in left):
            changed[key] = value
    return changed


def _remove(ids: Mapping[str, Any], left: set[str]) -> dict[str, Any]:
    return {content: index for content, index in ids.items() if content not in left}
