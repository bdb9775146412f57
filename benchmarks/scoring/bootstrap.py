"""Bootstrap over documents: confidence intervals of scores, and paired tests of differences.

Documents are resampled, not entities, since the entities of one text are right or wrong together. Each resample gives
the F1 that another sample of as many documents could have had; 95 % of them lie in the percentile interval (Efron and
Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13).

Two systems are compared on the same resamples. The p-value is the share of resamples in which their difference departs
from the observed one by at least as much as that departs from zero (two-sided form of Berg-Kirkpatrick, Burkett and
Klein 2012, "An Empirical Investigation of Statistical Significance in NLP", https://aclanthology.org/D12-1091), with
one added to numerator and denominator, so that it is never zero. Of many p-values some are small by chance: see `holm`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bioner_edge.benchmarks.scoring.accuracy import MODES, Tallies, macro, ratios
from bioner_edge.errors import InputError

__all__ = ["RESAMPLES", "Difference", "compare_paired", "holm", "intervals"]

RESAMPLES = 10_000
_TAILS = (0.025, 0.975)
_CHUNK = 1 << 20  # documents drawn at a time: 8 MiB per array
_F1 = 2  # its index in `ratios`
Floats = NDArray[np.float64]
Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Difference:
    """F1 of one system minus that of another, over the documents that both have read.

    `low` and `high` bound the 95 % interval. `differing` is the number of documents with different counts; `left_out`
    were read by only one of the two.
    """

    scores: tuple[float, float]
    low: float
    high: float
    p: float
    documents: int
    differing: int
    left_out: int

    @property
    def difference(self) -> float:
        return self.scores[0] - self.scores[1]


def intervals(tallies: Tallies, seed: int, resamples: int = RESAMPLES) -> dict[str, Any]:
    """The 95 % intervals of F1, (low, high), by mode: {"micro": …, "macro": …, "labels": {label: …}}."""
    modes, documents, labels, columns = tallies.counts.shape
    flat = np.moveaxis(tallies.counts, 1, 0).reshape(documents, modes * labels * columns).astype(np.float64)
    f1: list[Floats] = []  # each (draws, modes, labels + 2)
    for drawn in _sums(flat, seed, resamples):
        counts = drawn.reshape(len(drawn), modes, labels, columns)
        totals = (ratios(counts.sum(axis=2)), macro(counts))
        f1.append(np.concatenate([ratios(counts), *(t[:, :, None] for t in totals)], axis=2)[..., _F1])
    bounds = np.quantile(np.concatenate(f1), _TAILS, axis=0)
    rows = [[_interval(bounds[:, m, n]) for n in range(labels + 2)] for m in range(modes)]
    return {
        mode: {"micro": row[-2], "macro": row[-1], "labels": dict(zip(tallies.labels, row, strict=False))}
        for mode, row in zip(MODES, rows, strict=True)
    }


def _interval(bounds: Floats) -> Interval:
    return float(bounds[0]), float(bounds[1])


def compare_paired(
    one: Tallies, other: Tallies, mode: str = "strict", *, seed: int = 0, resamples: int = RESAMPLES
) -> Difference:
    """The difference in micro F1 of two systems in a mode.

    Where only a few documents differ, all in one direction, hardly any resample contradicts them; so p is never below
    what exchanging the two systems document by document could reach, two of 2 ** `differing` outcomes. Raises
    InputError where they cannot be compared: different labels, no common document, or different gold.
    """
    ours, theirs, left_out = _in_common(one, other, mode)
    drawn = np.concatenate([*_sums(np.concatenate([ours, theirs], axis=1), seed, resamples)])
    differences = ratios(drawn[:, :4])[:, _F1] - ratios(drawn[:, 4:])[:, _F1]
    scores = (float(ratios(ours.sum(axis=0))[_F1]), float(ratios(theirs.sum(axis=0))[_F1]))
    observed = scores[0] - scores[1]
    slack = 1e-12  # equal ratios of different counts may differ by rounding
    beyond = int((np.abs(differences - observed) >= abs(observed) - slack).sum())
    differing = int((ours != theirs).any(axis=1).sum())
    p = min(1.0, max((1 + beyond) / (1 + resamples), 2.0 ** (1 - differing)))
    low, high = _interval(np.quantile(differences, _TAILS))
    return Difference(scores, low, high, p, len(ours), differing, left_out)


def _in_common(one: Tallies, other: Tallies, mode: str) -> tuple[Floats, Floats, int]:
    """The counts of both, (documents, 4), for the documents that both have, and the number of documents that only one
    has."""
    if set(one.labels) != set(other.labels):
        labels = " and ".join(", ".join(sorted(tallies.labels)) for tallies in (one, other))
        raise InputError(f"other labels were scored: {labels}")
    places = {key: place for place, key in enumerate(other.documents)}
    rows = [(place, places[key]) for place, key in enumerate(one.documents) if key in places]
    if not rows:
        raise InputError("no document was read by both")
    mine, its = map(list, zip(*rows, strict=True))
    order = [other.labels.index(label) for label in one.labels]
    ours = one.counts[MODES.index(mode)][mine]
    theirs = other.counts[MODES.index(mode)][its][:, order]
    if changed := np.flatnonzero((ours[..., 3] != theirs[..., 3]).any(axis=1)).tolist():
        raise InputError(f"the gold is another in {len(changed)} documents, first {one.documents[mine[changed[0]]]}")
    left_out = len(one.documents) + len(other.documents) - 2 * len(rows)
    return ours.sum(axis=1).astype(np.float64), theirs.sum(axis=1).astype(np.float64), left_out


def _sums(counts: Floats, seed: int, resamples: int) -> Iterator[Floats]:
    """The summed counts of each resample. Shape: (documents, columns) to (draws, columns), some draws at a time.

    The documents of a resample depend only on the seed and on the number of documents.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    documents = len(counts)
    step = max(1, _CHUNK // max(1, documents))
    for first in range(0, resamples, step):
        draws = min(step, resamples - first)
        if not documents:
            yield np.zeros((draws, counts.shape[1]))
            continue
        places = generator.integers(documents, size=(draws, documents))
        places += np.arange(draws)[:, None] * documents
        often = np.bincount(places.ravel(), minlength=draws * documents).reshape(draws, documents)
        yield often.astype(np.float64) @ counts


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm-adjusted p-values of several comparisons, each to be compared with the level of a single test.

    Holm 1979, "A simple sequentially rejective multiple test procedure" (https://www.jstor.org/stable/4615733): the
    smallest is multiplied by their number, the next by one less, and none is smaller than one before it.
    """
    adjusted = [0.0] * len(p_values)
    so_far = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        so_far = max(so_far, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = so_far
    return adjusted
