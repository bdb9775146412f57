"""Tokens and their types in order of id, and the added tokens, which are matched in text before anything else."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from gguf import TokenType

from bioner_edge.convert.vocabulary.tokenizer_json import Added
from bioner_edge.errors import ModelError

__all__ = ["BY_TEXT", "MOST", "NEEDED", "Typed", "added_types", "check_added", "table"]

MOST = 1 << 22
"""Largest number of tokens: far beyond any vocabulary, and little memory."""

NEEDED = frozenset(range(0xF5)) - {0xC0, 0xC1, 0xF1, 0xF2}
"""The bytes that occur in UTF-8 text, for the planes that Unicode has assigned. Granite has no others."""

Typed = tuple[str, TokenType]

# Texts of tokens that llama.cpp treats as control tokens, whatever their type.
BY_TEXT = frozenset({
    "</s>", "<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>",
    "<end_of_turn>", "<|endoftext|>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>",
    "<end_of_utterance>", "<eos>", "<turn|>", "<|tool_response>", "[e~[",
})  # fmt: skip


def table(path: Path, rows: int, found: Mapping[int, Typed]) -> tuple[tuple[str, ...], tuple[TokenType, ...]]:
    """Tokens and types in order of id, as many as the embedding has rows; rows without a token are UNUSED.

    Raises ModelError for what llama.cpp cannot represent: two tokens with one text, an empty one, a lone surrogate.
    """
    if rows > MOST:
        raise ModelError(f"{path}: {rows} rows are not possible for an embedding; correct vocab_size in config.json")
    if max(found, default=0) >= rows:
        raise ModelError(f"{path}: token id {max(found)} is outside the embedding of {rows} rows; resize it")
    filled = [found.get(index, (f"[PAD{index}]", TokenType.UNUSED)) for index in range(rows)]
    tokens = tuple(token for token, _ in filled)
    if len(set(tokens)) < rows:
        raise ModelError(f"{path}: two ids have the same text, which llama.cpp cannot load; train it again")
    for token in tokens:
        if not token or "\0" in token or any("\ud800" <= c <= "\udfff" for c in token):
            raise ModelError(f"{path}: the token {token!r} cannot be represented in llama.cpp; train it again")
    return tokens, tuple(kind for _, kind in filled)


def added_types(added: Iterable[Added]) -> dict[int, Typed]:
    """The added tokens by id: CONTROL ones do not represent text; USER_DEFINED ones are also matched in documents."""
    types = {}
    for token in added:
        control = token.special or token.content in BY_TEXT
        types[token.id] = token.content, TokenType.CONTROL if control else TokenType.USER_DEFINED
    return types


def check_added(path: Path, added: Collection[Added]) -> None:
    """Raises ModelError for added tokens that llama.cpp matches differently from Hugging Face."""
    types = added_types(added)
    for token in added:
        control = types[token.id][1] == TokenType.CONTROL  # only in prompts, where the chat template handles it
        for name, given in (("lstrip", token.lstrip), ("rstrip", token.rstrip and not control)):
            if given or token.single_word:
                message = f"{name if given else 'single_word'} of {token.content!r}"
                raise ModelError(f"{path}: {message} cannot be converted; add the token without it")
    if clash := _clash([token.content for token in added]):
        message = (
            f"the added tokens {clash[0]!r} and {clash[1]!r} can overlap, and llama.cpp would match the second first"
        )
        raise ModelError(f"{path}: {message}; rename one of them")


def _clash(contents: Collection[str]) -> tuple[str, str] | None:
    """Two tokens that overlap in some text, where Hugging Face matches the leftmost and llama.cpp the longest."""
    all_of_them = frozenset(contents)
    beginnings: dict[str, list[str]] = {}
    for content in contents:
        for end in range(1, len(content)):
            beginnings.setdefault(content[:end], []).append(content)
    for first in contents:
        for at in range(1, len(first)):
            for second in beginnings.get(first[at:], ()):
                text = first[:at] + second
                leftmost = next(text[:end] for end in range(len(text), 0, -1) if text[:end] in all_of_them)
                if leftmost == first != second and len(second.encode()) >= len(first.encode()):
                    return first, second
    return None
