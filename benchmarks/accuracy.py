"""Strict scores: a prediction counts where its label and all its offsets are those of a gold entity, else not.

    python -m bioner_edge.benchmarks.accuracy PREDICTIONS.jsonl GOLD [--map GOLD_LABEL=LABEL,…] [--labels LABEL,…]

Set arithmetic over (label, fragments) of each document: order plays no part, what is there twice counts once.
Micro-averaged: counts are added over all documents, then P = TP / (TP + FP), R = TP / (TP + FN) and
F1 = 2 TP / (2 TP + FP + FN). Nothing predicted where nothing is gold scores 1.0; any other 0 / 0 is 0.0.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bioner_edge.corpora import file_format, read_file
from bioner_edge.errors import BionerError, InputError
from bioner_edge.span import Document, Entity

__all__ = ["Counts", "Scores", "main", "score"]


@dataclass(frozen=True, slots=True)
class Counts:
    """True positives, false positives, false negatives."""

    tp: int = 0
    fp: int = 0
    fn: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn)

    @property
    def precision(self) -> float:
        return self.tp / (self.tp + self.fp) if self.tp + self.fp else float(not self.fn)

    @property
    def recall(self) -> float:
        return self.tp / (self.tp + self.fn) if self.tp + self.fn else float(not self.fp)

    @property
    def f1(self) -> float:
        return 2 * self.tp / (2 * self.tp + self.fp + self.fn) if self.tp + self.fp + self.fn else 1.0


@dataclass(frozen=True, slots=True)
class Scores:
    """The counts of each label that occurs, in alphabetical order."""

    labels: Mapping[str, Counts] = field(default_factory=dict)

    @property
    def micro(self) -> Counts:
        return sum(self.labels.values(), Counts())


def score(pairs: Iterable[tuple[Iterable[Entity], Iterable[Entity]]]) -> Scores:
    """The scores of documents, each given as (predicted entities, gold entities)."""
    tp, fp, fn = Counter[str](), Counter[str](), Counter[str]()
    for predicted, gold in pairs:
        ours, theirs = {e.key for e in predicted}, {e.key for e in gold}
        tp.update(label for label, _ in ours & theirs)
        fp.update(label for label, _ in ours - theirs)
        fn.update(label for label, _ in theirs - ours)
    return Scores({label: Counts(tp[label], fp[label], fn[label]) for label in sorted({*tp, *fp, *fn})})


def main(arguments: Sequence[str] | None = None) -> int:
    """The script: 0 where every gold document has its prediction and every prediction is in its text, else 1; 2 for
    files that cannot be compared."""
    parser = argparse.ArgumentParser(prog="python -m bioner_edge.benchmarks.accuracy", description="Strict F1.")
    parser.add_argument("predictions", type=Path, help="what `bioner-edge extract` wrote, JSON Lines")
    parser.add_argument("gold", type=Path, help="a corpus: PubTator or JSON Lines")
    parser.add_argument("--map", default="", help="GOLD_LABEL=LABEL,…: gold labels that have another name here")
    parser.add_argument("--labels", default="", help="score these labels alone [default: all that occur]")
    asked = parser.parse_args(arguments)
    try:
        return _report(asked.predictions, asked.gold, _mapping(asked.map), set(filter(None, asked.labels.split(","))))
    except BionerError as error:
        print(f"accuracy: {error}", file=sys.stderr)
        return 2


def _mapping(text: str) -> dict[str, str]:
    pairs = [pair.partition("=") for pair in text.split(",") if pair]
    if bad := next((name for name, equals, to in pairs if not (name and equals and to)), None):
        raise InputError(f"--map {text!r}: {bad!r} is not GOLD_LABEL=LABEL")
    return {name: to for name, _, to in pairs}


def _report(predictions: Path, gold: Path, names: Mapping[str, str], labels: set[str]) -> int:
    found, truth = _documents(predictions, "jsonl"), _documents(gold, file_format(gold.name))
    missing = [i for i in truth if i not in found]
    changed = [i for i in truth if i in found and found[i].text != truth[i].text]
    entities, astray, with_problems = _grounding(predictions)

    def chosen(document: Document, names: Mapping[str, str]) -> list[Entity]:
        renamed = [replace(e, label=names.get(e.label, e.label)) for e in document.entities]
        return [e for e in renamed if not labels or e.label in labels]

    nothing = Document("", "")
    scores = score((chosen(found.get(i, nothing), {}), chosen(truth[i], names)) for i in truth)
    print("| label | P | R | F1 | TP | FP | FN |\n|---|---|---|---|---|---|---|")
    for name, c in [*scores.labels.items(), ("micro", scores.micro)]:
        print(f"| {name} | {c.precision:.4f} | {c.recall:.4f} | {c.f1:.4f} | {c.tp} | {c.fp} | {c.fn} |")
    print(f"\n{len(truth)} gold documents, {len(missing)} of them without a prediction{_some(missing)}")
    print(f"{len(changed)} predictions of another text{_some(changed)}")
    print(f"{len(found.keys() - truth.keys())} predictions that no gold document asks for, left out")
    print(f"{entities} predicted entities, {astray} of them not what their text has at their offsets")
    print(f"{with_problems} documents with problems")
    return 1 if missing or changed or astray else 0


def _some(ids: Sequence[str]) -> str:
    return f": {', '.join(ids[:5])}{', …' if len(ids) > 5 else ''}" if ids else ""


def _documents(path: Path, kind: str | None) -> dict[str, Document]:
    """The documents of a file by id; what cannot be read goes to standard error."""
    found: dict[str, Document] = {}
    for document in read_file(path, lambda notice: print(f"accuracy: {notice}", file=sys.stderr), file_type=kind):
        if document.id in found:
            raise InputError(f"{path}: two documents with the id {document.id}; they cannot be told apart")
        found[document.id] = document
    return found


def _grounding(path: Path) -> tuple[int, int, int]:
    """Of the predictions as written: entities, those whose text is not in its place, documents with problems."""
    total = astray = with_problems = 0
    with path.open(encoding="utf-8") as stream:
        for record in map(json.loads, filter(str.strip, stream)):
            entities: list[dict[str, Any]] = record["entities"]
            total += len(entities)
            for entity in entities:
                parts = entity.get("fragments") or [[entity["start"], entity["end"]]]
                astray += " ".join(record["text"][a:b] for a, b in parts) != entity["text"]
            with_problems += bool(record.get("problems"))
    return total, astray, with_problems


if __name__ == "__main__":
    raise SystemExit(main())
