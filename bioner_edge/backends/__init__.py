"""Runtimes that turn token ids into logits, behind one small Protocol; import a back end's module by its name."""

from __future__ import annotations

import os

from bioner_edge.backends.contract import Backend, CachedSequence

__all__ = ["WAITING", "Backend", "CachedSequence"]

WAITING = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "300"}
"""How llama.cpp's threads wait for each other, which they do some hundred times a token: a moment in a loop, as long as
it takes where nothing else runs, then asleep. In a loop for milliseconds, as libgomp does of itself, they starve each
other wherever another program runs; asleep at once, they take half as long again where none does. Figures:
`python -m bioner_edge.benchmarks.studies.kernels`."""

if not WAITING.keys() & os.environ.keys():  # libgomp reads them when it is loaded; whoever set one knows better
    os.environ |= WAITING
