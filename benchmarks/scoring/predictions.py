"""Score predictions of any tool.

    bioner-edge bench score predictions.jsonl bc5cdr:dev

They are aligned with the gold (`alignment`) and counted in four modes (`accuracy`); every F1 has a bootstrap confidence
interval (`bootstrap`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from bioner_edge.benchmarks.results import Key
from bioner_edge.benchmarks.scoring.accuracy import MODES, Tallies, scores
from bioner_edge.benchmarks.scoring.alignment import Alignment, align, read_predictions
from bioner_edge.benchmarks.scoring.bootstrap import RESAMPLES, intervals
from bioner_edge.document import Document
from bioner_edge.errors import InputError, UsageError, printable
from bioner_edge.io.notice import Notice

__all__ = ["Scored", "accuracy_line", "score_predictions", "table"]

_SPENT = ("seconds", "load_s", "answers", "calls", "fed", "tokens")
_KINDS = ("syntax", "ungrounded", "cut")
_NAMED = 5  # documents that a notice lists


@dataclass(slots=True)
class Scored:
    """Predictions aligned with their gold, and their counts. `unused` are the notices of their readers, `unscored` the
    numbers of predicted entities by label that is not scored."""

    tallies: Tallies
    alignment: Alignment
    unused: list[Notice] = field(default_factory=list)
    unscored: Counter[str] = field(default_factory=Counter)

    @property
    def astray(self) -> int:
        """Predicted entities that are not in the text at their offsets, in scored labels."""
        return sum(label in ("", *self.tallies.labels) for pair in self.alignment.pairs for label in pair.astray)

    @property
    def exit_code(self) -> int:
        """0 if every gold document has a prediction of its text and nothing is astray, else 1."""
        a = self.alignment
        return 1 if a.missing or a.changed or a.failed or self.astray else 0

    @property
    def notices(self) -> list[str]:
        """Notices needed to interpret the scores, a line each."""
        return [*self._notices()]

    def _notices(self) -> Iterator[str]:
        a = self.alignment
        for ids, detail in (
            (a.missing, "have no prediction: all they have counts as missed"),
            (a.changed, "have a prediction of another text: it counts for nothing"),
            (a.failed, "could not be read, as their predictions say: all they have counts as missed"),
        ):
            if ids:
                yield f"{len(ids)} gold documents {detail}: {', '.join(ids[:_NAMED])}{', …' if ids[_NAMED:] else ''}"
        if a.beside:
            yield f"{a.beside} predictions that no gold document asks for are left out"
        if self.astray:
            yield f"{self.astray} predicted entities are not in the text where they say: each counts as wrong"
        if self.unscored:
            detail = ", ".join(f"{number} {label}" for label, number in self.unscored.most_common())
            yield f"predicted entities of labels that are not scored are left out: {detail}"
        if broken := self.broken()["documents"]:
            kinds = Counter(kind for prediction in a.used for kind in prediction.problems)
            detail = ", ".join(f"{number} {kind}" for kind, number in kinds.most_common())
            yield f"{broken} documents have answers that could not be read whole: {detail}"

    def broken(self) -> dict[str, Any]:
        """Problems in the answers; None where the predictions do not report them."""
        used = self.alignment.used
        kinds = Counter(kind for prediction in used for kind in prediction.problems)
        return {
            "documents": sum(bool(prediction.problems) for prediction in used),
            "answers": _sum([prediction.broken_answers for prediction in used]),
            "problems": kinds.total(),
            "kinds": {**dict.fromkeys(_KINDS, 0), **kinds},
            "salvaged": _sum([prediction.salvaged for prediction in used]),
            "astray": self.astray,
        }

    def to_json(self, seed: int = 0, resamples: int = RESAMPLES) -> dict[str, Any]:
        """The figures as in the results of a run."""
        a = self.alignment
        return {
            "labels": list(self.tallies.labels),
            "documents": len(self.tallies.documents),
            "scores": _add_intervals(scores(self.tallies), intervals(self.tallies, seed, resamples)),
            "broken": self.broken(),
            "unpredicted": {"missing": len(a.missing), "changed": len(a.changed), "failed": len(a.failed)},
            "beside": a.beside,
            "unscored": dict(self.unscored.most_common()),
        }


def _sum(numbers: Sequence[int | None]) -> int | None:
    """None where one is unknown."""
    known = [number for number in numbers if number is not None]
    return sum(known) if len(known) == len(numbers) else None


def _add_intervals(figures: dict[str, Any], bounds: Mapping[str, Any]) -> dict[str, Any]:
    for mode, found in figures.items():
        labels = [(found["labels"][label], bounds[mode]["labels"][label]) for label in found["labels"]]
        for figure, (low, high) in [*labels, *((found[name], bounds[mode][name]) for name in ("micro", "macro"))]:
            figure.update(low=low, high=high)
    return figures


def score_predictions(
    predictions: Sequence[str],
    gold: Sequence[Document],
    labels: Sequence[str] | None = None,
    names: Mapping[str, str] | None = None,
) -> Scored:
    """Score files, folders and globs against gold documents.

    `labels` are those to score, by default the gold's; `names` maps labels of the predictions to those of the gold,
    where they differ. Raises InputError where there is nothing to score or a file cannot be read, UsageError for a
    label renamed to one that is not scored.
    """
    asked = list(labels or dict.fromkeys(e.label for d in gold for e in d.entities))
    if not gold or not asked:
        raise InputError(
            "the gold has no documents" if not gold else "the gold has no annotated entity; name the labels"
        )
    if wrong := next((name for name in (names or {}).values() if name not in asked), None):
        raise UsageError(f"{wrong!r} is not a scored label; scored are: {', '.join(asked)}")
    unused: list[Notice] = []
    alignment = align(read_predictions(predictions, unused.append), gold, names)
    found = (label for p in alignment.pairs for label in (*(e.label for e in p.predicted), *p.astray))
    others = Counter(label for label in found if label and label not in asked)
    return Scored(Tallies.of(alignment.pairs, asked), alignment, unused, others)


def accuracy_line(
    key: Key,
    scored: Scored,
    *,
    seed: int = 0,
    tuned: bool = True,
    spent: Mapping[str, Any] | None = None,
    ceiling: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The `accuracy` line of a cell. The cost of another tool's predictions is unknown, and null."""
    detail = {"tuned": tuned, **dict.fromkeys(_SPENT), **(spent or {})}
    return {"kind": "accuracy", **key.to_json(), **detail, **scored.to_json(seed), "ceiling": ceiling}


