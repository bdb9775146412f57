"""A vocabulary with only the tokens that a text needs: fewer rows to multiply at each step, fewer to keep in memory.

Kept are the tokens of the text, all that come about while these are made, the bytes, and what stands for no text. The
text then has the tokens that it had: each merge that was done on the way to them can still be done, and among fewer
merges it is still the first. Any other text still has tokens, of the same bytes but more of them.
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

# The tensors with a row for each token, by the end of their names.
_ROWS = ("embed_tokens.weight", "lm_head.weight", "lm_head.bias")
_ASCII = frozenset(map(chr, range(0x80)))


def trim_vocabulary(folder: Path, texts: Iterable[str], out: Path, pre: str | None = None) -> Ids:
    """Write the tokenizer of `folder` to `out`, with no more tokens than `texts` need; gives the ids that were kept.

    The new id of a token is its place among them, so they keep their order. Special tokens in the texts are read by
    their names, so that prompts can be among them. `pre` is as for `vocabulary.read`. Raises ModelError where there is
    no tokenizer.json, and what `vocabulary.read` raises.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        message = "a vocabulary is trimmed from it; save the tokenizer with a fast class of transformers"
        raise ModelError(f"{path}: missing; {message}")
    found = tokenizer_json.load(path)
    kept = _needed(found, remap_ids.named_ids(folder, found))
    with open_vocabulary(vocabulary.read(folder, found.size, pre)) as model:
        for text in texts:
            for form in _forms(found, text):
                kept.update(model.tokenize(form.encode(), special=True))
    ids = np.array(sorted(_with_parts(found, kept)), np.int64)
    remap_ids.write(folder, out, found, {old: new for new, old in enumerate(ids.tolist())})
    return ids


class Trimmed:
    """`source` with the rows of the tokens in `kept` alone, in that order, and config.json accordingly.

    Raises ModelError where no tensor has a row for each token, or one of `kept` has no row.
    """

    def __init__(self, source: Source, kept: Ids) -> None:
        self.folder, self.files = source.folder, source.files
        self._source, self._kept = source, kept
        text = source.config.get("text_config")
        rows = source.config.get("vocab_size", text.get("vocab_size") if isinstance(text, dict) else None)
        shapes = source.shapes()
        self._cut = {name for name, shape in shapes.items() if name.endswith(_ROWS) and shape[:1] == (rows,)}
        if not any(name.endswith("embed_tokens.weight") for name in self._cut):
            raise ModelError(f"{source.folder}: no embedding of vocab_size {rows} rows; mend config.json")
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


def _needed(found: Record, named: Iterable[int]) -> set[int]:
    """The ids that stay whatever the texts are: added tokens, roles, bytes, and single characters of ASCII.

    In a SentencePiece vocabulary the latter are beside the bytes, and what a model has seen; ▁ has no other spelling.
    """
    characters = set(BYTES.values()) if byte_level.is_byte_level(found) else _ASCII | {sentencepiece.BLANK}
    needed = {token.id for token in found.added}
    needed |= {i for t, i in found.vocabulary.items() if t in characters or sentencepiece.BYTE.fullmatch(t)}
    if found.unknown is not None:
        needed.add(found.vocabulary[found.unknown])
    return needed | {index for index in named if index < found.size}


def _forms(found: Record, text: str) -> Iterator[str]:
    """A text as it is fed, and as Hugging Face's tokenizer changes it first: NFC, blanks before its stretches."""
    forms = [text]
    if any(step["type"] == "NFC" for step in found.steps["normalizer"]):
        forms.append(unicodedata.normalize("NFC", text))
    if sentencepiece.prefix(found) != "never":
        named = re.compile("|".join(re.escape(token.content) for token in found.added) or "(?!)")
        forms += [" " + named.sub(r"\g<0> ", form) for form in forms]
    return iter(dict.fromkeys(forms))


def _with_parts(found: Record, kept: set[int]) -> set[int]:
    """The ids, and those of everything that comes about while their tokens are made."""
    ranks = {pair: float(rank) for rank, pair in enumerate(found.merges(), start=1)}
    whole = set(kept)
    for token, index in found.vocabulary.items():
        if index in kept:
            states = merges_of(token, ranks.get)
            if len(states[-1]) == 1:  # else it is found by its name, or taken whole: there is no way to keep
                whole.update(found.vocabulary[part] for state in states[1:] for part in state if len(part) > 1)
                whole.update(found.vocabulary[part] for part in states[0])
    return whole
