"""Convert tokenizers for llama.cpp, from tokenizer.json or tokenizer.model.

Whatever llama.cpp would tokenize differently is refused. The converted tokenizer guarantees that the ids of a text are
those of Hugging Face's tokenizer without Unicode normalization and, in our back end, without a space before the text;
and that the tokens spell the text byte for byte (except ▁, where a tokenizer writes it for a space). `reference` is
this guarantee as a function, on the original. The file tells other programs to add the space.
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
    """The tokenizer of a model's folder; `rows` is the number of rows of its embedding (vocab_size).

    `pre` is llama.cpp's name of the pre-tokenizer, where tokenizer.json is not recognized. Raises UsageError for a name
    that llama.cpp does not know or cannot use here, ModelError, naming the file and the value, for a tokenizer that
    llama.cpp would read differently.
    """
    processors: tuple[Step, ...] | None = None
    added: tuple[Added, ...]
    if (path := folder / "tokenizer.json").is_file():
        found = tokenizer_json.load(path)
        processors, added = found.steps["post_processor"], found.added
        if byte_level.is_byte_level(found):
            pieces, unknown, prefix = byte_level.read(found, rows, pre), None, "never"
        elif sentencepiece.is_sentencepiece(found):
            _refuse_pre(pre, path)
            pieces, unknown, prefix = sentencepiece.read(found, rows), found.unknown, sentencepiece.prefix(found)
        else:
            message = "neither byte-level nor SentencePiece-style BPE; no others can be converted"
            raise ModelError(f"{path}: {message}")
    elif (path := folder / "tokenizer.model").is_file():
        _refuse_pre(pre, path)
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


def _refuse_pre(pre: str | None, path: Path) -> None:
    if pre is not None:
        raise UsageError(f"--pre {pre} is for byte-level BPE; {path} does not split text before merging")
