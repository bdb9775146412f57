"""The sheets on accuracy."""

from __future__ import annotations

from collections.abc import Sequence

from bioner_edge.benchmarks.report.entries import Entry
from bioner_edge.benchmarks.report.figures import MISSING, Column, Sheet, Value, number, score, signed_value, text
from bioner_edge.benchmarks.report.identity import Row, each, f1, identity, who
from bioner_edge.benchmarks.results import Line
from bioner_edge.benchmarks.scoring.accuracy import MODES

__all__ = ["accuracy", "broken", "labels", "modes", "reference"]


def accuracy(entries: Sequence[Entry]) -> Sheet:
    def row(entry: Entry) -> Row:
        accuracy, s = entry.cell.accuracy, entry.strict
        if not accuracy or not s:
            return {"f1": f1(entry)}
        ceiling = accuracy.get("ceiling")
        return {
            "f1": f1(entry),
            "precision": score(s["precision"]),
            "recall": score(s["recall"]),
            "ceiling": score(ceiling["f1"]) if ceiling else MISSING,
            "broken": _of(accuracy["broken"]["documents"], accuracy["documents"]),
        }

    columns = (
        Column("f1", "strict F1"),
        Column("precision", "precision"),
        Column("recall", "recall"),
        Column("ceiling", "ceiling"),
        Column("broken", "broken documents"),
    )
    notes = (
        "Over all labels together (micro), with its 95 % interval, bootstrapped over documents.",
        "Ceiling: the strict F1 of an extractor that always writes the right answer in that format.",
        "Broken documents: those with an answer that could not be read whole.",
    )
    return Sheet("accuracy", "Accuracy", (*identity(entries), *columns), each(entries, row), notes, terminal=True)


def modes(entries: Sequence[Entry]) -> Sheet:
    def row(entry: Entry) -> Row:
        assert entry.cell.accuracy
        scores = entry.cell.accuracy["scores"]
        each = {mode: scores[mode]["micro"] for mode in MODES}
        figures = {mode: score(s["f1"], s.get("low"), s.get("high")) for mode, s in each.items()}
        macro = scores["strict"]["macro"]
        return {**figures, "macro": score(macro["f1"], macro.get("low"), macro.get("high"))}

    columns = (*(Column(mode, mode) for mode in MODES), Column("macro", "strict, macro"))
    notes = (
        "F1 by mode. Exact: all offsets, whatever the label. Relaxed: the label, and a common character. "
        " Surface: label and text, anywhere in the document. Macro: the mean over the labels.",
    )
    rows = each([entry for entry in entries if entry.cell.accuracy], row)
    return Sheet("modes", "Accuracy, counted in other ways", (*identity(entries), *columns), rows, notes)


def reference(entries: Sequence[Entry]) -> Sheet:
    named = {(entry.run, entry.cell.key): entry for entry in entries}

    def row(entry: Entry) -> Row:
        versus = entry.against
        assert versus is not None
        held = named[entry.run, versus["reference"]]
        differs = Value("yes", 1.0, tone="failed") if versus["significant"] else Value("no", 0.0)
        return {
            "reference": text(held.level if held.model == entry.model and held.level else held.cell.key.model),
            "difference": signed_value(versus["difference"], versus["low"], versus["high"]),
            "p": score(versus["p"]),
            "p_holm": score(versus["p_holm"]),
            "significant": differs,
        }

    columns = (
        Column("reference", "reference", numeric=False),
        Column("difference", "difference in F1"),
        Column("p", "p"),
        Column("p_holm", "p (Holm)"),
        Column("significant", "differs"),
    )
    notes = (
        "Strict F1 minus that of the reference level, on the same documents (paired bootstrap, 95 % interval). "
        "Differs: p, adjusted for all comparisons of the run, is below 0.05.",
    )
    rows = each([entry for entry in entries if entry.against], row)
    title = "Against the reference level"
    return Sheet("reference", title, (*identity(entries), *columns), rows, notes, terminal=True)


def broken(entries: Sequence[Entry]) -> Sheet:
    scored = [(entry, entry.cell.accuracy) for entry in entries if entry.cell.accuracy]
    kinds = list(dict.fromkeys(kind for _, accuracy in scored for kind in accuracy["broken"]["kinds"]))
    counted = ("problems", *kinds, "salvaged", "astray")

    def row(accuracy: Line) -> Row:
        found = accuracy["broken"]
        unread = accuracy.get("unpredicted") or {}
        return {
            "unread": number(sum(unread.values())) if unread else MISSING,
            "documents": _of(found["documents"], accuracy["documents"]),
            "answers": _of(found["answers"], accuracy.get("answers")),
            **{name: number(found["kinds"].get(name, 0) if name in kinds else found[name]) for name in counted},
        }

    columns = (
        Column("unread", "not read"),
        *(Column(name, text(name).text) for name in ("documents", "answers", *counted)),
    )
    notes = (
        "Not read: documents without a prediction of their text, whose entities all count as missed. Documents and "
        "answers with something that could not be read, and these problems by kind. Salvaged: entities read from such "
        "answers all the same. Astray: entities that are not at their offsets.",
    )
    rows = [{**who(entry), **row(accuracy)} for entry, accuracy in scored]
    return Sheet("broken", "Broken answers", (*identity(entries), *columns), rows, notes)


def labels(entries: Sequence[Entry]) -> Sheet:
    rows = []
    for entry in entries:
        if entry.cell.accuracy:
            for label, s in entry.cell.accuracy["scores"]["strict"]["labels"].items():
                figures = {name: score(s[name]) for name in ("precision", "recall")}
                counts = {name: number(s.get(name)) for name in ("tp", "fp", "fn")}
                f1 = score(s["f1"], s.get("low"), s.get("high"))
                rows.append({**who(entry), "label": text(label), "f1": f1, **figures, **counts})
    columns = (
        Column("label", "label", numeric=False),
        Column("f1", "strict F1"),
        Column("precision", "precision"),
        Column("recall", "recall"),
        Column("tp", "right"),
        Column("fp", "wrong"),
        Column("fn", "missed"),
    )
    return Sheet("labels", "By label", (*identity(entries), *columns), rows)


def _of(part: int | None, whole: int | None) -> Value:
    """A part of a whole, where both are known."""
    if part is None or whole is None:
        return number(part)
    return Value(f"{part:,} of {whole:,}", part / whole if whole else 0.0)
