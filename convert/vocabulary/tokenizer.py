"""A tokenizer as written to a GGUF."""

from __future__ import annotations

from dataclasses import dataclass

from gguf import GGUFWriter, TokenType

from bioner_edge.backends.native import PROMPT_TEMPLATE

__all__ = ["Pieces", "Tokenizer"]


@dataclass(frozen=True, slots=True)
class Pieces:
    """Tokens in order of id, and how llama.cpp forms them from text.

    `model` and `pre` are llama.cpp's names for that. It merges either by `merges`, listed by rank, or by `scores`, one
    per token, higher first; the other is empty.
    """

    model: str
    pre: str
    tokens: tuple[str, ...]
    types: tuple[TokenType, ...]
    merges: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Tokenizer(Pieces):
    """Tokens and their roles. `ends` are the ids that end an answer, the tokenizer's own first, at most three.

    `add_space_prefix` says that the original puts a space before a text. Our back end does not, since its tokens must
    spell the text; so `prompt_template` is the chat template with those spaces written out.
    """

    bos: int | None = None
    ends: tuple[int, ...] = ()
    pad: int | None = None
    unk: int | None = None
    add_bos: bool = False
    add_eos: bool = False
    add_space_prefix: bool = False
    chat_template: str | None = None
    prompt_template: str | None = None

    def write(self, writer: GGUFWriter) -> None:
        """Add the tokenizer's keys. Unknown values are omitted; add_bos, add_eos and add_space_prefix are always
        written, because llama.cpp has its own defaults by `model` and `pre`."""
        writer.add_tokenizer_model(self.model)
        writer.add_tokenizer_pre(self.pre)
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.types)
        if self.scores:
            writer.add_token_scores(self.scores)
        else:
            writer.add_token_merges(self.merges)
        for add, value in (
            (writer.add_bos_token_id, self.bos),
            (writer.add_pad_token_id, self.pad),
            (writer.add_unk_token_id, self.unk),
            *zip((writer.add_eos_token_id, writer.add_eot_token_id, writer.add_eom_token_id), self.ends, strict=False),
        ):
            if value is not None:
                add(value)
        writer.add_add_bos_token(self.add_bos)
        writer.add_add_eos_token(self.add_eos)
        writer.add_add_space_prefix(self.add_space_prefix)
        if self.chat_template is not None:
            writer.add_chat_template(self.chat_template)
        if self.prompt_template not in (None, self.chat_template):
            writer.add_string(PROMPT_TEMPLATE.decode(), self.prompt_template)
