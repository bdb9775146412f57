"""The process of a trial: python -m bioner_edge.backends.kernel_trial MODEL KERNELS

It ends by a signal, or with a reason on standard error, where these kernels of llama.cpp do not work; see `kernels`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from bioner_edge.backends.kernels import KERNELS
from bioner_edge.backends.llama_cpp import LlamaCpp

__all__ = ["main"]

_TOLERANCE = 0.1  # of the logits' standard deviation; kernels round differently, garbage is far away


def main(model: Path, kernels: str) -> str | None:
    """Why the logits of steps of two and more tokens are not those of plain kernels; None where they are."""
    found = []
    for chosen in dict.fromkeys((kernels, KERNELS[-1])):
        with LlamaCpp(model, context=64, kernels=chosen) as backend:
            sequence, words = backend.new_sequence(), backend.vocabulary_size
            backend.eval(sequence, [1, 2])
            found.append(backend.eval(sequence, [n % words for n in range(3, 40)]).copy())  # more than one tile
    away = float(np.abs(found[0] - found[-1]).max() / found[-1].std())
    return None if away <= _TOLERANCE else f"logits {away:.2g} standard deviations away from those of plain kernels"


if __name__ == "__main__":
    if told := main(Path(sys.argv[1]), sys.argv[2]):
        raise SystemExit(told)
