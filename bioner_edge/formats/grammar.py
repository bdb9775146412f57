"""GBNF fragments shared by formats."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["NUMBER", "STRING", "alternatives", "grammar", "literal"]

STRING = [
    r'string ::= "\"" char+ "\""',
    r'char ::= [^"\\\x00-\x1f] | "\\" (["\\bfnrt] | "u00" ("0" [0-7bef] | "1" [0-9a-f]))',
]
"""A non-empty string as json.dumps(…, ensure_ascii=False) writes it."""

NUMBER = ['number ::= "0" | [1-9] [0-9]*']


def literal(text: str) -> str:
    """A terminal that matches exactly `text`, which must not contain a line break."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def alternatives(texts: Iterable[str]) -> str:
    return " | ".join(map(literal, texts))


def grammar(*rules: str) -> str:
    """The rules as text, one per line."""
    return "".join(f"{rule}\n" for rule in rules)
