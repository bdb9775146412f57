"""bioner-edge: biomedical named entities from text, offline, with small language models.

import bioner_edge
extractor = bioner_edge.load()
extractor("Naloxone reverses the antihypertensive effect of clonidine.").entities
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import BionerError, InputError, ModelError, UsageError
from .span import Document, Entity, Span

if TYPE_CHECKING:
    from .extract import Extraction, Extractor, load

__version__ = "0.1.0"

__all__ = [
    "BionerError",
    "Document",
    "Entity",
    "Extraction",
    "Extractor",
    "InputError",
    "ModelError",
    "Span",
    "UsageError",
    "__version__",
    "load",
]


def __getattr__(name: str) -> Any:
    # numpy and the runtime are imported when something is extracted, not when a span is.
    if name in ("Extraction", "Extractor", "load"):
        from . import extract

        return getattr(extract, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
