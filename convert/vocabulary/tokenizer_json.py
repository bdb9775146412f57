"""Read tokenizer.json: everything used is validated here, so that other modules can rely on its types."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from bioner_edge.convert.checkpoint import load_json
from bioner_edge.errors import ModelError

__all__ = ["Added", "Merge", "Record", "Step", "load", "number", "show"]

Step = Mapping[str, Any]
"""One step of a pipeline (normalizer, pre-tokenizer, decoder …) as tokenizer.json spells it."""
Merge = tuple[str, str]
Kind = TypeVar("Kind")

_PLURALS = {
    "normalizer": "normalizers",
    "pre_tokenizer": "pretokenizers",
    "post_processor": "processors",
    "decoder": "decoders",
}
_NAMES: dict[type, str] = {dict: "an object", list: "a list", str: "a string", bool: "true or false"}


@dataclass(frozen=True, slots=True)
class Added:
    """A token matched in text before anything else; `special` ones do not represent document text."""

    id: int
    content: str
    special: bool
    normalized: bool
    lstrip: bool
    rstrip: bool
    single_word: bool


@dataclass(frozen=True, slots=True)
class Record:
    """A byte-pair encoding. `steps` are the steps of each pipeline in order; `json` is the file as read."""

    path: Path
    json: Mapping[str, Any]
    vocabulary: Mapping[str, int]
    added: tuple[Added, ...]
    steps: Mapping[str, tuple[Step, ...]]
    model: Mapping[str, Any]

    @property
    def size(self) -> int:
        """One more than the highest id."""
        return 1 + max([*self.vocabulary.values(), *(token.id for token in self.added)], default=-1)

    def merges(self) -> tuple[Merge, ...]:
        """The merges by rank. Raises ModelError for one that is not a pair of tokens that form a token."""
        ranks: dict[Merge, int] = {}
        for rank, written in enumerate(_field(self.path, self.model, "merges", list, [])):
            pair = written.split(" ") if isinstance(written, str) else written
            if not isinstance(pair, list) or len(pair) != 2 or not all(self._has(part) for part in pair):
                raise ModelError(f"{self.path}: merge {rank} is {show(written)}, not a pair of tokens; save it again")
            if "" in pair or not self._has("".join(pair)):
                raise ModelError(f"{self.path}: merge {rank}, {show(written)}, does not form a token; save it again")
            ranks[pair[0], pair[1]] = rank  # of duplicates the last counts, as in the tokenizers library
        return tuple(sorted(ranks, key=ranks.__getitem__))

    def _has(self, token: object) -> bool:
        return isinstance(token, str) and token in self.vocabulary

    @property
    def unknown(self) -> str | None:
        """The token for text that cannot be spelled, if any."""
        token = _field(self.path, self.model, "unk_token", str, "")
        return token if token in self.vocabulary else None

    def flag(self, name: str) -> bool:
        """A boolean of the model, false where it is missing."""
        return _field(self.path, self.model, name, bool, False)


def load(path: Path) -> Record:
    """Read tokenizer.json. Raises ModelError where it is not a byte-pair encoding, or a part has the wrong type."""
    record = load_json(path)
    try:
        written = record["model"]
    except KeyError as error:
        raise ModelError(f"{path}: cannot be read as a tokenizer ({error!r}); save it again") from None
    model = _field(path, {"model": written}, "model", dict, {})
    if (kind := _field(path, model, "type", str, "BPE")) != "BPE":
        raise ModelError(f"{path}: model type {kind!r} cannot be converted; only byte-pair encodings can")
    vocabulary = _field(path, model, "vocab", dict, {})
    for token, index in vocabulary.items():
        if number(index) is None:
            message = f"token {token!r} has the id {show(index)}, which is not an integer from 0"
            raise ModelError(f"{path}: {message}; save the tokenizer again")
    steps = {key: _steps(path, record, key) for key in _PLURALS}
    return Record(path, record, vocabulary, _added_tokens(path, record, vocabulary), steps, model)


def number(value: Any) -> int | None:
    """The value where it is an integer from 0, else None; JSON's true does not count."""
    return value if type(value) is int and value >= 0 else None


def show(value: Any) -> str:
    """A value as one line of JSON, truncated where it is long."""
    text = json.dumps(value, default=str)
    return text if len(text) <= 400 else f"{text[:400]}…"


def _field(path: Path, where: Mapping[str, Any], name: str, kind: type[Kind], default: Kind) -> Kind:
    value = where.get(name)
    if value is None:
        return default
    if not isinstance(value, kind):
        raise ModelError(f"{path}: {name!r} must be {_NAMES[kind]}, not {show(value)[:60]}; save the tokenizer again")
    return value


def _added_tokens(path: Path, record: Mapping[str, Any], vocabulary: Mapping[str, int]) -> tuple[Added, ...]:
    tokens: dict[str, Added] = {}
    owners = {index: token for token, index in vocabulary.items()}
    following = len(vocabulary)  # the id that the library gives a token outside the vocabulary, whatever the file says
    for row in _field(path, record, "added_tokens", list, []):
        if not isinstance(row, dict) or number(row.get("id")) is None or not _field(path, row, "content", str, ""):
            raise ModelError(f"{path}: added token {show(row)[:60]} has no id or no content; save the tokenizer again")
        content, index = row["content"], row["id"]
        reason = ""
        if content in tokens:
            reason = "occurs twice"
        elif vocabulary.get(content, index) != index:
            reason = f"has the id {index}, but the vocabulary says {vocabulary[content]}"
        elif content not in vocabulary and owners.setdefault(index, content) != content:
            reason = f"and {owners[index]!r} have the same id, {index}"
        elif content not in vocabulary and index != following:
            reason = f"has the id {index}, but the tokenizers library gives it {following}"
        if reason:
            raise ModelError(f"{path}: added token {content!r} {reason}; save the tokenizer again")
        tokens[content] = _added_token(path, row)
        following = max(following, index + 1)
    return tuple(tokens.values())


def _added_token(path: Path, row: Mapping[str, Any]) -> Added:
    flags = {name: _field(path, row, name, bool, False) for name in ("special", "lstrip", "rstrip", "single_word")}
    normalized = _field(path, row, "normalized", bool, not flags["special"])
    return Added(id=row["id"], content=row["content"], normalized=normalized, **flags)


def _steps(path: Path, record: Mapping[str, Any], key: str) -> tuple[Step, ...]:
    """The steps of a pipeline, with sequences flattened."""
    found: list[Step] = []
    waiting = [record.get(key)]
    while waiting:
        step = waiting.pop()
        if step is None:
            continue
        if not isinstance(step, dict) or not isinstance(step.get("type"), str):
            raise ModelError(f"{path}: {key} {show(step)[:60]} has no type; save the tokenizer again")
        if step["type"] == "Sequence":
            waiting += reversed(_field(path, step, _PLURALS[key], list, []))
        else:
            found.append(step)
    return tuple(found)
