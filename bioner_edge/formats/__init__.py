"""Output formats: how a model writes entities as text, one module each.

To add a format, write a module with the functions of `contract.Format` and add a line here.
"""

from __future__ import annotations

from bioner_edge.errors import UsageError, unknown_name
from bioner_edge.formats import (
    conv_term,
    multi_bio,
    multi_brat,
    multi_code,
    multi_span,
    multi_tag,
    multi_term,
    multi_triple,
    single_code,
    single_span,
    single_tag,
    single_term,
)
from bioner_edge.formats.contract import TEXT, Format, Message, Parsed, Problem

__all__ = ["FORMATS", "TEXT", "Format", "Message", "Parsed", "Problem", "get"]

FORMATS: dict[str, Format] = {
    "conv_term": conv_term,
    "single_term": single_term,
    "multi_term": multi_term,
    "single_tag": single_tag,
    "multi_tag": multi_tag,
    "single_code": single_code,
    "multi_code": multi_code,
    "single_span": single_span,
    "multi_span": multi_span,
    "multi_triple": multi_triple,
    "multi_bio": multi_bio,
    "multi_brat": multi_brat,
}


def get(name: str) -> Format:
    """Look up a format by name. Raises UsageError, which lists the known names."""
    if name not in FORMATS:
        raise UsageError(unknown_name("format", name, FORMATS))
    return FORMATS[name]
