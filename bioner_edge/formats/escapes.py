"""How formats of lines and columns write text: a tab, line break or backslash as `\\t`, `\\n`, `\\r`, `\\\\`."""

from __future__ import annotations

import re

__all__ = ["FIELD", "FIELD_RULE", "escape", "unescape"]

_WRITTEN = {"\t": "\\t", "\n": "\\n", "\r": "\\r", "\\": "\\\\"}
_READ = {written: character for character, written in _WRITTEN.items()}
_TABLE = str.maketrans(_WRITTEN)

FIELD = r"(?:[^\t\n\r\\]|\\[tnr\\])+"
"""A regular expression for text in a column, not empty."""

FIELD_RULE = r'field ::= ([^\t\n\r\\] | "\\" [tnr\\])+'
"""The same in GBNF."""


def escape(text: str) -> str:
    return text.translate(_TABLE)


def unescape(field: str) -> str:
    return re.sub(r"\\[tnr\\]", lambda match: _READ[match.group()], field)
