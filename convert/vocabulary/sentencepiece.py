"""SentencePiece-style BPE (tokenizer.json of Llama 2, Mistral, Phi-3, Gemma): blanks are ▁, rare characters are bytes.

llama.cpp merges such text by score ("llama"), as SentencePiece itself does; Hugging Face by rank, only the pairs that
are listed. Where both are certainly the same the scores are written, which every version of llama.cpp reads. Where they
are not, the merges are written, for the pre-tokenizer "sarvam-moe": ▁ for blanks, bytes, and no splitting but at lines.

The blank that some of these tokenizers put before a text is not put there by our back end: what it feeds must spell the
text, byte for byte. So the first word of a text has the token that it has without a blank; `chat` gives prompts theirs.
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
"""How a token is written that stands for one byte."""
_DECODING = frozenset({"Replace", "ByteFallback", "Fuse", "Strip", "Metaspace"})


def is_sentencepiece(record: Record) -> bool:
    """Whether some step writes ▁ for a blank."""
    return any(BLANK in str(step) for steps in record.steps.values() for step in steps)


def read(record: Record, rows: int) -> Pieces:
    """The tokens for llama.cpp. Raises ModelError for whatever it would do otherwise than the tokenizer."""
    path = record.path
    _refuse(record)
    if missing := missing_bytes(record.vocabulary):
        raise ModelError(f"{path}: no token for {len(missing)} of the bytes ({missing[0]}); train with all 256")
    tokens, types = table(path, rows, _typed(record))
    check_added(path, record.added)
    merges = record.merges()
    _check_merges(record, merges)
    found = scores(merges, tokens)
    if found is not None:
        return Pieces("llama", "default", tokens, types, scores=tuple(found))
    _check_lines(record, merges)
    return Pieces("gpt2", "sarvam-moe", tokens, types, merges=tuple(map(" ".join, merges)))


def prefix(record: Record) -> str:
    """Before what Hugging Face puts a blank, as `chat` tells it."""
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
    """The bytes of text that no token spells, as byte tokens are written; a character below 0x80 is its own byte."""
    there = frozenset(tokens)
    return [
        f"<0x{b:02X}>" for b in sorted(NEEDED) if f"<0x{b:02X}>" not in there and not (b < 0x80 and chr(b) in there)
    ]


def unescape(content: str, kind: TokenType) -> Typed:
    """A token with its type; one of blanks is a normal token, because llama.cpp reads ▁ as a blank in these alone."""
    return content, TokenType.NORMAL if kind == TokenType.USER_DEFINED and BLANK in content else kind


def _typed(record: Record) -> dict[int, Typed]:
    """Text and type by id. One id may have two texts where they are a byte and its character, as in Gemma's tab."""
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
    """The byte token that a character stands for, or the token itself."""
    return f"<0x{ord(token):02X}>" if len(token) == 1 else token


def _refuse(record: Record) -> None:
    """Raises ModelError for what llama.cpp's SentencePiece does not do."""
    model, steps = record.model, record.steps
    names = ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "ignore_merges")
    wrong = [f"{name} {show(model[name])}" for name in names if model.get(name)]
    if not record.flag("byte_fallback"):
        wrong.append("byte_fallback false")
    wrong += [f"normalizer {show(step)}" for step in steps["normalizer"] if not _normalizes(step)]
    escaped = any(step["type"] == "Replace" for step in steps["normalizer"])
    splits = [step for step in steps["pre_tokenizer"] if not _splits(step, escaped)]
    wrong += [f"pre-tokenizer {show(step)}" for step in splits]
    if not escaped and not any(step["type"] == "Metaspace" for step in steps["pre_tokenizer"]):
        wrong.append("a blank that stays a blank")
    if not {"ByteFallback"} <= {step["type"] for step in steps["decoder"]} <= _DECODING:
        wrong.append(f"decoder {show(record.json.get('decoder'))}")
    if prefix(record) not in ("every", "always", "first", "never"):
        wrong.append(f"prepend_scheme {prefix(record)!r}")
    if prefix(record) == "every":  # they are looked for in the text after it got its blanks
        wrong += [f"normalized of {t.content!r}" for t in record.added if t.normalized and not t.special]
    if wrong:
        raise ModelError(f"{record.path}: {wrong[0]} cannot be converted; only plain SentencePiece-style BPE can")


def _normalizes(step: Step) -> bool:
    match step:
        case {"type": "NFC"} | {"type": "Prepend", "prepend": "▁"}:
            return True
        case {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}:
            return True
    return False


def _splits(step: Step, escaped: bool) -> bool:
    """Whether a step of the splitting changes nothing, or is a Metaspace, which `_check_merges` looks after."""
    match step:
        case {"type": "Metaspace", "replacement": "▁"}:
            return True
        case {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious"}:
            return escaped  # no blank is left to split at
    return False


def _check_merges(record: Record, merges: Sequence[Merge]) -> None:
    """Raises ModelError for merges that the way in which the text is split and spelled would not allow."""
    splits = any(s["type"] == "Metaspace" and s.get("split", True) is not False for s in record.steps["pre_tokenizer"])
    for left, right in merges:
        wrong = ""
        if BYTE.fullmatch(left) or BYTE.fullmatch(right):
            wrong = "joins bytes"
        elif " " in left + right:
            wrong = "has a blank, which is ▁ in the text"
        elif splits and BLANK in (left + right)[1:]:
            wrong = "reaches over a ▁, where the text is split"
        if wrong:
            message = f"the merge {show((left, right))} {wrong}"
            raise ModelError(f"{record.path}: {message}; llama.cpp would not do the same")
    if not merges:
        raise ModelError(f"{record.path}: no merges, which llama.cpp cannot load; train a tokenizer with some")


def _check_lines(record: Record, merges: Sequence[Merge]) -> None:
    """Raises ModelError for a merge over the end of a line, where "sarvam-moe" splits."""
    for pair in merges:
        token = "".join(pair)
        if "\n" in token and token.strip("\n"):
            message = f"the merge {show(pair)} reaches over the end of a line"
            raise ModelError(
                f"{record.path}: {message}, and its merges follow no scores; llama.cpp has nothing for that"
            )
