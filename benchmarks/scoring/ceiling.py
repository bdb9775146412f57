"""The ceiling of a format on a corpus: the score of an extractor that always writes the right answer.

    bioner-edge formats check CORPUS...

Each gold document is rendered, and the answer parsed with the text alone: strict micro P, R and F1 of the result
against the gold, both as sets of (label, fragments), by `accuracy.micro`. What a format cannot express costs recall;
what it reads beyond the gold costs precision: a term stands for all its occurrences, annotated or not.

A format must read its own answers without a problem and lose exactly what it says it cannot express; otherwise it has a
bug.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from bioner_edge import format_tables, formats
from bioner_edge.benchmarks.scoring.accuracy import Counts, Pair, micro
from bioner_edge.document import Document, Entity
from bioner_edge.errors import InputError, UsageError
from bioner_edge.io.inputs import Inputs
from bioner_edge.io.notice import Notice
from bioner_edge.report import Report

__all__ = ["Ceiling", "Checked", "check", "gold", "measure", "table"]


@dataclass
class Ceiling:
    """The ceiling of one format on a corpus. `characters` and `tokens` are over all answers, None where not counted."""

    format: str
    documents: int = 0
    counts: Counts = field(default_factory=Counts)
    inexpressible: Counter[str] = field(default_factory=Counter)
    """Gold entities by the reason why the format cannot express them."""
    characters: int = 0
    tokens: int | None = None
    defects: int = 0

    @property
    def beside(self) -> int:
        """Entities read that are not in the gold."""
        return self.counts.fp

    def to_json(self) -> dict[str, Any]:
        c = self.counts
        return {
            "format": self.format,
            "documents": self.documents,
            "entities": c.tp + c.fn,
            "precision": round(c.precision, 6),
            "recall": round(c.recall, 6),
            "f1": round(c.f1, 6),
            "inexpressible": dict(self.inexpressible.most_common()),
            "beside": self.beside,
            "characters_per_document": round(self.characters / self.documents, 2),
            "tokens_per_document": None if self.tokens is None else round(self.tokens / self.documents, 2),
            "defects": self.defects,
        }


@dataclass(frozen=True)
class Checked:
    """The rows, the measured labels, and the readers' notices, in total and of lost text."""

    rows: list[Ceiling]
    labels: list[str]
    notices: int
    lost: int

    @property
    def exit_code(self) -> int:
        """0 if all is well; 1 if a format has a bug, or text of the corpus is missing from the figures."""
        return 1 if self.lost or any(row.defects for row in self.rows) else 0


def check(
    inputs: Inputs,
    names: Sequence[str] | None = None,
    labels: Sequence[str] | None = None,
    *,
    complain: Callable[[str], None],
    report: Report | None = None,
) -> Checked:
    """The ceilings of formats, by default all, on a corpus. Bugs are passed to `complain`.

    Raises UsageError for an unknown format or unsupported label, InputError for a corpus without gold.
    """
    for name in names or ():
        formats.get(name)  # fails before a large corpus is read
    notices: list[Notice] = []
    report = report or Report()

    def noted(notice: Notice) -> None:
        notices.append(notice)
        inputs.report(notice)

    documents, asked = gold(list(inputs.read(noted)), labels)
    chosen = list(names or formats.FORMATS)
    _refuse_labels(chosen, asked)
    found = {e.label for d in documents for e in d.entities}
    for label in [label for label in asked if label not in found]:
        report.warning(f"no entity in the corpus is a {label}")
    model = format_tables.default_model()
    rows = []
    with (
        format_tables.open_vocabulary(model[0] if model else None) as vocabulary,
        report.progress("checking", len(chosen) * len(documents), "answers") as advance,
    ):
        for name in chosen:
            rows.append(
                measure(
                    name,
                    documents,
                    asked,
                    count=(lambda text: format_tables.tokens(vocabulary, text)) if vocabulary else None,
                    defective=complain,
                    advance=partial(advance, 1, name),
                )
            )
    return Checked(rows, asked, len(notices), sum(n.text_lost for n in notices))


