"""Lone surrogates: strings of Python that are no text."""

from __future__ import annotations

__all__ = ["lone_surrogate"]


def lone_surrogate(text: str) -> str | None:
    """Why `text` cannot be encoded, or None: a lone surrogate is no character and no tokenizer can read it."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        return f"lone surrogate U+{code:04X} at offset {error.start}; repair the text where it was made"
    return None
