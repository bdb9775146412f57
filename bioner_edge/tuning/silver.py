"""Silver data: sentences labeled by the teacher, and labels that a gold source lacks."""

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

_LOT = 4096  # sentences labeled together, to form batches of similar length


def label_text(teacher: Teacher, settings: Recipe, out: Path, report: Report | None = None) -> int:
    """Label plain text with the teacher and write it as JSON Lines, up to the recipe's number; returns the number.

    Left out: sentences of which the teacher is unsure, very short or long ones, and most of those without an entity.
    """
    most, limit = settings["silver"]["sentences"], settings["silver"]["min_confidence"]
    empty_share, empty, kept, shown = settings["silver"]["empty_share"], 0, 0, 0
    report = report or Report()
    with out.open("w", encoding="utf-8") as stream, report.progress("silver", most, "sentences") as advance:
        for lot in _lots(silver_text(settings)):
            for document, sure in teacher.label(lot):
                if sure < limit or (not document.entities and empty >= empty_share * (kept + 1)):
                    continue
                empty += not document.entities
                kept += 1
                jsonl.write(document, stream)
            advance(kept - shown)
            shown = kept
            report.step(f"silver {kept}/{most}")
            if kept >= most:
                break
    return kept


def _lots(sentences: Iterable[Document]) -> Iterator[list[Document]]:
    fitting = iter(s for s in sentences if 30 <= len(s.text) <= 500)
    while lot := list(islice(fitting, _LOT)):
        yield lot


def complete(teacher: Teacher, settings: Recipe) -> list[Sentence]:
    """The gold sentences, with the teacher's entities of labels that their source lacks, unless they overlap others."""
    sentences = list(gold(settings))
    labelled = teacher.label([s.document for s in sentences])
    return [_complete(s, guess) for s, (guess, _) in zip(sentences, labelled, strict=True)]


def _complete(sentence: Sentence, guess: Document) -> Sentence:
    marked = sentence.document.entities
    added = [
        e
        for e in guess.entities
        if e.label not in sentence.annotates and not any(e.start < m.end and m.start < e.end for m in marked)
    ]
    return Sentence(sentence.document.with_entities([*marked, *added]), sentence.annotates, sentence.source)
