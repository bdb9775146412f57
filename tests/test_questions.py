"""A question is the same tokens wherever it is asked: in extraction, in training, and in what `formats show` prints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bioner_edge
from bioner_edge.backends.contract import CachedSequence, Logits
from bioner_edge.backends.scripted import Scripted
from bioner_edge.constraints import CONSTRAINTS
from bioner_edge.document import Document, Entity
from bioner_edge.errors import UsageError
from bioner_edge.extract import Extractor
from bioner_edge.format_tables import render_prompts
from bioner_edge.formats import FORMATS, get
from bioner_edge.questions import PLAIN, ask

LABELS = ["Chemical", "Disease"]
TEXT = "Naloxone eased asthma."


def anything(ids: Sequence[int]) -> Logits:
    """Logits without rhyme or reason, the same for the same tokens."""
    return np.random.default_rng(list(ids)[-4:]).normal(size=257).astype(np.float32)


class Recorded(Scripted):
    """Keeps what was read."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.read: list[list[int]] = []

    def eval(self, sequence: CachedSequence, ids: Sequence[int]) -> Logits:
        self.read.append(list(ids))
        return super().eval(sequence, ids)


@pytest.mark.parametrize("name", FORMATS)
def test_extraction_feeds_what_a_question_says(name: str) -> None:
    backend = Recorded(anything)
    reader = Extractor(backend, format=name, labels=LABELS)
    reader(TEXT)
    questions = ask(get(name), LABELS, {}, backend.chat_template, backend.template_tokens)
    assert reader.prompts == [question.around(backend) for question in questions]
    fed = bytes(i for ids in backend.read for i in ids if i < 256)
    for question in questions:
        before, after = question.around(backend)
        assert question.token_ids(backend, TEXT, "[]") == [*before, *TEXT.encode(), *after, *b"[]"]
        assert question.before.encode()[:-1] in fed


def test_a_first_token_that_the_template_lacks_is_put_there_once() -> None:
    backend = Scripted(anything)
    backend.bos = 200
    (question,) = ask(get("multi_tag"), LABELS, {}, None, {})
    assert question.lacks_bos(backend)
    assert question.token_ids(backend, TEXT)[0] == 200 == question.around(backend)[0][0]
    assert PLAIN.token_ids(backend, TEXT) == [200, *TEXT.encode()]
    assert not PLAIN.lacks_bos(Scripted(anything))


@pytest.mark.parametrize("name", ["multi_tag", "single_term"])
def test_what_is_shown_is_what_is_fed(name: str) -> None:
    with bioner_edge.load("chemdis-9m", threads=1).using(format=name) as reader:
        shown = render_prompts(name, LABELS, {}, TEXT, "chemdis-9m")
        tokenize = reader.backend.tokenize
        for (before, after), (_, prompt) in zip(reader.prompts, shown, strict=True):
            assert [*before, *tokenize(TEXT.encode(), False), *after] == tokenize(prompt.encode(), True)


# One model, several extractors


@pytest.mark.parametrize("constraint", CONSTRAINTS)
def test_another_extractor_of_the_same_model_finds_what_one_of_its_own_finds(constraint: str) -> None:
    asked = [(name, labels) for name in ("multi_tag", "single_term") for labels in (LABELS, ["Disease"])]
    first = Extractor(Scripted(anything), format="multi_tag", labels=LABELS, constraint=constraint)
    sharing = [first, *(first.using(format=name, labels=labels) for name, labels in asked)]
    for text in (TEXT, "Aspirin.", TEXT):
        for reader in sharing:
            own = Extractor(
                Scripted(anything),
                format=next(name for name, form in FORMATS.items() if form is reader.format),
                labels=reader.labels,
                constraint=constraint,
            )
            assert reader(text).to_json()["entities"] == own(text).to_json()["entities"]
            assert reader.labels == own.labels and reader.constraint is own.constraint


def test_instructions_that_are_needed_no_more_leave_the_context() -> None:
    backend = Recorded(anything)
    first = Extractor(backend, format="multi_tag", labels=LABELS)
    other = first.using(labels=["Disease"])
    for reader in (first, other, first, other):
        reader(TEXT)
        assert len(backend._cached) == 1


def test_what_is_not_given_stays() -> None:
    first = Extractor(
        Scripted(anything),
        format="multi_tag",
        labels=LABELS,
        constraint="gbnf",
        guidelines={"Disease": "ill"},
        unit="sentence",
        min_score=0.5,
    )
    other = first.using(format="conv_term")
    assert (other.labels, other.constraint, other.guidelines) == (LABELS, CONSTRAINTS["gbnf"], {"Disease": "ill"})
    assert (other.unit, other.min_score, other.engine) == ("sentence", 0.5, first.engine)
    with pytest.raises(UsageError, match="unknown constraint 'tight'"):
        first.using(constraint="tight")


# The default constraint of a model


def test_the_lists_model_is_read_with_the_grammar_alone() -> None:
    with bioner_edge.load("chemdis-9m-lists", threads=1) as reader:
        assert reader.constraint.name == "gbnf"
    with bioner_edge.load("chemdis-9m-lists", constraint="grounded", threads=1) as reader:
        assert reader.constraint.name == "grounded"


def test_training_rows_are_prompts_of_extraction(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from bioner_edge.tuning import pack, vocabulary

    vocabulary.train([TEXT * 9, "<|end|> is text here"], 300, tmp_path)
    spelling = vocabulary.TrainedVocabulary(tmp_path)
    text = "Naloxone <|end|> eased asthma."
    document = Document("d", text, (Entity.at("Chemical", 0, 8),))
    (row,) = pack.encode(spelling, document, LABELS, "multi_tag")
    (question,) = ask(get("multi_tag"), LABELS, {}, spelling.chat_template, spelling.template_tokens)
    assert row.ids[: row.answer] == question.token_ids(spelling, text)
    (end,) = spelling.tokenize(b"<|end|>", True)
    assert row.ids.count(end) == 1 and row.ids[-1] == end  # one in a text is only text
