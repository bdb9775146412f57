"""Runtimes that turn token ids into logits, behind one small Protocol; import a back end's module by its name."""

from __future__ import annotations

from .contract import Backend, Sequence

__all__ = ["Backend", "Sequence"]