def table(figures: Mapping[str, Any], notices: Sequence[str] = ()) -> Table:
    """The result of `Scored.to_json` as a table."""
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left", caption_justify="left")
    strict = figures["scores"]["strict"]
    entities = strict["micro"]["tp"] + strict["micro"]["fn"]
    drawn.title = Text(f"{figures['documents']} documents, {entities} gold entities", "not italic")
    drawn.add_column("mode", no_wrap=True)
    drawn.add_column("label", overflow="fold")
    for name in ("P", "R", "F1", "95 % interval", "TP", "FP", "FN"):
        drawn.add_column(name, justify="right", no_wrap=True)
    for mode in MODES:
        found = figures["scores"][mode]
        labels = found["labels"] if len(found["labels"]) > 1 else {}
        rows = [*labels.items(), ("all, micro", found["micro"]), *([("all, macro", found["macro"])] if labels else [])]
        for number, (label, row) in enumerate(rows):
            last = number == len(rows) - 1
            drawn.add_row(mode if not number else "", *_cells(label, row, mode == "strict"), end_section=last)
    if notices:
        drawn.caption = Text("\n".join(map(printable, notices)), "not italic")
    return drawn


def _cells(label: str, row: Mapping[str, Any], strict: bool) -> list[Text]:
    ratios = [f"{row[name]:.4f}" for name in ("precision", "recall", "f1")]
    counts = [str(row.get(name, "")) for name in ("tp", "fp", "fn")]
    style = "bold" if strict and label == "all, micro" else ""
    return [Text(printable(cell), style) for cell in [label, *ratios, f"{row['low']:.4f}–{row['high']:.4f}", *counts]]
