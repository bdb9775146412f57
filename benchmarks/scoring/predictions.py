"""How good are predictions, whoever made them?

    bioner-edge bench score predictions.jsonl bc5cdr:dev

They are aligned with the gold (`alignment`) and tallied in four modes (`accuracy`); every F1 gets the interval in which
it could have come out on other documents (`bootstrap`).
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
    """Predictions beside their gold, tallied. `unused` is what the readers of the predictions refused, `unscored` how
    many predicted entities have a label that is not scored, by label."""

    tallies: Tallies
    alignment: Alignment
    unused: list[Notice] = field(default_factory=list)
    unscored: Counter[str] = field(default_factory=Counter)

    @property
    def astray(self) -> int:
        """Predicted entities that are not in the text where they say; not those of labels that are not scored."""
        return sum(label in ("", *self.tallies.labels) for pair in self.alignment.pairs for label in pair.astray)

    @property
    def exit_code(self) -> int:
        """0 every gold document has a prediction of its text, and all that is predicted is in it; 1 not so."""
        a = self.alignment
        return 1 if a.missing or a.changed or a.failed or self.astray else 0

    @property
    def notices(self) -> list[str]:
        """What one must know to read the scores rightly, a line each."""
        return [*self._notices()]

    def _notices(self) -> Iterator[str]:
        a = self.alignment
        for ids, told in (
            (a.missing, "have no prediction: all they have counts as missed"),
            (a.changed, "have a prediction of another text: it counts for nothing"),
            (a.failed, "could not be read, as their predictions say: all they have counts as missed"),
        ):
            if ids:
                yield f"{len(ids)} gold documents {told}: {', '.join(ids[:_NAMED])}{', …' if ids[_NAMED:] else ''}"
        if a.beside:
            yield f"{a.beside} predictions that no gold document asks for are left out"
        if self.astray:
            yield f"{self.astray} predicted entities are not in the text where they say: each counts as wrong"
        if self.unscored:
            told = ", ".join(f"{number} {label}" for label, number in self.unscored.most_common())
            yield f"predicted entities of labels that are not scored are left out: {told}"
        if broken := self.broken()["documents"]:
            kinds = Counter(kind for prediction in a.used for kind in prediction.problems)
            told = ", ".join(f"{number} {kind}" for kind, number in kinds.most_common())
            yield f"{broken} documents have answers that could not be read whole: {told}"

    def broken(self) -> dict[str, Any]:
        """What could not be read of the answers; None where the predictions do not tell."""
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
        """The figures as they stand in the results of a run."""
        a = self.alignment
        return {
            "labels": list(self.tallies.labels),
            "documents": len(self.tallies.documents),
            "scores": _with_intervals(scores(self.tallies), intervals(self.tallies, seed, resamples)),
            "broken": self.broken(),
            "unpredicted": {"missing": len(a.missing), "changed": len(a.changed), "failed": len(a.failed)},
            "beside": a.beside,
            "unscored": dict(self.unscored.most_common()),
        }


def _sum(numbers: Sequence[int | None]) -> int | None:
    """None where one is not known."""
    known = [number for number in numbers if number is not None]
    return sum(known) if len(known) == len(numbers) else None


def _with_intervals(figures: dict[str, Any], bounds: Mapping[str, Any]) -> dict[str, Any]:
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
    """Score what lies in files, folders and globs against gold documents.

    `labels` are those to score, by default those of the gold; `names` are the gold's labels by those of the
    predictions, where they have others. Raises InputError where there is nothing to score, or a file cannot be read,
    and UsageError for a label that is given a name which is not scored.
    """
    asked = list(labels or dict.fromkeys(e.label for d in gold for e in d.entities))
    if not gold or not asked:
        raise InputError(
            "the gold has no documents" if not gold else "the gold has no annotated entity; name the labels"
        )
    if wrong := next((name for name in (names or {}).values() if name not in asked), None):
        raise UsageError(f"{wrong!r} is none of the labels that are scored: {', '.join(asked)}")
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
    """The line of a cell in the results of a run. What predictions of another tool took is not known, and null."""
    told = {"tuned": tuned, **dict.fromkeys(_SPENT), **(spent or {})}
    return {"kind": "accuracy", **key.to_json(), **told, **scored.to_json(seed), "ceiling": ceiling}


def table(figures: Mapping[str, Any], notices: Sequence[str] = ()) -> Table:
    """What `Scored.to_json` tells, for people."""
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
