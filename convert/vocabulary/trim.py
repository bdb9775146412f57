"""Trim a vocabulary to the tokens that a text needs: fewer output rows to compute at each step, and less memory.

Kept are the tokens of the text, all intermediate tokens of their merges, the bytes, and tokens that do not represent
text. The text keeps its tokens: each merge on the way to them is still possible, and among fewer merges it is still the
first. Any other text still has tokens, of the same bytes but more of them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bioner_edge.backends.byte_level import BYTES
from bioner_edge.convert import vocabulary
from bioner_edge.convert.vocabulary import byte_level, remap_ids, sentencepiece, tokenizer_json
from bioner_edge.convert.vocabulary.bpe import merges_of
from bioner_edge.convert.vocabulary.llama_vocabulary import open_vocabulary
from bioner_edge.convert.vocabulary.tokenizer_json import Record
from bioner_edge.errors import ModelError

if TYPE_CHECKING:
    from bioner_edge.convert.checkpoint import Source

__all__ = ["Trimmed", "trim_vocabulary"]

Ids = NDArray[np.int64]

# Name endings of the tensors with a row per token.
_ROWS = ("embed_tokens.weight", "lm_head.weight", "lm_head.bias")
_ASCII = frozenset(map(chr, range(0x80)))


def trim_vocabulary(folder: Path, texts: Iterable[str], out: Path, pre: str | None = None) -> Ids:
    """Write the tokenizer of `folder` to `out` with only the tokens that `texts` need; returns the original ids kept.

    The new id of a token is its index among them, so the order is unchanged. Special tokens in the texts are matched by
    name, so prompts can be included. `pre` is as in `vocabulary.read`. Raises ModelError where there is no
    tokenizer.json, and as `vocabulary.read` does.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        message = "trimming needs it; save the tokenizer with a fast class of transformers"
        raise ModelError(f"{path}: missing; {message}")
    found = tokenizer_json.load(path)
    kept = _required_ids(found, remap_ids.named_ids(folder, found))
    with open_vocabulary(vocabulary.read(folder, found.size, pre)) as model:
        for text in texts:
            for form in _forms(found, text):
                kept.update(model.tokenize(form.encode(), special=True))
    ids = np.array(sorted(_add_parts(found, kept)), np.int64)
    remap_ids.write(folder, out, found, {old: new for new, old in enumerate(ids.tolist())})
    return ids


class Trimmed:
    """`source` with only the rows of the tokens in `kept`, in that order, and config.json changed accordingly.

    Raises ModelError where no tensor has a row per token, or a token in `kept` has no row.
    """

    def __init__(self, source: Source, kept: Ids) -> None:
        self.folder, self.files = source.folder, source.files
        self._source, self._kept = source, kept
        text = source.config.get("text_config")
        rows = source.config.get("vocab_size", text.get("vocab_size") if isinstance(text, dict) else None)
        shapes = source.shapes()
        self._cut = {name for name, shape in shapes.items() if name.endswith(_ROWS) and shape[:1] == (rows,)}
        if not any(name.endswith("embed_tokens.weight") for name in self._cut):
            raise ModelError(f"{source.folder}: no embedding has vocab_size = {rows} rows; correct config.json")
        if len(kept) and kept[-1] >= rows:
            raise ModelError(f"{source.folder}: token {kept[-1]} has no row in an embedding of {rows}; resize it")
        self._shapes = {n: (len(kept), *s[1:]) if n in self._cut else s for n, s in shapes.items()}
        self.config: Mapping[str, Any] = remap_ids.config(source.config, {o: n for n, o in enumerate(kept.tolist())})

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return self._shapes

    def tensor(self, name: str) -> NDArray[np.float32]:
        """One tensor, as `source` gives it. Shape: `shapes()[name]`"""
        whole = self._source.tensor(name)
        return whole[self._kept] if name in self._cut else whole


def _required_ids(found: Record, named: Iterable[int]) -> set[int]:
    """The ids kept whatever the texts are: added tokens, tokens with roles, bytes, and single ASCII characters.

    In a SentencePiece vocabulary the characters exist besides the bytes, and are what the model was trained on; ▁ has
    no other spelling.
    """
    characters = set(BYTES.values()) if byte_level.is_byte_level(found) else _ASCII | {sentencepiece.BLANK}
    needed = {token.id for token in found.added}
    needed |= {i for t, i in found.vocabulary.items() if t in characters or sentencepiece.BYTE.fullmatch(t)}
    if found.unknown is not None:
        needed.add(found.vocabulary[found.unknown])
    return needed | {index for index in named if index < found.size}


def _forms(found: Record, text: str) -> Iterator[str]:
    """A text as it is fed, and as Hugging Face's tokenizer changes it first: NFC, spaces before its parts."""
    forms = [text]
    if any(step["type"] == "NFC" for step in found.steps["normalizer"]):
        forms.append(unicodedata.normalize("NFC", text))
    if sentencepiece.prefix(found) != "never":
        named = re.compile("|".join(re.escape(token.content) for token in found.added) or "(?!)")
        forms += [" " + named.sub(r"\g<0> ", form) for form in forms]
    return iter(dict.fromkeys(forms))


def _add_parts(found: Record, kept: set[int]) -> set[int]:
    """The ids, plus those of all intermediate tokens of their merges."""
    ranks = {pair: float(rank) for rank, pair in enumerate(found.merges(), start=1)}
    whole = set(kept)
    for token, index in found.vocabulary.items():
        if index in kept:
            states = merges_of(token, ranks.get)
            if len(states[-1]) == 1:  # otherwise it is matched by name or as a whole, without merges
                whole.update(found.vocabulary[part] for state in states[1:] for part in state if len(part) > 1)
                whole.update(found.vocabulary[part] for part in states[0])
    return whole
