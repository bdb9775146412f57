"""SentencePiece-style BPE (tokenizer.json of Llama 2, Mistral, Phi-3, Gemma): spaces are ▁, rare characters are bytes.

llama.cpp merges such text by score ("llama"), as SentencePiece itself does; Hugging Face by rank, only the listed
pairs. Where both are provably the same, the scores are written, which every version of llama.cpp reads. Elsewhere the
merges are written, for the pre-tokenizer "sarvam-moe": ▁ for spaces, bytes, and splitting only at line ends.

Some of these tokenizers put a space before a text; our back end does not, because its tokens must spell the text byte
for byte. So the first word of a text has the token that it has without a space; `chat` adds the space to prompts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from gguf import TokenType

from bioner_edge.convert.vocabulary.bpe import scores
from bioner_edge.convert.vocabulary.table import NEEDED, Typed, added_types, check_added, table
from bioner_edge.convert.vocabulary.tokenizer import Pieces
from bioner_edge.convert.vocabulary.tokenizer_json import Merge, Record, Step, show
from bioner_edge.errors import ModelError

__all__ = ["BLANK", "BYTE", "is_sentencepiece", "missing_bytes", "prefix", "read", "unescape"]

BLANK = "▁"
BYTE = re.compile(r"<0x([0-9A-F]{2})>")
"""The name of a byte token."""
_DECODING = frozenset({"Replace", "ByteFallback", "Fuse", "Strip", "Metaspace"})


def is_sentencepiece(record: Record) -> bool:
    """Whether a step replaces spaces by ▁."""
    return any(BLANK in str(step) for steps in record.steps.values() for step in steps)


def read(record: Record, rows: int) -> Pieces:
    """The tokens for llama.cpp. Raises ModelError for whatever llama.cpp would tokenize differently."""
    path = record.path
    _refuse(record)
    if missing := missing_bytes(record.vocabulary):
        raise ModelError(f"{path}: no token for {len(missing)} of the bytes ({missing[0]}); train with all 256")
    tokens, types = table(path, rows, _token_types(record))
    check_added(path, record.added)
    merges = record.merges()
    _check_merges(record, merges)
    found = scores(merges, tokens)
    if found is not None:
        return Pieces("llama", "default", tokens, types, scores=tuple(found))
    _check_lines(record, merges)
    return Pieces("gpt2", "sarvam-moe", tokens, types, merges=tuple(map(" ".join, merges)))


def prefix(record: Record) -> str:
    """Where Hugging Face puts a space, as a key of `chat`."""
    for step in (*record.steps["normalizer"], *record.steps["pre_tokenizer"]):
        match step:
            case {"type": "Prepend"}:
                return "every"
            case {"type": "Metaspace", "prepend_scheme": str(scheme)}:
                return scheme
            case {"type": "Metaspace"}:
                return "always" if step.get("add_prefix_space", True) else "never"
    return "never"


def missing_bytes(tokens: Iterable[str]) -> list[str]:
    """The bytes of text that no token spells, as byte tokens; a character below 0x80 counts as its byte."""
    there = frozenset(tokens)
    return [
        f"<0x{b:02X}>" for b in sorted(NEEDED) if f"<0x{b:02X}>" not in there and not (b < 0x80 and chr(b) in there)
    ]


def unescape(content: str, kind: TokenType) -> Typed:
    """A token with its type; one of spaces is a normal token, because llama.cpp reads ▁ as a space only in these."""
    return content, TokenType.NORMAL if kind == TokenType.USER_DEFINED and BLANK in content else kind


def _token_types(record: Record) -> dict[int, Typed]:
    """Text and type by id. An id may have two texts where they are a byte and its character, as for Gemma's tab."""
    found: dict[int, Typed] = {}
    for token, index in record.vocabulary.items():
        byte = BYTE.fullmatch(token)
        other = found.get(index, (None,))[0]
        if other is not None and {_byte(other), _byte(token)} != {token if byte else other}:
            raise ModelError(f"{record.path}: {other!r} and {token!r} have the same id; save the tokenizer again")
        if other is None or byte:
            found[index] = token, TokenType.BYTE if byte else TokenType.NORMAL
    for index, (content, kind) in added_types(record.added).items():
        if not BYTE.fullmatch(content):
            found[index] = unescape(content, kind)
    if (unknown := record.unknown) is not None:
        found[record.vocabulary[unknown]] = unknown, TokenType.UNKNOWN
    return found


