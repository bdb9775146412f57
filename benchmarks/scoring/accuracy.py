"""What was right: predictions against gold, in four modes, none of which depends on any order.

    strict     label and all offsets are those of a gold entity
    exact      all offsets are, whatever the label
    relaxed    the label is, and at least one character is in common
    surface    label and mention occur among the gold of the document, wherever

Strict and surface are arithmetic of sets. In exact and relaxed a prediction is paired with one gold entity at most and
a gold entity with one prediction: relaxed by a maximum matching; exact by first pairing equal labels at a place, then,
in alphabetical order, as many of the others as both sides have. In all modes what is there twice counts once.

Micro-averaged: counts are added over documents and labels, then P = TP / (TP + FP), R = TP / (TP + FN) and
F1 = 2 TP / (2 TP + FP + FN). Macro: the mean over the labels that occur in gold or prediction. Nothing predicted where
nothing is gold scores 1.0; any other 0 / 0 is 0.0.
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
    """One row of a tally: how many were predicted, how many are gold, and how many of each were hits."""

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
        """As they stand in results: precision, recall, F1, and what is right, too much and missing."""
        found = {"precision": self.precision, "recall": self.recall, "f1": self.f1}
        return {**found, "tp": self.tp, "fp": self.fp, "fn": self.fn}


@dataclass(frozen=True, slots=True)
class Pair:
    """What somebody found in a document, beside its gold.

    `key` tells the document from all others. `astray` are the labels of predictions that are not in the text where
    they say: each counts as predicted and is never right.
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

    Entities with another label than `labels` are left out. Shape: (modes, labels, 4).
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
    """The counts of all documents and labels together, in one mode."""
    place = MODES.index(mode)
    rows = (tally(p.predicted, p.gold, p.text, labels, p.astray)[place].sum(axis=0) for p in pairs)
    return Counts.of(sum(rows, np.zeros(4, np.int64)))


def _both(common: Iterable[tuple[str, object]]) -> Hits:
    found = [label for label, _ in common]
    return found, found


@dataclass(frozen=True, slots=True, eq=False)
class Tallies:
    """The counts of all documents, from which every figure can be worked out again.

    Shape of `counts`: (modes, documents, labels, 4), see `tally`.
    """

    documents: list[str]
    labels: tuple[str, ...]
    counts: Ints

    @classmethod
    def of(cls, pairs: Iterable[Pair], labels: Sequence[str]) -> Tallies:
        """The tallies of documents, of `labels` alone. Raises ValueError for two with one key."""
        rows = {}
        for pair in pairs:
            if pair.key in rows:
                raise ValueError(f"two documents have the key {pair.key!r}")
            rows[pair.key] = tally(pair.predicted, pair.gold, pair.text, labels, pair.astray)
        empty: Ints = np.zeros((len(MODES), 0, len(labels), 4), np.int64)
        return cls(list(rows), tuple(labels), np.stack([*rows.values()], axis=1) if rows else empty)

    def save(self, path: Path) -> None:
        """Write them as JSON; `path` never holds half of them. Raises OSError, with the path."""
        record = {"modes": MODES, "labels": self.labels, "documents": self.documents, "counts": self.counts.tolist()}
        partial = path.with_name(path.name + ".partial")
        with name_file(path):
            partial.write_text(json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n", "utf-8")
            os.replace(partial, path)

    @classmethod
    def load(cls, path: Path) -> Tallies:
        """Those that were saved at `path`. Raises InputError for a file that is not there or no such file."""
        try:
            return _sound(json.loads(path.read_text("utf-8")))
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}") from None
        except json.JSONDecodeError as error:
            reason = f"not JSON, line {error.lineno}"
        except (ValueError, TypeError, RecursionError) as error:
            reason = str(error)
        raise InputError(f"{path}: no tallies of `bioner-edge bench`: {reason}; score the predictions again")


def _sound(record: Any) -> Tallies:
    """The tallies in a value of JSON. Raises ValueError, with what is wrong, or TypeError, where there are none."""
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
        raise ValueError("a count is no whole number")
    counts = raw.astype(np.int64).reshape(shape)
    if (counts[..., 0] > counts[..., 1]).any() or (counts[..., 2] > counts[..., 3]).any():
        raise ValueError("more hits than entities")
    return Tallies(documents or [], tuple(labels or ()), counts)


def ratios(counts: NDArray[Any]) -> Floats:
    """Precision, recall and F1 of counts. Shape: (…, 4) to (…, 3).

    F1 is the harmonic mean of the two: 2 TP / (2 TP + FP + FN), but for one label in mode exact, where the hits among
    the predicted and among the gold can differ.
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
    """The means, over the labels that occur, of precision, recall and F1. Shape: (…, labels, 4) to (…, 3)."""
    occurs = (counts[..., 1] + counts[..., 3] > 0)[..., None]
    number = occurs.sum(axis=-2)
    total = np.where(occurs, ratios(counts), 0.0).sum(axis=-2)
    mean: Floats = np.divide(total, number, out=np.ones_like(total), where=number > 0)
    return mean


def scores(tallies: Tallies) -> dict[str, Any]:
    """All figures by mode: {"micro": S, "macro": S, "labels": {label: S}}, S with precision, recall, f1, and, but for
    macro, tp, fp, fn (which are hits among the predicted, the rest of them, and the rest of the gold)."""
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
