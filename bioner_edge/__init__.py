"""bioner-edge: biomedical named entities from text, offline, with small language models.

import bioner_edge
extractor = bioner_edge.load()
extractor("Naloxone reverses the antihypertensive effect of clonidine.").entities
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from bioner_edge.document import Document, Entity, Span
from bioner_edge.errors import BionerError, InputError, ModelError, UsageError

if TYPE_CHECKING:
    from bioner_edge.extract import Extractor
    from bioner_edge.extraction import Extraction
    from bioner_edge.loading import load

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

_LATER = {"Extraction": "extraction", "Extractor": "extract", "load": "loading"}


def __getattr__(name: str) -> Any:
    # numpy and the runtime are imported only by what extracts: `import bioner_edge` stays quick.
    if name in _LATER:
        return getattr(import_module(f".{_LATER[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
