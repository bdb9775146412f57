"""Score predictions against gold in four modes, all independent of order.

    strict     label and all offsets equal those of a gold entity
    exact      all offsets are equal, whatever the label
    relaxed    the label is equal, and the offsets overlap by at least one character
    surface    label and mention occur anywhere in the gold of the document

Strict and surface are set operations. In exact and relaxed a prediction is matched with at most one gold entity and
vice versa: relaxed by a maximum matching; exact by first pairing equal labels at the same offsets, then, in
alphabetical order, as many of the others as both sides have. In all modes duplicates count once.

Micro-averaged: counts are summed over documents and labels, then P = TP / (TP + FP), R = TP / (TP + FN) and F1 = 2 TP /
(2 TP + FP + FN). Macro: the mean over the labels that occur in gold or prediction. With neither predictions nor gold
the scores are 1.0; any other 0 / 0 is 0.0.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bioner_edge.benchmarks.scoring.matching import Hits, overlapping, same_place
from bioner_edge.document import Entity
from bioner_edge.errors import InputError, name_file

__all__ = ["MODES", "Counts", "Pair", "Tallies", "macro", "micro", "ratios", "scores", "tally"]

MODES = ("strict", "exact", "relaxed", "surface")
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Counts:
    """One row of a tally: predicted and gold entities, and the hits among each."""

    hits_predicted: int = 0
    predicted: int = 0
    hits_gold: int = 0
    gold: int = 0

    @classmethod
    def of(cls, row: Ints) -> Counts:
        """The counts in a row. Shape: (4,)"""
        return cls(*row.tolist())

    @property
    def tp(self) -> int:
        return self.hits_predicted

    @property
    def fp(self) -> int:
        return self.predicted - self.hits_predicted

    @property
    def fn(self) -> int:
        return self.gold - self.hits_gold

    @property
    def precision(self) -> float:
        return self._ratio(0)

    @property
    def recall(self) -> float:
        return self._ratio(1)

    @property
    def f1(self) -> float:
        return self._ratio(2)

    def _ratio(self, place: int) -> float:
        row = np.array([self.hits_predicted, self.predicted, self.hits_gold, self.gold])
        return float(ratios(row)[place])

    def to_json(self) -> dict[str, Any]:
        """As in results: precision, recall, F1, and TP, FP, FN."""
        found = {"precision": self.precision, "recall": self.recall, "f1": self.f1}
        return {**found, "tp": self.tp, "fp": self.fp, "fn": self.fn}


@dataclass(frozen=True, slots=True)
class Pair:
    """The predictions for a document, and its gold.

    `key` identifies the document. `astray` are the labels of predictions that are not in the text at their offsets:
    each counts as predicted and is never right.
    """

    key: str
    text: str
    predicted: Sequence[Entity]
    gold: Sequence[Entity]
    astray: Sequence[str] = ()


def tally(
    predicted: Iterable[Entity], gold: Iterable[Entity], text: str, labels: Sequence[str], astray: Iterable[str] = ()
) -> Ints:
    """The counts of one document: hits among the predicted, predicted, hits among the gold, gold; see `Counts`.

    Entities with other labels than `labels` are ignored. Shape: (modes, labels, 4).
    """
    index = {label: place for place, label in enumerate(labels)}
    ours = {e.key: e for e in predicted if e.label in index}
    theirs = {e.key: e for e in gold if e.label in index}
    surfaces = [{(e.label, e.mention(text)) for e in side.values()} for side in (ours, theirs)]
    hits: dict[str, Hits] = {
        "strict": _both(ours.keys() & theirs.keys()),
        "exact": same_place(ours, theirs),
        "relaxed": overlapping(ours, theirs),
        "surface": _both(surfaces[0] & surfaces[1]),
    }
    lost = [label for label in astray if label in index]
    counts: Ints = np.zeros((len(MODES), len(labels), 4), np.int64)
    for table, mode in zip(counts, MODES, strict=True):
        found, truth = surfaces if mode == "surface" else (ours, theirs)
        among_predicted, among_gold = hits[mode]
        columns = (among_predicted, [*(label for label, _ in found), *lost], among_gold, (label for label, _ in truth))
        for column, names in enumerate(columns):
            for name in names:
                table[index[name], column] += 1
    return counts


def micro(pairs: Iterable[Pair], labels: Sequence[str], mode: str = "strict") -> Counts:
    """The summed counts of all documents and labels, in one mode."""
    place = MODES.index(mode)
    rows = (tally(p.predicted, p.gold, p.text, labels, p.astray)[place].sum(axis=0) for p in pairs)
    return Counts.of(sum(rows, np.zeros(4, np.int64)))


def _both(common: Iterable[tuple[str, object]]) -> Hits:
    found = [label for label, _ in common]
    return found, found


@dataclass(frozen=True, slots=True, eq=False)
class Tallies:
    """The counts of all documents, from which every figure can be recomputed.

    Shape of `counts`: (modes, documents, labels, 4), see `tally`.
    """

    documents: list[str]
    labels: tuple[str, ...]
    counts: Ints

    @classmethod
    def of(cls, pairs: Iterable[Pair], labels: Sequence[str]) -> Tallies:
        """The tallies of documents for `labels`. Raises ValueError for duplicate keys."""
        rows = {}
        for pair in pairs:
            if pair.key in rows:
                raise ValueError(f"two documents have the key {pair.key!r}")
            rows[pair.key] = tally(pair.predicted, pair.gold, pair.text, labels, pair.astray)
        empty: Ints = np.zeros((len(MODES), 0, len(labels), 4), np.int64)
        return cls(list(rows), tuple(labels), np.stack([*rows.values()], axis=1) if rows else empty)

    def save(self, path: Path) -> None:
        """Write them as JSON, atomically. Raises OSError, with the path."""
        record = {"modes": MODES, "labels": self.labels, "documents": self.documents, "counts": self.counts.tolist()}
        partial = path.with_name(path.name + ".partial")
        with name_file(path):
            partial.write_text(json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n", "utf-8")
            os.replace(partial, path)

    @classmethod
    def load(cls, path: Path) -> Tallies:
        """The tallies saved at `path`. Raises InputError for a missing or invalid file."""
        try:
            return _from_json(json.loads(path.read_text("utf-8")))
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}") from None
        except json.JSONDecodeError as error:
            reason = f"not JSON, line {error.lineno}"
        except (ValueError, TypeError, RecursionError) as error:
            reason = str(error)
        raise InputError(f"{path}: no tallies of `bioner-edge bench`: {reason}; score the predictions again")


def _from_json(record: Any) -> Tallies:
    """The tallies in a JSON value. Raises ValueError, with the reason, or TypeError, where it is invalid."""
    if not isinstance(record, dict) or record.get("modes") != list(MODES):
        raise ValueError(f"it must be an object with the modes {', '.join(MODES)}")
    documents, labels = record.get("documents"), record.get("labels")
    for names in (documents, labels):
        if not isinstance(names, list) or not all(isinstance(n, str) for n in names) or len(set(names)) < len(names):
            raise ValueError("documents and labels must be lists of names, each once")
    shape = len(MODES), len(documents or ()), len(labels or ()), 4
    raw = np.array(record.get("counts"), dtype=object)
    if raw.shape != shape and (raw.size or 0 not in shape):
        raise ValueError(f"counts of the shape {raw.shape}, not {shape}")
    if not all(isinstance(count, int) and 0 <= count < 1 << 31 for count in raw.flat):
        raise ValueError("a count is not an integer")
    counts = raw.astype(np.int64).reshape(shape)
    if (counts[..., 0] > counts[..., 1]).any() or (counts[..., 2] > counts[..., 3]).any():
        raise ValueError("more hits than entities")
    return Tallies(documents or [], tuple(labels or ()), counts)


def ratios(counts: NDArray[Any]) -> Floats:
    """Precision, recall and F1 of counts. Shape: (…, 4) to (…, 3).

    F1 is the harmonic mean of the two: 2 TP / (2 TP + FP + FN), except for a single label in mode exact, where the hits
    among the predicted and among the gold can differ.
    """
    hits_predicted, predicted, hits_gold, gold = np.moveaxis(counts.astype(np.float64), -1, 0)
    nothing = np.where(predicted + gold == 0, 1.0, 0.0)
    divisions = [
        (hits_predicted, predicted),
        (hits_gold, gold),
        (2 * hits_predicted * hits_gold, hits_predicted * gold + hits_gold * predicted),
    ]
    return np.stack([np.divide(a, b, out=np.array(nothing), where=b > 0) for a, b in divisions], axis=-1)


def macro(counts: NDArray[Any]) -> Floats:
    """The means of precision, recall and F1 over the labels that occur. Shape: (…, labels, 4) to (…, 3)."""
    occurs = (counts[..., 1] + counts[..., 3] > 0)[..., None]
    number = occurs.sum(axis=-2)
    total = np.where(occurs, ratios(counts), 0.0).sum(axis=-2)
    mean: Floats = np.divide(total, number, out=np.ones_like(total), where=number > 0)
    return mean


def scores(tallies: Tallies) -> dict[str, Any]:
    """All figures by mode: {"micro": S, "macro": S, "labels": {label: S}}, S with precision, recall, f1 and, except for
    macro, tp, fp, fn (hits among the predicted, the other predicted, the other gold)."""
    by_label = tallies.counts.sum(axis=1)
    return {
        mode: {
            "micro": Counts.of(counts.sum(axis=0)).to_json(),
            "macro": _ratios_json(macro(counts)),
            "labels": {label: Counts.of(row).to_json() for label, row in zip(tallies.labels, counts, strict=True)},
        }
        for mode, counts in zip(MODES, by_label, strict=True)
    }


def _ratios_json(found: Floats) -> dict[str, Any]:
    return dict(zip(("precision", "recall", "f1"), found.tolist(), strict=True))
