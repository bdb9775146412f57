"""Silver: sentences that the teacher labels, and the labels that a gold source lacks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from bioner_edge.document import Document
from bioner_edge.io import jsonl
from bioner_edge.report import Report
from bioner_edge.tuning.sources import Recipe, Sentence, gold, silver_text
from bioner_edge.tuning.teacher import Teacher

__all__ = ["complete", "label_text"]

_LOT = 4096  # sentences labelled together, so that batches of near length can be formed


def label_text(teacher: Teacher, settings: Recipe, out: Path, report: Report | None = None) -> int:
    """Write the teacher's labels of plain text as JSON Lines until the recipe's number is reached; returns the number.

    Left out: sentences of which the teacher is unsure, too short or long ones, and most of those without an entity.
    """
    wanted, limit = settings["silver"]["sentences"], settings["silver"]["min_confidence"]
    empty_share, empty, kept, told = settings["silver"]["empty_share"], 0, 0, 0
    report = report or Report()
    with out.open("w", encoding="utf-8") as stream, report.progress("silver", wanted, "sentences") as advance:
        for lot in _lots(silver_text(settings)):
            for document, sure in teacher.label(lot):
                if sure < limit or (not document.entities and empty >= empty_share * (kept + 1)):
                    continue
                empty += not document.entities
                kept += 1
                jsonl.write(document, stream)
            advance(kept - told)
            told = kept
            report.step(f"silver {kept}/{wanted}")
            if kept >= wanted:
                break
    return kept


def _lots(sentences: Iterable[Document]) -> Iterator[list[Document]]:
    fitting = iter(s for s in sentences if 30 <= len(s.text) <= 500)
    while lot := list(islice(fitting, _LOT)):
        yield lot


def complete(teacher: Teacher, settings: Recipe) -> list[Sentence]:
    """The gold sentences, with the teacher's labels where a source does not annotate a label and nothing overlaps."""
    sentences = list(gold(settings))
    labelled = teacher.label([s.document for s in sentences])
    return [_completed(s, guess) for s, (guess, _) in zip(sentences, labelled, strict=True)]


def _completed(sentence: Sentence, guess: Document) -> Sentence:
    marked = sentence.document.entities
    added = [
        e
        for e in guess.entities
        if e.label not in sentence.annotates and not any(e.start < m.end and m.start < e.end for m in marked)
    ]
    return Sentence(sentence.document.with_entities([*marked, *added]), sentence.annotates, sentence.source)
