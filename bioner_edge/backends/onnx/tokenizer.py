"""The tokenizer of an ONNX model: the `tokenizers` library with a tokenizer.json prepared by `convert`.

Prepared means that ids and pieces equal those of the llama.cpp back end for the same model: text is not normalized,
nothing is added before or after it, and every added token is in the vocabulary as well. Control tokens are marked
"special", so that `encode_special_tokens` ignores them in documents; only other added tokens are "normalized", since
the library searches for those separately, even inside the name of a control token.

The file need not be trusted: what it can request of the library is checked first. A pattern can still be slow: the
library gives up, with a panic, after ten million steps at one position of a text.
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

_MOST_BYTES = 1 << 27  # of a file; Gemma's 256k tokens take a tenth of it
_MOST_TOKENS = 1 << 22
_MOST_ADDED, _LONGEST_ADDED = 1 << 17, 1 << 10  # tokenizers 0.22 takes time quadratic in the length
_MOST_SETTINGS = 1 << 16  # characters of everything but tokens

_PREFIX = "Cannot instantiate Tokenizer from buffer: "  # of the library's errors

_LATIN = dict.fromkeys(range(0x200), "\uffff") | {ord(character): chr(byte) for byte, character in BYTES.items()}
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_BLANK = "▁"


class HfTokenizer:
    """Maps text to ids and ids to bytes, as specified by `Backend`. Not thread-safe.

    `end_tokens` end an answer and write nothing. Raises ModelError, which names the file, if it is damaged or was not
    prepared.
    """

    def __init__(self, path: Path, end_tokens: frozenset[int]) -> None:
        data = _read(path)
        self.size = _size(path, data)
        """One more than the highest id."""
        self._path, self._end_tokens = path, end_tokens
        with self._model_errors("the tokenizers library cannot read it"):
            self._theirs = Tokenizer.from_buffer(data)
            self._byte_fallback: bool = self._theirs.model.byte_fallback

    def tokenize(self, text: bytes, special: bool) -> list[int]:
        """Canonical token ids; `special` also parses names of control tokens, never used for a document.

        Raises UnicodeDecodeError for invalid UTF-8, such as half a character.
        """
        whole = text.decode()
        with self._model_errors("the tokenizers library fails on a text"):
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
    def _model_errors(self, message: str) -> Iterator[None]:
        """Turn whatever the library raises into ModelError. Its panics are BaseExceptions of a class without import."""
        try:
            yield
        except BaseException as error:
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            reason = " ".join(str(error).removeprefix(_PREFIX).split())[:200]
            raise ModelError(f"{self._path}: {message}: {reason}; fetch or convert the model again") from None


def _byte_level(token: str) -> bytes | None:
    try:
        return token.translate(_LATIN).encode("latin-1")
    except UnicodeEncodeError:  # a character that stands for no byte
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
    raise ModelError(
        f"{path}: larger than {_MOST_BYTES >> 20} MiB, so not a tokenizer; fetch or convert the model again"
    )


def _size(path: Path, data: bytes) -> int:
    """One more than the highest id in a prepared tokenizer.json. Raises ModelError for any other."""
    try:
        written = json.loads(data, object_pairs_hook=_unique_keys)
        size: int = 1 + max(written["model"]["vocab"].values())
        error = "" if size <= _MOST_TOKENS else f"has the token id {size - 1}"
        error = error or _preparation_error(written) or _size_error(written)
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
        error = "is not a tokenizer, or damaged"
    if error:
        raise ModelError(f"{path}: {error}; fetch the model again, or convert it: `bioner-edge convert --to onnx`")
    return size


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Raises ValueError for a duplicate key, since another parser may take the other value."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("duplicate key")
    return found


def _preparation_error(written: dict[str, Any]) -> str:
    """How the tokenizer differs from a prepared one; empty if it does not."""
    model, vocabulary = written["model"], written["model"]["vocab"]
    for where, names in (
        (written, ("normalizer", "post_processor", "truncation", "padding")),
        (model, ("dropout", "continuing_subword_prefix", "end_of_word_suffix")),
    ):
        if given := [name for name in names if where.get(name) is not None]:
            return f"{given[0]} is not null, so it was not prepared by `convert`"
    if model["type"] != "BPE":
        return "is not a byte-pair encoding"
    if any(vocabulary.get(token["content"]) != token["id"] for token in written["added_tokens"]):
        return "has an added token that is not in the vocabulary"
    return ""


def _size_error(written: dict[str, Any]) -> str:
    """What would take the library minutes; empty if nothing."""
    added = written["added_tokens"]
    if len(added) > _MOST_ADDED or any(len(token["content"]) > _LONGEST_ADDED for token in added):
        return f"has more than {_MOST_ADDED} added tokens, or one of more than {_LONGEST_ADDED} characters"
    settings = {name: value for name, value in written.items() if name not in ("model", "added_tokens")}
    return (
        f"has more than {_MOST_SETTINGS} characters of settings" if len(json.dumps(settings)) > _MOST_SETTINGS else ""
    )
