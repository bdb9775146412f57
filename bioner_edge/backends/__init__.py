"""Back ends: runtimes that turn token ids into logits, behind one small Protocol. Import each module by its name."""

from __future__ import annotations

import os

from bioner_edge.backends.contract import Backend, CachedSequence

__all__ = ["WAITING", "Backend", "CachedSequence"]

WAITING = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "300"}
"""How llama.cpp's threads wait for each other, some hundred times per token: spin briefly (long enough on an idle
machine), then sleep. With libgomp's default, spinning for milliseconds, they starve each other when another program
runs; without spinning, a step takes half as long again on an idle machine. Figures:
`python -m bioner_edge.benchmarks.studies.kernels`."""

if not WAITING.keys() & os.environ.keys():  # libgomp reads them when loaded; the user's setting wins
    os.environ |= WAITING