def gold(documents: Sequence[Document], labels: Sequence[str] | None) -> tuple[list[Document], list[str]]:
    """The documents with duplicates of entities removed, and only `labels`; by default all, in order of first
    appearance.

    Raises InputError where no entity is left to measure.
    """
    found = list(dict.fromkeys(e.label for d in documents for e in d.entities))
    if not documents:
        raise InputError("no documents in the corpus; nothing was measured")
    if not found:
        raise InputError("no annotated entity in the corpus; a ceiling is measured on gold annotations")
    asked = list(labels or found)
    if not set(asked) & set(found):
        raise InputError(f"no entity in the corpus is a {' or '.join(asked)}; its labels: {', '.join(found)}")
    once = [{e.key: e for e in d.entities if e.label in asked} for d in documents]
    return [d.with_entities(e.values()) for d, e in zip(documents, once, strict=True)], asked


def _refuse_labels(names: Sequence[str], labels: Sequence[str]) -> None:
    """Raises UsageError for an unknown format, or a label that one of them cannot write."""
    for name in names:
        try:
            formats.get(name).questions(labels)
        except UsageError as error:
            message = "" if name not in formats.FORMATS else f"{name}: "
            raise UsageError(f"{message}{error}; choose with --formats and --labels") from None


def measure(
    name: str,
    documents: Sequence[Document],
    labels: Sequence[str],
    *,
    count: Callable[[str], int] | None = None,
    defective: Callable[[str], None],
    advance: Callable[[], None] = lambda: None,
) -> Ceiling:
    """The ceiling of one format. `count` counts the tokens of an answer, `defective` receives each bug in one line.

    `documents` are as returned by `gold`; `advance` is called after each.
    """
    form = formats.get(name)
    calls = form.questions(labels)
    row = Ceiling(name, tokens=None if count is None else 0)

    def complain(document: Document, message: str) -> None:
        row.defects += 1
        defective(f"DEFECT in {name}: document {document.id}: {message}")

    def pairs() -> Iterator[Pair]:
        for document in documents:
            read: list[Entity] = []
            lost: list[tuple[Entity, str]] = []
            bare = document.without_entities()
            for asked in calls:
                answer = form.render(document, asked)
                parsed = form.parse(answer, bare, asked)
                for problem in parsed.problems:
                    complain(document, f"its own answer has a problem: {problem}")
                read += parsed.entities
                lost += form.inexpressible(document, asked)
                row.characters += len(answer)
                if row.tokens is not None and count is not None:
                    row.tokens += count(answer)
            row.documents += 1
            row.inexpressible.update(reason for _, reason in lost)
            unread = {e.key for e in document.entities} - {e.key for e in read}
            if differing := unread ^ {e.key for e, _ in lost}:
                label, fragments = min(differing, key=lambda key: (key[1], key[0]))
                place = ", ".join(f"[{f.start}, {f.end})" for f in fragments)
                mismatch = "is lost without a reason" if (label, fragments) in unread else "is not lost, as it says"
                complain(document, f"{label} at {place} {mismatch}")
            yield Pair(document.id, document.text, read, document.entities)
            advance()

    row.counts = micro(pairs(), labels)
    return row


def table(rows: Sequence[Ceiling], labels: Sequence[str]) -> Table:
    """The rows as a table. Raises IndexError for no rows."""
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left", caption_justify="left")
    first = rows[0].to_json()
    message = f"{first['documents']} documents, {first['entities']} entities; labels: {', '.join(labels)}"
    drawn.title = Text("".join(c if c.isprintable() else "\ufffd" for c in message), "not italic")
    drawn.add_column("format", no_wrap=True)
    for name in ("docs", "P", "R", "F1"):
        drawn.add_column(name, justify="right", no_wrap=True)
    drawn.add_column("cannot express", overflow="fold")
    for name in ("read\nbeside", "chars\nper doc", "tokens\nper doc"):
        drawn.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        c, record = row.counts, row.to_json()
        per_document = record["tokens_per_document"]
        drawn.add_row(
            Text(row.format),
            str(row.documents),
            *(f"{figure:.4f}" for figure in (c.precision, c.recall, c.f1)),
            Text("\n".join(f"{n} {reason}" for reason, n in row.inexpressible.most_common()) or "–"),
            str(row.beside),
            f"{record['characters_per_document']:.0f}",
            "–" if per_document is None else f"{per_document:.0f}",
        )
    return drawn
