"""The two text files of an ONNX model: tokenizer.json, prepared for the back end, and runtime.json.

The token ids are those of llama.cpp for the same model. llama.cpp itself is asked which tokens it treats as control
tokens and which end an answer, since it also goes by their names, whatever their type.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from itertools import chain
from math import inf
from pathlib import Path
from typing import Any

from gguf import TokenType

from bioner_edge.convert.vocabulary import Tokenizer, byte_level, tokenizer_json
from bioner_edge.convert.vocabulary.bpe import merges_of
from bioner_edge.convert.vocabulary.llama_vocabulary import open_vocabulary
from bioner_edge.convert.vocabulary.reference import without_space
from bioner_edge.convert.vocabulary.sentencepiece import BLANK
from bioner_edge.convert.vocabulary.tokenizer_json import Merge, Record
from bioner_edge.errors import ModelError

__all__ = ["runtime", "write"]

_VERSION_LINE = "#version"  # merges written as strings are read as a comment if they begin so
_INSTEAD = "the tokenizers library cannot do what SentencePiece does with it; convert to GGUF"

_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
_METASPACE = {"type": "Metaspace", "replacement": BLANK, "prepend_scheme": "never", "split": False}
_UNESCAPING = [
    {"type": "Replace", "pattern": {"String": BLANK}, "content": " "},
    {"type": "ByteFallback"},
    {"type": "Fuse"},
]


def write(folder: Path, tokenizer: Tokenizer, out: Path) -> None:
    """Write the tokenizer of `folder`, which `vocabulary.read` read as `tokenizer`, to `out`, a tokenizer.json.

    Raises ModelError for a tokenizer.model whose scores do not order its merges uniquely.
    """
    path = folder / "tokenizer.json"
    parts = (
        _from_json(tokenizer_json.load(path))
        if path.is_file()
        else _from_model_file(folder / "tokenizer.model", tokenizer)
    )
    fixed = {"version": "1.0", "truncation": None, "padding": None, "normalizer": None, "post_processor": None}
    written = {**fixed, "added_tokens": list(_added_tokens(tokenizer)), **parts}
    try:
        data = json.dumps(written, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        raise ModelError(f"{path}: its text splitting contains a lone surrogate; save the tokenizer again") from None
    out.write_bytes(data)


def runtime(tokenizer: Tokenizer, context: int, cache: str) -> dict[str, Any]:
    """The contents of runtime.json; all but `context` and `cache` are what the llama.cpp back end reads from a GGUF."""
    with open_vocabulary(tokenizer) as model:
        return {
            "context": context,
            "bos": model.bos,
            "end_tokens": sorted(model.end_tokens),
            **model.template_tokens,
            "chat_template": model.chat_template,
            "cache": cache,
        }


def _added_tokens(tokenizer: Tokenizer) -> Iterator[dict[str, Any]]:
    """The tokens matched in text by name; `backends.onnx.tokenizer` explains their flags."""
    plain = {"single_word": False, "lstrip": False, "rstrip": False}
    with open_vocabulary(tokenizer) as model:
        for index, control in model.found_in_text():
            token = tokenizer.tokens[index]
            yield {"id": index, "content": token, **plain, "normalized": not control, "special": control}


def _from_json(found: Record) -> dict[str, Any]:
    """Model and steps of a tokenizer.json. The vocabulary includes the added tokens, so that all keep their ids."""
    bytes_only = byte_level.is_byte_level(found)
    vocabulary = {**found.vocabulary, **{token.content: token.id for token in found.added}}
    splits = {"type": "Sequence", "pretokenizers": [*map(without_space, found.steps["pre_tokenizer"])]}
    return {
        "pre_tokenizer": splits if bytes_only else _METASPACE,
        "decoder": _BYTE_LEVEL if bytes_only else {"type": "Sequence", "decoders": _UNESCAPING},
        "model": _model(
            vocabulary,
            found.merges(),
            unk_token=None if bytes_only else found.unknown,  # llama.cpp skips a byte that has no token
            fuse_unk=found.flag("fuse_unk"),
            byte_fallback=not bytes_only,
            ignore_merges=found.flag("ignore_merges"),
        ),
    }


def _from_model_file(path: Path, tokenizer: Tokenizer) -> dict[str, Any]:
    """Model and steps for a tokenizer.model."""
    vocabulary = {
        token: index
        for index, (token, kind) in enumerate(zip(tokenizer.tokens, tokenizer.types, strict=True))
        if kind != TokenType.UNUSED
    }
    merges = _merges(path, tokenizer)
    for part in chain.from_iterable(merges):
        if part not in vocabulary:  # SentencePiece also merges characters that are not pieces
            if not part.isascii():  # ASCII can represent its byte, which it becomes if it is not merged
                raise ModelError(f"{path}: {part!r} is part of pieces but is not a piece itself; {_INSTEAD}")
            vocabulary[part] = vocabulary[f"<0x{ord(part):02X}>"]
    unknown = None if tokenizer.unk is None else tokenizer.tokens[tokenizer.unk]
    flags = {"fuse_unk": True, "byte_fallback": True, "ignore_merges": False}
    return {
        "pre_tokenizer": _METASPACE,
        "decoder": {"type": "Sequence", "decoders": _UNESCAPING},
        "model": _model(vocabulary, merges, unk_token=unknown, **flags),
    }


def _model(vocabulary: Mapping[str, int], merges: Sequence[Merge], **settings: Any) -> dict[str, Any]:
    """A BPE of the tokenizers library. Merges written as strings take half the memory to read."""
    unused = ("dropout", "continuing_subword_prefix", "end_of_word_suffix")
    as_strings = not any(left.startswith(_VERSION_LINE) for left, _ in merges)
    return {
        "type": "BPE",
        **dict.fromkeys(unused),
        **settings,
        "vocab": dict(sorted(vocabulary.items(), key=lambda item: item[1])),
        "merges": [" ".join(pair) if as_strings else pair for pair in merges],
    }


def _merges(path: Path, tokenizer: Tokenizer) -> list[Merge]:
    """One merge per piece, the last one in SentencePiece's merging of the piece alone, ordered by score.

    A piece is never formed by another merge, see `vocabulary.bpe`. Raises ModelError where pieces have the same score
    and merging by rank cannot reproduce SentencePiece, which takes the leftmost.
    """
    scored = zip(tokenizer.tokens, tokenizer.scores, tokenizer.types, strict=True)
    ranks = {token: -score for token, score, kind in scored if kind == TokenType.NORMAL}
    tied: dict[float, list[Merge]] = {}
    earliest: dict[str, float] = {}  # token -> rank of the first merge that uses it
    for token, rank in ranks.items():
        states = merges_of(token, lambda pair: ranks.get("".join(pair)))
        if len(states) > 1 and len(states[-1]) == 1:
            left, right = states[-2]
            tied.setdefault(rank, []).append((left, right))
            earliest |= {part: min(rank, earliest.get(part, rank)) for part in (left, right)}
    found: list[Merge] = []
    for rank in sorted(tied):
        pairs = tied[rank]
        followed = any(earliest.get("".join(pair), inf) <= rank for pair in pairs)
        ordered = _leftmost_first(pairs)
        if len(pairs) > 1 and (followed or ordered is None):
            message = f"{len(pairs)} pieces have the score {-rank:g}, {''.join(pairs[0])!r} among them"
            raise ModelError(f"{path}: {message}; {_INSTEAD}")
        found += ordered or pairs
    return found


def _leftmost_first(pairs: Sequence[Merge]) -> list[Merge] | None:
    """The pairs in an order in which, of two that share a symbol, the left one is first; None where no order is."""
    before: dict[str, set[str]] = {}
    for left, right in pairs:
        if left != right:
            before.setdefault(right, set()).add(left)
    try:
        order = {symbol: at for at, symbol in enumerate(TopologicalSorter(before).static_order())}
    except CycleError:
        return None
    return sorted(pairs, key=lambda pair: (order.get(pair[0], 0), pair[0] != pair[1]))
