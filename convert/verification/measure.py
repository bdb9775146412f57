"""Logits and measures from them, in the runtime that will be used: without torch and without the source.

Levels are compared with the F32 file under the same float32 cache, so that only the weights differ.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bioner_edge.backends import Backend
from bioner_edge.backends.loading import load_backend
from bioner_edge.convert.verification.samples import LINES
from bioner_edge.models.manifest import size
from bioner_edge.report import Figure

__all__ = [
    "POSITIONS",
    "QUANTIZED",
    "Logits",
    "cut",
    "distance",
    "fingerprint",
    "log_softmax",
    "logits",
    "open_exact",
    "sequences",
    "threads",
]

Logits = NDArray[np.float32]

POSITIONS = 384  # most tokens whose logits are compared: enough to detect errors, seconds on a small model
_FINGERPRINT_POSITIONS = 128
_SMALL_BYTES = 1 << 26  # smaller files use one thread: several would wait for each other at every layer
_SURE = 1.0  # lead of the best token in nats: a random model has near ties everywhere
# Level -> (largest mean KL divergence in nats, smallest share of sure positions with the same best token). Set to
# detect a broken file, not to choose a level, which F1 does.
QUANTIZED = {
    "int8": (1e-2, 0.97),
    "int4": (0.5, 0.70),
    "F16": (1e-4, 0.99),
    "BF16": (1e-2, 0.97),
    "Q8_0": (1e-2, 0.97),
    "Q6_K": (5e-2, 0.95),
    "Q5_K_M": (0.1, 0.90),
    "Q4_K_M": (0.3, 0.80),
    "Q4_0": (0.5, 0.70),
    "IQ4_XS": (0.5, 0.70),
}


def distance(path: Path, level: str, fed: Sequence[Sequence[int]], expected: Sequence[Logits]) -> list[Figure]:
    """The loss at `level`: KL divergence from the F32 file's logits, and agreement on the best token.

    `expected` are the F32 file's logits after each token of the sequences `fed`. The caller compares with the
    thresholds.
    """
    divergences, same = [], []
    with open_exact(path) as model:
        for ids, theirs in zip(fed, expected, strict=True):
            ours = logits(model, ids)
            p, q = log_softmax(theirs), log_softmax(ours)
            divergences.append((np.exp(p) * (p - q)).sum(axis=1))  # (positions,)
            first, second = np.partition(theirs, (-2, -1), axis=1)[:, :-3:-1].T
            same.append((theirs.argmax(axis=1) == ours.argmax(axis=1))[first - second >= _SURE])
    most, least = QUANTIZED[level]
    agreement = np.concatenate(same)
    return [
        Figure(f"{level}: mean KL divergence from F32", float(np.concatenate(divergences).mean()), most),
        Figure(
            f"{level}: same best token where F32 is sure ({agreement.size} of {sum(map(len, fed))} positions)",
            float(agreement.mean()) if agreement.size else 1.0,
            least,
            at_least=True,
        ),
    ]


def fingerprint(path: Path) -> dict[str, Any]:
    """Measures that can be repeated without the source: the token ids of `LINES`, and their mean log-probability."""
    with open_exact(path) as model:
        ids = [model.tokenize(line.encode(), special=False) for line in LINES]
        chosen = []
        for sequence in sequences(model, LINES, _FINGERPRINT_POSITIONS):
            of_next = log_softmax(logits(model, sequence[:-1])) if len(sequence) > 1 else np.empty((0, 1))
            chosen += [float(row[token]) for row, token in zip(of_next, sequence[1:], strict=True)]
    return {
        "ids_sha256": hashlib.sha256(json.dumps(ids).encode()).hexdigest(),
        "mean_log_probability": float(np.mean(chosen)),
    }


@contextmanager
def open_exact(path: Path, adapter: Path | None = None) -> Iterator[Backend]:
    """Open a model with a float32 cache, so that logits differ from float32 by the weights only."""
    with closing(load_backend(path, threads=threads(path), adapter=adapter, exact=True)) as model:
        yield model


def threads(path: Path) -> int | None:
    """How many threads a file is measured with: one for a small file, else the cores of this process."""
    return 1 if size(path) < _SMALL_BYTES else None


def sequences(model: Backend, lines: Sequence[str], positions: int = POSITIONS) -> list[list[int]]:
    """The lines as token ids, up to a total number of positions; none longer than the context."""
    return cut((model.tokenize(line.encode(), special=False) for line in lines), model.context, positions)


def cut(fed: Iterable[Sequence[int]], longest: int, positions: int = POSITIONS) -> list[list[int]]:
    """The first `positions` tokens of some sequences, each truncated to `longest`; empty ones are dropped."""
    found, left = [], positions
    for ids in fed:
        found.append(list(ids[: min(left, longest)]))
        left -= len(found[-1])
        if not left:
            break
    return [ids for ids in found if ids]


def logits(model: Backend, ids: Sequence[int]) -> Logits:
    """The logits after each token, fed one by one to exercise the cache. Shape: (positions, vocabulary)"""
    sequence = model.new_sequence()
    try:
        return np.stack([np.array(model.eval(sequence, [token])) for token in ids])
    finally:
        model.release(sequence)


def log_softmax(values: Logits) -> NDArray[np.float64]:
    """Log-softmax along the last axis. Shape: unchanged."""
    shifted = values.astype(np.float64) - values.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))
