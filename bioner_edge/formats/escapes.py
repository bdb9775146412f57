"""Escapes in formats of lines and columns: tabs, line breaks and backslashes as `\\t`, `\\n`, `\\r`, `\\\\`."""

from __future__ import annotations

import re

__all__ = ["FIELD", "FIELD_RULE", "escape", "unescape"]

_WRITTEN = {"\t": "\\t", "\n": "\\n", "\r": "\\r", "\\": "\\\\"}
_READ = {written: character for character, written in _WRITTEN.items()}
_TABLE = str.maketrans(_WRITTEN)

FIELD = r"(?:[^\t\n\r\\]|\\[tnr\\])+"
"""A regular expression for non-empty text in a column."""

FIELD_RULE = r'field ::= ([^\t\n\r\\] | "\\" [tnr\\])+'
"""The same in GBNF."""


def escape(text: str) -> str:
    return text.translate(_TABLE)


def unescape(field: str) -> str:
    return re.sub(r"\\[tnr\\]", lambda match: _READ[match.group()], field)
