"""Try kernels of llama.cpp in a process of its own: python -m bioner_edge.backends.kernel_trial MODEL KERNELS PARENT

If they do not work, the process dies by a signal, or exits with the code `kernels.WRONG` and a reason on standard
error; any other code says nothing about them. See `kernels`. PARENT is the id of the calling process, which the trial
does not outlive.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from bioner_edge.backends.kernels import PLAIN, WRONG
from bioner_edge.backends.llama_cpp import LlamaCpp
from bioner_edge.errors import BionerError, ModelError
from bioner_edge.processes import end_with_parent

__all__ = ["main"]

_TOLERANCE = 0.1  # in standard deviations of the logits; kernels round differently, broken ones are far off


def main(model: Path, kernels: str) -> str | None:
    """Compare logits of steps of two and more tokens with those of plain kernels; returns how far apart they are, or
    None.

    Raises ModelError for a model that cannot be loaded or whose logits are all alike, which shows nothing.
    """
    found = []
    for chosen in dict.fromkeys((kernels, PLAIN)):
        with LlamaCpp(model, context=64, kernels=chosen) as backend:
            sequence, words = backend.new_sequence(), backend.vocabulary_size
            backend.eval(sequence, [1, 2])
            found.append(backend.eval(sequence, [n % words for n in range(3, 40)]).copy())  # more than one tile
    spread = float(found[-1].std())
    if not 0 < spread < np.inf:
        raise ModelError(f"{model}: the logits of plain kernels are not finite, or all alike")
    away = float(np.abs(found[0] - found[-1]).max()) / spread
    return None if away <= _TOLERANCE else f"logits {away:.2g} standard deviations away from those of plain kernels"


if __name__ == "__main__":
    end_with_parent(int(sys.argv[3]))
    try:
        message, code = main(Path(sys.argv[1]), sys.argv[2]), WRONG
    except BionerError as error:
        message, code = str(error), 1
    if message:
        print(message, file=sys.stderr)
        raise SystemExit(code)
