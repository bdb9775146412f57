"""Byte-level BPE (tokenizer.json of GPT-2, Llama 3, Qwen, SmolLM, Granite, OLMo 2 …): every byte has a character.

The text is never normalised at run time, because offsets count in the document as it is: a model whose tokenizer has
NFC (Qwen) sees a decomposed letter as its parts.
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
    """Whether the text is spelled in the characters of `BYTES` before it is merged."""
    return any(step["type"] == "ByteLevel" for key in ("pre_tokenizer", "decoder") for step in record.steps[key])


def read(record: Record, rows: int, pre: str | None) -> Pieces:
    """The tokens for llama.cpp. Raises ModelError for whatever it would do otherwise than the tokenizer."""
    path = record.path
    _refuse(record)
    if missing := [c for byte, c in BYTES.items() if byte in NEEDED and c not in record.vocabulary]:
        raise ModelError(f"{path}: no token for {len(missing)} of the bytes ({missing[0]!r}); train with all 256")
    alphabet = frozenset(BYTES.values())
    found = {
        # One with other characters spells no bytes, and no text becomes it.
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
        raise ModelError(f"{path}: the merge {show(spaced)} has a blank, which no byte becomes; train it again")
    name = choose(path, record.steps["pre_tokenizer"], record.flag("ignore_merges"), pre)
    return Pieces("gpt2", name, tokens, types, merges=tuple(map(" ".join, merges)))


def _refuse(record: Record) -> None:
    """Raises ModelError for what llama.cpp's byte-level BPE does not do."""
    model = record.model
    names = ("dropout", "continuing_subword_prefix", "end_of_word_suffix")
    wrong = [f"{name} {show(model[name])}" for name in names if model.get(name)]
    wrong += ["byte_fallback True"] if record.flag("byte_fallback") else []
    wrong += [f"normalizer {show(step)}" for step in record.steps["normalizer"] if step["type"] != "NFC"]
    if [step["type"] for step in record.steps["decoder"]] != ["ByteLevel"]:
        wrong.append(f"decoder {show(record.json.get('decoder'))}")
    if wrong:
        raise ModelError(f"{record.path}: {wrong[0]} cannot be converted; only plain byte-level BPE can")