def _byte(token: str) -> str:
    """The byte token of a single character, or the token itself."""
    return f"<0x{ord(token):02X}>" if len(token) == 1 else token


def _refuse(record: Record) -> None:
    """Raises ModelError for what llama.cpp's SentencePiece does not support."""
    model, steps = record.model, record.steps
    names = ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "ignore_merges")
    unsupported = [f"{name} {show(model[name])}" for name in names if model.get(name)]
    if not record.flag("byte_fallback"):
        unsupported.append("byte_fallback false")
    unsupported += [f"normalizer {show(step)}" for step in steps["normalizer"] if not _is_supported_normalizer(step)]
    escaped = any(step["type"] == "Replace" for step in steps["normalizer"])
    splits = [step for step in steps["pre_tokenizer"] if not _is_supported_split(step, escaped)]
    unsupported += [f"pre-tokenizer {show(step)}" for step in splits]
    if not escaped and not any(step["type"] == "Metaspace" for step in steps["pre_tokenizer"]):
        unsupported.append("spaces that are not escaped as ▁")
    if not {"ByteFallback"} <= {step["type"] for step in steps["decoder"]} <= _DECODING:
        unsupported.append(f"decoder {show(record.json.get('decoder'))}")
    if prefix(record) not in ("every", "always", "first", "never"):
        unsupported.append(f"prepend_scheme {prefix(record)!r}")
    if prefix(record) == "every":  # they are matched after spaces were added to the text
        unsupported += [f"normalized of {t.content!r}" for t in record.added if t.normalized and not t.special]
    if unsupported:
        raise ModelError(f"{record.path}: {unsupported[0]} cannot be converted; only plain SentencePiece-style BPE can")


def _is_supported_normalizer(step: Step) -> bool:
    match step:
        case {"type": "NFC"} | {"type": "Prepend", "prepend": "▁"}:
            return True
        case {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}:
            return True
    return False


def _is_supported_split(step: Step, escaped: bool) -> bool:
    """Whether a splitting step has no effect, or is a Metaspace, which `_check_merges` handles."""
    match step:
        case {"type": "Metaspace", "replacement": "▁"}:
            return True
        case {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious"}:
            return escaped  # no space is left to split at
    return False


def _check_merges(record: Record, merges: Sequence[Merge]) -> None:
    """Raises ModelError for merges that splitting and escaping of the text prevent."""
    splits = any(s["type"] == "Metaspace" and s.get("split", True) is not False for s in record.steps["pre_tokenizer"])
    for left, right in merges:
        reason = ""
        if BYTE.fullmatch(left) or BYTE.fullmatch(right):
            reason = "joins bytes"
        elif " " in left + right:
            reason = "has a space, which is ▁ in the text"
        elif splits and BLANK in (left + right)[1:]:
            reason = "crosses a ▁, where the text is split"
        if reason:
            message = f"the merge {show((left, right))} {reason}"
            raise ModelError(f"{record.path}: {message}; llama.cpp would merge differently")
    if not merges:
        raise ModelError(f"{record.path}: no merges, which llama.cpp cannot load; train a tokenizer with some")


def _check_lines(record: Record, merges: Sequence[Merge]) -> None:
    """Raises ModelError for a merge across a line end, where "sarvam-moe" splits."""
    for pair in merges:
        token = "".join(pair)
        if "\n" in token and token.strip("\n"):
            message = f"the merge {show(pair)} crosses a line end"
            raise ModelError(
                f"{record.path}: {message}, and no scores reproduce its merges; llama.cpp does not support that"
            )
