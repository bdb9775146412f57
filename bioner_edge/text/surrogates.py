"""Lone surrogates: Python strings that are not valid Unicode text."""

from __future__ import annotations

__all__ = ["surrogate_error"]


def surrogate_error(text: str) -> str | None:
    """Why `text` cannot be encoded, or None: a lone surrogate is not a character, and no tokenizer can read it."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        return f"lone surrogate U+{code:04X} at offset {error.start}; repair the text at its source"
    return None
