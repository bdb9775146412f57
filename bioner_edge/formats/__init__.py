"""Output formats: ways of writing entities as text, one module each.

A thirteenth format is one module with the functions of `contract.Format`, and one line here.
"""

from __future__ import annotations

from ..errors import UsageError, known
from . import multi_tag
from .contract import TEXT, Format, Message, Parsed, Problem

__all__ = ["FORMATS", "TEXT", "Format", "Message", "Parsed", "Problem", "get"]

FORMATS: dict[str, Format] = {"multi_tag": multi_tag}


def get(name: str) -> Format:
    """The format of that name. Raises UsageError, with the names that there are."""
    if name not in FORMATS:
        raise UsageError(known("format", name, FORMATS))
    return FORMATS[name]
