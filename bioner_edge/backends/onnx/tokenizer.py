"""Tokens of an ONNX model, by the `tokenizers` library, from a tokenizer.json that was prepared when it was converted.

Prepared means that ids and pieces are those of the llama.cpp back end for the same model: no text is normalised, none
is put before or behind a text, and every added token is in the vocabulary as well. A control token is marked "special",
which `encode_special_tokens` then overlooks in documents; only the others are "normalized", since those the library
looks for on their own, also inside the name of a control token.

Whoever made the file need not be trusted: what it may ask of the library is looked at first. A pattern can still be
slow: the library gives up, with a panic, after ten million steps at one place of a text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from bioner_edge.backends.byte_level import BYTES
from bioner_edge.errors import ModelError

__all__ = ["HfTokenizer"]

_MOST_BYTES = 1 << 27  # of a file; Gemma's quarter of a million tokens take a tenth of it
_MOST_TOKENS = 1 << 22
_MOST_ADDED, _LONGEST_ADDED = 1 << 17, 1 << 10  # tokenizers 0.22 needs time that grows with the square of the length
_MOST_SETTINGS = 1 << 16  # characters of all that is no token

_PREFIX = "Cannot instantiate Tokenizer from buffer: "  # of the library's errors

_LATIN = dict.fromkeys(range(0x200), "\uffff") | {ord(character): chr(byte) for byte, character in BYTES.items()}
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_BLANK = "▁"


class HfTokenizer:
    """Text to ids and ids to bytes, as `Backend` promises them. Not safe for use from several threads at once.

    `end_tokens` end an answer and write nothing. Raises ModelError, naming the file, for one that is damaged or was
    not prepared.
    """

    def __init__(self, path: Path, end_tokens: frozenset[int]) -> None:
        data = _read(path)
        self.size = _size(path, data)
        """One more than the highest id."""
        self._path, self._end_tokens = path, end_tokens
        with self._failures("the tokenizers library cannot read it"):
            self._theirs = Tokenizer.from_buffer(data)
            self._byte_fallback: bool = self._theirs.model.byte_fallback

    def tokenize(self, text: bytes, special: bool) -> list[int]:
        """Canonical token ids; `special` reads names of control tokens as these tokens, never used for a document.

        Raises UnicodeDecodeError for what is not UTF-8, as half a character is not.
        """
        whole = text.decode()
        with self._failures("the tokenizers library fails on a text"):
            self._theirs.encode_special_tokens = not special
            ids: list[int] = self._theirs.encode(whole, add_special_tokens=False).ids
        return ids

    def piece(self, token: int) -> bytes | None:
        """The bytes that a token writes; None for control and end tokens, and for ids without a token."""
        return self._pieces[token] if 0 <= token < self.size else None

    @cached_property
    def _pieces(self) -> list[bytes | None]:
        """The bytes of each token by id."""
        spell = _sentencepiece if self._byte_fallback else _byte_level
        tokens = map(self._theirs.id_to_token, range(self.size))
        pieces = [spell(token) if token else None for token in tokens]
        for index, added in self._theirs.get_added_tokens_decoder().items():
            pieces[index] = None if added.special else added.content.encode()
        for index in self._end_tokens.intersection(range(self.size)):
            pieces[index] = None
        return pieces

    @contextmanager
    def _failures(self, told: str) -> Iterator[None]:
        """Raises ModelError for whatever the library raises. Its panics are no Exception, nor of a class to import."""
        try:
            yield
        except BaseException as error:
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            reason = " ".join(str(error).removeprefix(_PREFIX).split())[:200]
            raise ModelError(f"{self._path}: {told}: {reason}; fetch or convert the model again") from None


def _byte_level(token: str) -> bytes | None:
    try:
        return token.translate(_LATIN).encode("latin-1")
    except UnicodeEncodeError:  # it has a character that stands for no byte
        return None


def _sentencepiece(token: str) -> bytes:
    byte = _BYTE.fullmatch(token)
    return bytes.fromhex(byte[1]) if byte else token.replace(_BLANK, " ").encode()


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size <= _MOST_BYTES:
            return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}; fetch or convert the model again") from None
    raise ModelError(f"{path}: larger than {_MOST_BYTES >> 20} MiB, so no tokenizer; fetch or convert the model again")


def _size(path: Path, data: bytes) -> int:
    """One more than the highest id in a prepared tokenizer.json. Raises ModelError for any other."""
    try:
        written = json.loads(data, object_pairs_hook=_once)
        size: int = 1 + max(written["model"]["vocab"].values())
        wrong = "" if size <= _MOST_TOKENS else f"has the token id {size - 1}"
        wrong = wrong or _unprepared(written) or _too_much(written)
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
        wrong = "is no tokenizer, or damaged"
    if wrong:
        raise ModelError(f"{path}: {wrong}; fetch the model again, or convert it: `bioner-edge convert --to onnx`")
    return size


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Raises ValueError where a name is there twice, since another reader may take the other one."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name twice")
    return found


def _unprepared(written: dict[str, Any]) -> str:
    """What the library would do that no prepared tokenizer has; empty where there is nothing."""
    model, vocabulary = written["model"], written["model"]["vocab"]
    for where, names in (
        (written, ("normalizer", "post_processor", "truncation", "padding")),
        (model, ("dropout", "continuing_subword_prefix", "end_of_word_suffix")),
    ):
        if given := [name for name in names if where.get(name) is not None]:
            return f"{given[0]} is not null, as in tokenizers that were not prepared for this"
    if model["type"] != "BPE":
        return "is no byte-pair encoding"
    if any(vocabulary.get(token["content"]) != token["id"] for token in written["added_tokens"]):
        return "has an added token that is not in the vocabulary"
    return ""


def _too_much(written: dict[str, Any]) -> str:
    """What would take the library minutes; empty where there is nothing."""
    added = written["added_tokens"]
    if len(added) > _MOST_ADDED or any(len(token["content"]) > _LONGEST_ADDED for token in added):
        return f"has more than {_MOST_ADDED} added tokens, or one of more than {_LONGEST_ADDED} characters"
    settings = {name: value for name, value in written.items() if name not in ("model", "added_tokens")}
    return "has settings beyond all measure" if len(json.dumps(settings)) > _MOST_SETTINGS else ""
