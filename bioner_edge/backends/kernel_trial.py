"""The process of a trial: python -m bioner_edge.backends.kernel_trial MODEL KERNELS PARENT

Where these kernels of llama.cpp do not work it is ended by a signal, or ends with the code `kernels.WRONG` and a reason
on standard error; any other code says nothing of them. See `kernels`. PARENT is the number of the process that
asks, which it does not outlive.
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

_TOLERANCE = 0.1  # of the logits' standard deviation; kernels round differently, garbage is far away


def main(model: Path, kernels: str) -> str | None:
    """Why the logits of steps of two and more tokens are not those of plain kernels; None where they are.

    Raises ModelError for a model that cannot be loaded, and for one that does not tell: its logits are all alike.
    """
    found = []
    for chosen in dict.fromkeys((kernels, PLAIN)):
        with LlamaCpp(model, context=64, kernels=chosen) as backend:
            sequence, words = backend.new_sequence(), backend.vocabulary_size
            backend.eval(sequence, [1, 2])
            found.append(backend.eval(sequence, [n % words for n in range(3, 40)]).copy())  # more than one tile
    spread = float(found[-1].std())
    if not 0 < spread < np.inf:
        raise ModelError(f"{model}: the logits of plain kernels are no numbers, or all alike")
    away = float(np.abs(found[0] - found[-1]).max()) / spread
    return None if away <= _TOLERANCE else f"logits {away:.2g} standard deviations away from those of plain kernels"


if __name__ == "__main__":
    end_with_parent(int(sys.argv[3]))
    try:
        told, code = main(Path(sys.argv[1]), sys.argv[2]), WRONG
    except BionerError as error:
        told, code = str(error), 1
    if told:
        print(told, file=sys.stderr)
        raise SystemExit(code)
