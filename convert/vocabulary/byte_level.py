"""Byte-level BPE (tokenizer.json of GPT-2, Llama 3, Qwen, SmolLM, Granite, OLMo 2 …): every byte has a character.

Text is never normalized at run time, because offsets refer to the original document: a model whose tokenizer has NFC
(Qwen) gets a decomposed letter in its parts.
"""

from __future__ import annotations

from gguf import TokenType

from bioner_edge.backends.byte_level import BYTES
from bioner_edge.convert.vocabulary.pre_tokenizers import choose
from bioner_edge.convert.vocabulary.table import NEEDED, added_types, check_added, table
from bioner_edge.convert.vocabulary.tokenizer import Pieces
from bioner_edge.convert.vocabulary.tokenizer_json import Record, show
from bioner_edge.errors import ModelError

__all__ = ["is_byte_level", "read"]


def is_byte_level(record: Record) -> bool:
    """Whether text is mapped to the characters of `BYTES` before merging."""
    return any(step["type"] == "ByteLevel" for key in ("pre_tokenizer", "decoder") for step in record.steps[key])


def read(record: Record, rows: int, pre: str | None) -> Pieces:
    """The tokens for llama.cpp. Raises ModelError for whatever llama.cpp would tokenize differently."""
    path = record.path
    _refuse(record)
    if missing := [c for byte, c in BYTES.items() if byte in NEEDED and c not in record.vocabulary]:
        raise ModelError(f"{path}: no token for {len(missing)} of the bytes ({missing[0]!r}); train with all 256")
    alphabet = frozenset(BYTES.values())
    found = {
        # A token with other characters spells no bytes, so no text is tokenized to it.
        index: (token, TokenType.NORMAL if alphabet.issuperset(token) else TokenType.UNUSED)
        for token, index in record.vocabulary.items()
    }
    if len(found) < len(record.vocabulary):
        raise ModelError(f"{path}: two tokens have the same id; save the tokenizer again")
    tokens, types = table(path, rows, found | added_types(record.added))
    check_added(path, record.added)
    merges = record.merges()
    if not merges:
        raise ModelError(f"{path}: no merges, which llama.cpp cannot load; train a tokenizer with some")
    if spaced := next((pair for pair in merges if " " in "".join(pair)), None):
        raise ModelError(f"{path}: the merge {show(spaced)} has a space, which no byte maps to; train it again")
    name = choose(path, record.steps["pre_tokenizer"], record.flag("ignore_merges"), pre)
    return Pieces("gpt2", name, tokens, types, merges=tuple(map(" ".join, merges)))


def _refuse(record: Record) -> None:
    """Raises ModelError for what llama.cpp's byte-level BPE does not support."""
    model = record.model
    names = ("dropout", "continuing_subword_prefix", "end_of_word_suffix")
    unsupported = [f"{name} {show(model[name])}" for name in names if model.get(name)]
    unsupported += ["byte_fallback True"] if record.flag("byte_fallback") else []
    unsupported += [f"normalizer {show(step)}" for step in record.steps["normalizer"] if step["type"] != "NFC"]
    if [step["type"] for step in record.steps["decoder"]] != ["ByteLevel"]:
        unsupported.append(f"decoder {show(record.json.get('decoder'))}")
    if unsupported:
        raise ModelError(f"{record.path}: {unsupported[0]} cannot be converted; only plain byte-level BPE can")
