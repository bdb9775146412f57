"""Pack examples as token rows in one folder of some 30 MB: all that training needs, on any machine.

A row is prompt + answer + end token. `rows.npz` holds
  tokens   uint16 (total,)   the rows, one after another
  starts   uint32 (rows + 1,) where each row begins
  answers  uint16 (rows,)    where in the row its answer begins
  gold     bool   (rows,)    annotated by people, not by the teacher
  forms    uint8  (rows,)    index of its format in the recipe
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bioner_edge import formats
from bioner_edge.backends.contract import Spelling
from bioner_edge.document import Document
from bioner_edge.questions import ask
from bioner_edge.tuning.sources import Recipe
from bioner_edge.tuning.vocabulary import END, TrainedVocabulary

__all__ = ["Row", "encode", "write"]


class Row(NamedTuple):
    """One example: token ids, and the position where the answer begins."""

    ids: list[int]
    answer: int


def encode(spelling: Spelling, document: Document, labels: list[str], format_name: str) -> Iterator[Row]:
    """The rows of one document, one for each question of the format. Annotations appear only in the answer."""
    form = formats.get(format_name)
    end = spelling.tokenize(END.encode(), True)
    for question in ask(form, labels, {}, spelling.chat_template, spelling.template_tokens):
        prompt = question.token_ids(spelling, document.text)
        answer = spelling.tokenize(form.render(document, question.labels).encode(), False)
        yield Row([*prompt, *answer, *end], len(prompt))


def write(examples: Iterable[tuple[Document, bool]], vocabulary: Path, out: Path, settings: Recipe) -> int:
    """Write the rows of (document, is gold) pairs to `out`/rows.npz, and copy the vocabulary; returns the number.

    Used from the recipe: `labels`, `formats` with each one's share of the documents, `subset_share` (of documents whose
    prompt requests a single label) and `max_tokens`. Gold documents are written in every format.
    """
    spelling = TrainedVocabulary(vocabulary)
    chosen = random.Random(settings["seed"])
    labels: list[str] = settings["labels"]
    rows: list[Row] = []
    gold: list[bool] = []
    forms: list[int] = []
    for document, is_gold in examples:
        asked = [chosen.choice(labels)] if chosen.random() < settings["subset_share"] else labels
        for number, (name, share) in enumerate(settings["formats"].items()):
            if not is_gold and chosen.random() >= share:
                continue
            for row in encode(spelling, document, asked, name):
                if len(row.ids) <= settings["max_tokens"]:
                    rows.append(row)
                    gold.append(is_gold)
                    forms.append(number)
    out.mkdir(parents=True, exist_ok=True)
    starts = np.cumsum([0, *(len(r.ids) for r in rows)], dtype=np.uint32)
    np.savez_compressed(
        out / "rows.npz",
        tokens=np.concatenate([np.asarray(r.ids, np.uint16) for r in rows]),
        starts=starts,
        answers=np.asarray([r.answer for r in rows], np.uint16),
        gold=np.asarray(gold),
        forms=np.asarray(forms, np.uint8),
    )
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if (vocabulary / name).exists():
            (out / name).write_bytes((vocabulary / name).read_bytes())
    return len(rows)
