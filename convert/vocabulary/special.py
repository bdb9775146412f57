"""Roles of tokens and the chat template, from tokenizer_config.json, generation_config.json and config.json.

Reads the spellings of transformers 4 and 5: a role's token as a string or an object, the template in its own file or in
tokenizer_config.json, alone or one of several by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bioner_edge.convert.checkpoint import load_json
from bioner_edge.convert.vocabulary.table import BY_TEXT
from bioner_edge.convert.vocabulary.tokenizer_json import Step, number
from bioner_edge.errors import ModelError

__all__ = ["Special", "chat_template", "optional", "read"]

_MOST_ENDS = 3  # GGUF has three keys for them: eos, eot, eom


@dataclass(frozen=True, slots=True)
class Special:
    """Ids by role. `ends` end an answer, the tokenizer's own first; `add_bos`: whether a text starts with `bos`."""

    bos: int | None
    ends: tuple[int, ...]
    pad: int | None
    unk: int | None
    add_bos: bool
    add_eos: bool
    chat_template: str | None


def read(folder: Path, tokens: Sequence[str], processors: Sequence[Step] | None, unk: str | None) -> Special:
    """The roles of a folder's tokens, which are in order of id. `unk` is the model's own unknown token, if any.

    Without post-processors, beside a tokenizer.model, a text starts with bos unless the settings say otherwise, as in
    the transformers classes that read such a file. Raises ModelError, naming the file, for a role whose token does not
    exist, and where no token would end an answer.
    """
    settings = optional(folder / "tokenizer_config.json")
    ids = {token: index for index, token in enumerate(tokens)}
    bos = _special(folder, settings, ids, "bos")
    ends = _ends(folder, settings, ids)
    before, after = _template(folder / "tokenizer.json", processors or ())
    if before is not None and before != (tokens[bos] if bos is not None else None):
        message = f"the post-processor writes {before!r} before a text, which is not the bos token"
        raise ModelError(f"{folder / 'tokenizer.json'}: {message}; correct bos_token in tokenizer_config.json")
    begins = processors is None or before is not None
    add_bos, add_eos = settings.get("add_bos_token"), settings.get("add_eos_token")
    return Special(
        bos=bos,
        ends=ends,
        pad=_special(folder, settings, ids, "pad"),
        unk=ids.get(unk) if unk is not None else None,
        add_bos=bos is not None and (add_bos if isinstance(add_bos, bool) else begins),
        add_eos=add_eos if isinstance(add_eos, bool) else after is not None,
        chat_template=chat_template(folder, settings),
    )


def optional(path: Path) -> dict[str, Any]:
    """A JSON object; empty where the file is missing. Raises ModelError for anything else."""
    return load_json(path) if path.is_file() else {}


def _template(path: Path, processors: Sequence[Step]) -> tuple[str | None, str | None]:
    """(text before, text after) that the post-processor adds to a single text."""
    for step in processors:
        if step["type"] != "TemplateProcessing":
            continue
        match step.get("single"):
            case [first, *_, last] if isinstance(first, dict) and isinstance(last, dict):
                return _token_of(first), _token_of(last)
            case [_] | []:
                return None, None
        raise ModelError(f"{path}: the post-processor has no template for a single text; save the tokenizer again")
    return None, None


def _token_of(part: Mapping[str, Any]) -> str | None:
    match part:
        case {"SpecialToken": {"id": str(token)}}:
            return token
    return None


def _special(folder: Path, settings: Mapping[str, Any], ids: Mapping[str, int], role: str) -> int | None:
    """The id of the `bos` or `pad` token: from tokenizer_config.json, else from config.json."""
    token = settings.get(f"{role}_token")
    if token is not None:
        return _id(folder, token, ids, role)
    index = number(optional(folder / "config.json").get(f"{role}_token_id"))
    return index if index is not None and index < len(ids) else None


def _ends(folder: Path, settings: Mapping[str, Any], ids: Mapping[str, int]) -> tuple[int, ...]:
    found = [_id(folder, settings["eos_token"], ids, "eos")] if settings.get("eos_token") is not None else []
    for name in ("generation_config.json", "config.json"):
        given = optional(folder / name).get("eos_token_id")
        found += [n for value in (given if isinstance(given, list) else [given]) if (n := number(value)) is not None]
    ends = list(dict.fromkeys(found))
    if len(ends) > _MOST_ENDS:  # llama.cpp ends at other tokens by their text; the keys are for the rest
        texts = {index: token for token, index in ids.items()}
        ends = [*ends[:1], *(n for n in ends[1:] if texts.get(n) not in BY_TEXT)]
    if not ends:
        raise ModelError(f"{folder}: no eos_token in tokenizer_config.json or config.json, so no answer would end")
    if len(ends) > _MOST_ENDS or max(ends) >= len(ids):
        message = f"end tokens {ends[:9]}: at most {_MOST_ENDS}, each below {len(ids)}"
        raise ModelError(f"{folder}: {message}; correct generation_config.json")
    return tuple(ends)


def _id(folder: Path, token: Any, ids: Mapping[str, int], role: str) -> int:
    """The id of a token that tokenizer_config.json gives as a string or as an object."""
    content = token.get("content") if isinstance(token, dict) else token
    if not isinstance(content, str) or content not in ids:
        message = f"the {role} token {repr(content)[:80]} is not in tokenizer.json"
        raise ModelError(f"{folder / 'tokenizer_config.json'}: {message}")
    return ids[content]


def chat_template(folder: Path, settings: Mapping[str, Any]) -> str | None:
    """The template in its own file, as transformers 5 saves it, else the one in tokenizer_config.json."""
    path = folder / "chat_template.jinja"
    if path.is_file():
        try:
            return path.read_text("utf-8")
        except (OSError, ValueError):
            raise ModelError(f"{path}: not UTF-8 text; save the tokenizer again") from None
    template = settings.get("chat_template")
    if isinstance(template, list):  # several, by name
        named = (row for row in template if isinstance(row, dict) and row.get("name") == "default")
        template = next(named, {}).get("template")
    if template is not None and (not isinstance(template, str) or any("\ud800" <= c <= "\udfff" for c in template)):
        raise ModelError(f"{folder / 'tokenizer_config.json'}: chat_template is not text; save the tokenizer again")
    return template
