"""Join the tokenizer files of a fine-tuned model: the adapter's, which are those of its training, over the base's."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from bioner_edge.convert.vocabulary import model_file, tokenizer_json
from bioner_edge.convert.vocabulary.special import chat_template, optional

__all__ = ["join"]

_TOKENIZERS = ("tokenizer.json", "tokenizer.model")
_DESCRIBING = ("tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")
_ROLES = ("bos_token_id", "eos_token_id", "pad_token_id")


def join(base: Path, adapter: Path, out: Path) -> tuple[Path, list[str]]:
    """(the folder to read the tokenizer from, the files taken from the adapter): `base`, or else `out`, written here.

    A file of the adapter replaces the base's of the same name. Tokens that end an answer in either end it in both: the
    base's are looked up by text, since the adapter's tokenizer may have other ids. Raises ModelError for files that
    cannot be read.
    """
    own = any((adapter / name).is_file() for name in _TOKENIZERS)
    taken = [name for name in (*_TOKENIZERS, "added_tokens.json", *_DESCRIBING) if (adapter / name).is_file()]
    ends = optional(adapter / "generation_config.json").get("eos_token_id")
    if not taken and ends is None:
        return base, []
    out.mkdir()
    for name in (*_DESCRIBING, *(() if own else (*_TOKENIZERS, "added_tokens.json"))):
        if (base / name).is_file():
            shutil.copyfile(base / name, out / name)
    for name in taken:
        shutil.copyfile(adapter / name, out / name)
    _one_template(base, adapter, out)
    roles = _roles(base, out if own else None)
    if ends is not None:
        taken.append("generation_config.json")
        roles["eos_token_id"] = [*_id_list(ends), *_id_list(roles.get("eos_token_id"))]
    (out / "config.json").write_text(json.dumps(roles), "utf-8")
    return out, taken


def _one_template(base: Path, adapter: Path, out: Path) -> None:
    """Keep the adapter's template wherever it is stored, the base's only where the adapter has none."""
    own = chat_template(adapter, optional(adapter / "tokenizer_config.json"))
    template = own if own is not None else chat_template(base, optional(base / "tokenizer_config.json"))
    if template is not None:
        (out / "chat_template.jinja").write_text(template, "utf-8")


def _roles(base: Path, other: Path | None) -> dict[str, Any]:
    """The ids with roles in the base's configuration, mapped by text to ids of `other` where it has them."""
    texts = _texts(base) if other else {}
    ids = {text: index for index, text in _texts(other).items()} if other else {}
    found: dict[str, Any] = {}
    for name in ("config.json", "generation_config.json"):
        for role in _ROLES:
            for number in _id_list(optional(base / name).get(role)):
                index = ids.get(texts.get(number, "")) if other else number
                if index is not None:
                    found.setdefault(role, []).append(index)
    return {role: list(dict.fromkeys(given)) if role == "eos_token_id" else given[0] for role, given in found.items()}


def _id_list(value: Any) -> list[int]:
    return [number for number in (value if isinstance(value, list) else [value]) if type(number) is int]


def _texts(folder: Path) -> dict[int, str]:
    """The tokens of a folder by id; empty where it has no tokenizer."""
    if (path := folder / "tokenizer.json").is_file():
        found = tokenizer_json.load(path)
        return {index: text for text, index in found.vocabulary.items()} | {t.id: t.content for t in found.added}
    if (path := folder / "tokenizer.model").is_file():
        pieces = {index: text for index, (text, *_) in enumerate(model_file.load(path).pieces)}
        return pieces | {token.id: token.content for token in model_file.added_tokens(folder)}
    return {}
