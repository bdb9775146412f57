"""tokenizer.model, SentencePiece's protobuf file, read without the protobuf library as a list of fields.

    file: 1 = a piece (1 = text, 2 = score, 3 = type), 2 = trainer settings, 3 = normalizer settings

llama.cpp's "llama" tokenizer merges by the same scores in the same order, so they are written unchanged. Tokens added
later are in tokenizer_config.json or added_tokens.json.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from gguf import TokenType

from bioner_edge.convert.vocabulary.bpe import merges_of
from bioner_edge.convert.vocabulary.sentencepiece import BLANK, BYTE, missing_bytes
from bioner_edge.convert.vocabulary.special import optional
from bioner_edge.convert.vocabulary.table import MOST, Typed, added_types, check_added, table
from bioner_edge.convert.vocabulary.tokenizer import Pieces
from bioner_edge.convert.vocabulary.tokenizer_json import Added, number, show
from bioner_edge.errors import ModelError

__all__ = ["SentencePieceModel", "added_tokens", "load", "prefix", "read"]

_BPE = 2
_KINDS = {1: "unigram", 3: "word", 4: "character"}
_LOWEST = -1e9  # the score of tokens that no merge forms
_TYPES = {
    1: TokenType.NORMAL,
    2: TokenType.UNKNOWN,
    3: TokenType.CONTROL,
    4: TokenType.USER_DEFINED,
    5: TokenType.UNUSED,
    6: TokenType.BYTE,
}
_PREFIX, _SQUEEZE, _ESCAPE = 3, 4, 5  # fields of the normalizer: each is true where it is missing
_MAP, _SUFFIX, _KIND, _FALLBACK = 2, 24, 3, 35

Fields = Iterator[tuple[int, Any]]


@dataclass(frozen=True, slots=True)
class SentencePieceModel:
    """The contents of tokenizer.model: (text, score, type) by id, and the fields of trainer and normalizer by
    number."""

    path: Path
    pieces: tuple[tuple[str, float, TokenType], ...]
    training: Mapping[int, Any]
    normalizing: Mapping[int, Any]


def load(path: Path) -> SentencePieceModel:
    """Read tokenizer.model. Raises ModelError where it is not valid."""
    pieces: list[tuple[str, float, TokenType]] = []
    settings: dict[int, dict[int, Any]] = {2: {}, 3: {}}
    try:
        for field, value in _fields(path.read_bytes()):
            if field == 1:
                pieces.append(_piece(dict(_fields(value))))
            elif field in settings:
                settings[field].update(_fields(value))
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, struct.error):
        raise ModelError(f"{path}: not a SentencePiece model, or damaged; fetch it again") from None
    if not pieces:
        raise ModelError(f"{path}: has no pieces; fetch it again")
    return SentencePieceModel(path, tuple(pieces), settings[2], settings[3])


def _piece(fields: Mapping[int, Any]) -> tuple[str, float, TokenType]:
    text, score, kind = fields[1].decode(), float(fields.get(2, 0.0)), _TYPES[fields.get(3, 1)]
    if not isfinite(score) or (kind == TokenType.BYTE) != bool(BYTE.fullmatch(text)):
        raise ValueError("a score is not a number, or a byte has another type")
    return text, score, kind


def read(model: SentencePieceModel, extra: tuple[Added, ...], rows: int) -> tuple[Pieces, str | None]:
    """(the tokens for llama.cpp, the unknown token). Raises ModelError for what llama.cpp would tokenize
    differently."""
    path = model.path
    _refuse(model)
    if missing := missing_bytes(text for text, *_ in model.pieces):
        raise ModelError(f"{path}: no token for {len(missing)} of the bytes ({missing[0]}); train with byte_fallback")
    found: dict[int, Typed] = {index: (text, kind) for index, (text, _, kind) in enumerate(model.pieces)}
    found |= added_types(extra)
    for index, (text, kind) in found.items():
        if kind == TokenType.USER_DEFINED:  # matched in the raw text, before spaces become ▁
            found[index] = text.replace(BLANK, " "), kind
    tokens, types = table(path, rows, found)
    check_added(path, extra)
    _check_others(path, model, tokens, types)
    merging = {index: score for index, (_, score, kind) in enumerate(model.pieces) if kind == TokenType.NORMAL}
    scores = tuple(merging.get(index, _LOWEST) for index in range(rows))
    unknown = next((text for text, _, kind in model.pieces if kind == TokenType.UNKNOWN), None)
    return Pieces("llama", "default", tokens, types, scores=scores), unknown


def _check_others(path: Path, model: SentencePieceModel, tokens: Sequence[str], types: Sequence[TokenType]) -> None:
    """Raises ModelError where llama.cpp would join two symbols to a token that is not formed by merges."""
    ranks = {text: -score for text, score, kind in model.pieces if kind == TokenType.NORMAL}
    for token, kind in zip(tokens, types, strict=True):
        if kind in (TokenType.NORMAL, TokenType.USER_DEFINED):  # user-defined tokens are matched before merging
            continue
        if len(merges_of(token, lambda pair: ranks.get("".join(pair)))[-1]) == 2:
            message = f"merges spell {token!r}, which is not a normal token, but llama.cpp would treat it as one"
            raise ModelError(f"{path}: {message}; convert from the tokenizer.json that transformers saves for it")


def prefix(model: SentencePieceModel, folder: Path) -> str:
    """Where transformers puts a space, as a key of `chat`."""
    if not model.normalizing.get(_PREFIX, 1):
        return "never"
    return "first" if optional(folder / "tokenizer_config.json").get("legacy") is False else "every"


def added_tokens(folder: Path) -> tuple[Added, ...]:
    """The tokens added to a tokenizer.model, in order of id."""
    path = folder / "tokenizer_config.json"
    rows = optional(path).get("added_tokens_decoder") or {}
    if not isinstance(rows, dict):
        raise ModelError(f"{path}: 'added_tokens_decoder' must be an object; save the tokenizer again")
    tokens: dict[int, Added] = {}
    for content, index in optional(folder / "added_tokens.json").items():
        tokens[_index(folder / "added_tokens.json", index)] = _added_token(
            path, _index(path, index), {"content": content}
        )
    for index, row in rows.items():
        at = _index(path, int(index) if index.isdecimal() else index)
        tokens[at] = _added_token(path, at, row)
    contents = [token.content for token in tokens.values()]
    if len(set(contents)) < len(contents):
        raise ModelError(f"{path}: an added token has two ids; save the tokenizer again")
    return tuple(tokens[index] for index in sorted(tokens))


def _index(path: Path, value: Any) -> int:
    index = number(value)
    if index is None or index >= MOST:
        raise ModelError(f"{path}: {show(value)[:60]} is not a token id; save the tokenizer again")
    return index


def _added_token(path: Path, index: int, row: Any) -> Added:
    names = ("special", "normalized", "lstrip", "rstrip", "single_word")
    if isinstance(row, dict) and isinstance(row.get("content"), str) and row["content"]:
        flags = {name: row.get(name, False) for name in names}
        if all(isinstance(flag, bool) for flag in flags.values()):
            return Added(id=index, content=row["content"], **flags)
    raise ModelError(f"{path}: the added token {index} is {show(row)[:60]}; save the tokenizer again")


def _refuse(model: SentencePieceModel) -> None:
    """Raises ModelError for what llama.cpp's SentencePiece does not support."""
    training, normalizing = model.training, model.normalizing
    unsupported = []
    if (kind := training.get(_KIND, 1)) != _BPE:
        unsupported.append(f"a {_KINDS.get(kind, 'damaged')} model")
    if not training.get(_FALLBACK, 0):
        unsupported.append("byte_fallback false")
    if training.get(_SUFFIX, 0):
        unsupported.append("spaces at the end of words")
    if normalizing.get(_SQUEEZE, 1):
        unsupported.append("remove_extra_whitespaces, which removes spaces from the text,")
    if not normalizing.get(_ESCAPE, 1):
        unsupported.append("spaces that are not escaped as ▁")
    if normalizing.get(_MAP):
        unsupported.append("a normalizer that changes characters (normalization_rule_name other than identity)")
    if unsupported:
        raise ModelError(f"{model.path}: {unsupported[0]} cannot be converted; only plain SentencePiece BPE can")


def _fields(data: bytes) -> Fields:
    """The fields of a protobuf message: number and value. Raises ValueError or IndexError where it is not valid."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        match key & 7:
            case 0:
                value, at = _varint(data, at)
                yield key >> 3, value
            case 1:
                yield key >> 3, struct.unpack_from("<d", data, at)[0]
                at += 8
            case 5:
                yield key >> 3, struct.unpack_from("<f", data, at)[0]
                at += 4
            case 2:
                length, at = _varint(data, at)
                if length > len(data) - at:
                    raise ValueError("ends inside a field")
                yield key >> 3, data[at : at + length]
                at += length
            case other:
                raise ValueError(f"wire type {other}")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A varint of seven bits per byte, and the position after it."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError("an unterminated number")
