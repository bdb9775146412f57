"""Runtimes that turn token ids into logits, behind one small Protocol; import a back end's module by its name."""

from __future__ import annotations

import os

from .contract import Backend, Sequence

__all__ = ["Backend", "Sequence"]

# llama.cpp's threads meet some hundred times a token. Waiting in a loop, as libgomp does by default, they starve each
# other wherever another program runs: forty times slower. libgomp reads this when it is loaded, so it is said first.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
