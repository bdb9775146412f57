"""Tokenizers as llama.cpp reads them, from tokenizer.json or tokenizer.model.

llama.cpp is told what the tokenizer does, and whatever it would do otherwise is refused. What it then promises: the
ids of a text are those of Hugging Face's tokenizer without Unicode normalization and, in our back end, without a blank
before the text; and the tokens spell the text byte for byte (▁ aside, where a tokenizer writes it for a blank).
`reference` is that promise as a function, on the original. The file tells other programs of the blank.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from bioner_edge.convert.vocabulary import byte_level, model_file, sentencepiece, special, tokenizer_json
from bioner_edge.convert.vocabulary.chat import wrap
from bioner_edge.convert.vocabulary.pre_tokenizers import PRE_TOKENIZERS
from bioner_edge.convert.vocabulary.reference import reference, specials
from bioner_edge.convert.vocabulary.tokenizer import Pieces, Tokenizer
from bioner_edge.convert.vocabulary.tokenizer_json import Added, Step
from bioner_edge.errors import ModelError, UsageError

__all__ = ["PRE_TOKENIZERS", "Tokenizer", "read", "reference", "specials"]


def read(folder: Path, rows: int, pre: str | None = None) -> Tokenizer:
    """The tokenizer of a model's folder; `rows` is the height of its embedding (vocab_size).

    `pre` is llama.cpp's name for how the text is split, where it is not to be told from tokenizer.json. Raises
    UsageError for a name that llama.cpp does not know or has no use for, ModelError, naming the file and what stands in
    it, for a tokenizer that llama.cpp would read otherwise.
    """
    processors: tuple[Step, ...] | None = None
    added: tuple[Added, ...]
    if (path := folder / "tokenizer.json").is_file():
        found = tokenizer_json.load(path)
        processors, added = found.steps["post_processor"], found.added
        if byte_level.is_byte_level(found):
            pieces, unknown, prefix = byte_level.read(found, rows, pre), None, "never"
        elif sentencepiece.is_sentencepiece(found):
            _unsplit(pre, path)
            pieces, unknown, prefix = sentencepiece.read(found, rows), found.unknown, sentencepiece.prefix(found)
        else:
            message = "neither byte-level BPE nor SentencePiece-style BPE, which are all that can be converted"
            raise ModelError(f"{path}: {message}")
    elif (path := folder / "tokenizer.model").is_file():
        _unsplit(pre, path)
        model, added = model_file.load(path), model_file.added_tokens(folder)
        pieces, unknown = model_file.read(model, added, rows)
        prefix = model_file.prefix(model, folder)
    else:
        message = "save the tokenizer with a fast class of transformers, or put its tokenizer.model there"
        raise ModelError(f"{folder / 'tokenizer.json'}: missing; {message}")
    roles = special.read(folder, pieces.tokens, processors, unknown)
    return Tokenizer(
        **{field.name: getattr(pieces, field.name) for field in fields(Pieces)},
        bos=roles.bos,
        ends=roles.ends,
        pad=roles.pad,
        unk=roles.unk,
        add_bos=roles.add_bos,
        add_eos=roles.add_eos,
        add_space_prefix=prefix != "never" and pieces.model == "llama",
        chat_template=roles.chat_template,
        prompt_template=wrap(roles.chat_template, added, prefix),
    )


def _unsplit(pre: str | None, path: Path) -> None:
    if pre is not None:
        raise UsageError(f"--pre {pre} is for byte-level BPE; {path} does not split text before merging")
