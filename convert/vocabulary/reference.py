"""The expected ids of a converted tokenizer: the original's, by the library that it was made for."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

from bioner_edge.convert.vocabulary import model_file, tokenizer_json
from bioner_edge.convert.vocabulary.tokenizer_json import Record, Step
from bioner_edge.errors import ModelError

__all__ = ["reference", "specials", "without_space"]

Encode = Callable[[str], list[int]]


def reference(folder: Path) -> Encode:
    """A function that returns the ids of a text by the tokenizer in `folder`, as its GGUF guarantees them: special
    tokens are matched by name, none is added, the text is not normalized, and no space is put before it.

    Raises ModelError where the library for it is not installed or cannot read it.
    """
    path = folder / "tokenizer.json"
    return _by_tokenizers(tokenizer_json.load(path)) if path.is_file() else _by_sentencepiece(folder)


def specials(folder: Path) -> list[str]:
    """A text with each token that is matched before merging, between letters; several lines where there are many."""
    path = folder / "tokenizer.json"
    contents = [
        token.content
        for token in (tokenizer_json.load(path).added if path.is_file() else model_file.added_tokens(folder))
    ]
    return ["".join(f" x{content}y" for content in contents[at : at + 256]) for at in range(0, len(contents), 256)]


def _by_tokenizers(found: Record) -> Encode:
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise ModelError("comparing token ids needs tokenizers: pip install 'bioner-edge[convert]'") from None
    normalizers = (step for step in found.steps["normalizer"] if step["type"] not in ("NFC", "Prepend"))
    changed = {
        "normalizer": _sequence("normalizers", normalizers),
        "pre_tokenizer": _sequence("pretokenizers", map(without_space, found.steps["pre_tokenizer"])),
        "truncation": None,
        "padding": None,
    }
    try:
        theirs = Tokenizer.from_str(json.dumps({**found.json, **changed}))
    except Exception as error:  # the library raises plain Exception for everything
        raise ModelError(f"{found.path}: the tokenizers library cannot read it: {_line(error)}") from None

    def encode(text: str) -> list[int]:
        ids: list[int] = theirs.encode(text, add_special_tokens=False).ids
        return ids

    return encode


def _sequence(name: str, steps: Iterable[Step]) -> dict[str, Any] | None:
    """Several steps as one; None where there are none."""
    listed = list(steps)
    return {"type": "Sequence", name: listed} if listed else None


def without_space(step: Step) -> Step:
    """A splitting step that puts no space before a text."""
    if step["type"] == "ByteLevel":
        return {**step, "add_prefix_space": False}
    if step["type"] != "Metaspace":
        return step
    kept = {key: step[key] for key in ("type", "replacement", "split") if key in step}
    return {**kept, "prepend_scheme": "never"}


def _by_sentencepiece(folder: Path) -> Encode:
    try:
        sentencepiece = import_module("sentencepiece")  # no stubs, and rarely installed
    except ImportError:
        raise ModelError("comparing token ids needs sentencepiece: pip install sentencepiece") from None
    path = folder / "tokenizer.model"
    found = model_file.load(path)
    # Protobuf merges repeated messages: 3 = {3 = false} sets add_dummy_prefix.
    data = path.read_bytes() + b"\x1a\x02\x18\x00"
    try:
        theirs = sentencepiece.SentencePieceProcessor(model_proto=data)
    except Exception as error:  # RuntimeError or OSError, from its C++ part
        raise ModelError(f"{path}: the sentencepiece library cannot read it: {_line(error)}") from None
    control = {text: index for index, (text, _, kind) in enumerate(found.pieces) if kind.name in ("CONTROL", "UNKNOWN")}
    control |= {token.content: token.id for token in model_file.added_tokens(folder)}
    named = re.compile("|".join(map(re.escape, sorted(control, key=len, reverse=True))) or "(?!)")

    def encode(text: str) -> list[int]:
        ids: list[int] = []
        at = 0
        for match in named.finditer(text):
            ids += [*theirs.encode(text[at : match.start()]), control[match[0]]]
            at = match.end()
        return ids + list(theirs.encode(text[at:]))

    return encode


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
