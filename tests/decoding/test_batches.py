"""Many answers over one back end, written step by step beside each other: the same as one after another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any
from zlib import crc32

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scheduler import Answering, schedule

from bioner_edge.backends.contract import Batch, Logits
from bioner_edge.backends.scripted import Scripted
from bioner_edge.decoding.automaton import Anything, ByteAutomaton
from bioner_edge.decoding.gbnf import GrammarAutomaton
from bioner_edge.decoding.loop import Answer, decode, generate
from bioner_edge.decoding.token_masks import TokenMask, Vocabulary
from bioner_edge.document import Document
from bioner_edge.formats import FORMATS, multi_code, multi_tag

LABELS = ["Chemical", "Disease"]
WORDS = (b"lung", b" fe", b"fever", b" <", b"<Chemical>", b"</Chemical>", b"<Di", b"ver</", b"\xc3\xa9", b'", "')
TEXTS = ("lung fever", "é-lung <3", "", "IL-β in fever, β", "lung " * 8)
AUTOMATA: tuple[Callable[[str], ByteAutomaton], ...] = (
    lambda text: multi_tag.constraint(Document("d", text), LABELS),
    lambda text: multi_code.constraint(Document("d", text), LABELS),
    lambda text: GrammarAutomaton(multi_tag.gbnf(LABELS)),
    lambda text: Anything(),
)


def noise(ids: list[int]) -> Logits:
    """Logits that look random, are peaked, and depend on all that was read; now and then a tag is all it wants."""
    seed = crc32(repr(ids).encode())
    logits = np.random.default_rng(seed).normal(0, 4, 257 + len(WORDS)).astype(np.float32)
    if seed % 3 == 0:
        logits[ord("<")] += 30
    return logits


class Watched(Scripted):
    """Notes how many tokens each step read of each sequence."""

    def __init__(self) -> None:
        super().__init__(noise, WORDS)
        self.batches: list[list[int]] = []

    def eval_batch(self, batch: Batch) -> list[Logits]:
        self.batches.append([len(ids) for _, ids in batch])
        return super().eval_batch(batch)


MODEL = Watched()
VOCABULARY = Vocabulary(MODEL)
SHARED = TokenMask(GrammarAutomaton(multi_tag.gbnf(LABELS)), VOCABULARY)  # several answers at once ask one mask


def prompt(number: int) -> list[int]:
    return [number, *range(1 + number * 5 % 17)]


def masks(count: int) -> list[TokenMask]:
    made = (TokenMask(AUTOMATA[n % len(AUTOMATA)](TEXTS[n % len(TEXTS)]), VOCABULARY) for n in range(count))
    return [SHARED if n % 5 == 3 else mask for n, mask in enumerate(made)]


def alone(number: int, mask: TokenMask, budget: int = 60) -> Answer:
    sequence = MODEL.new_sequence()
    try:
        return decode(MODEL, sequence, prompt(number), mask, budget=budget)
    finally:
        MODEL.release(sequence)


def answering(made: list[TokenMask], budget: int = 60) -> list[Answering]:
    return [generate(prompt(number), mask, budget=budget) for number, mask in enumerate(made)]


def free_slots() -> int:
    taken = []
    with pytest.raises(RuntimeError):
        while True:
            taken.append(MODEL.new_sequence())
    for sequence in taken:
        MODEL.release(sequence)
    return len(taken)


COUNT = 20
EXPECTED = [alone(number, mask) for number, mask in enumerate(masks(COUNT))]


def test_what_is_expected_has_all_that_can_happen() -> None:
    assert {answer.closed for answer in EXPECTED} == {True, False}
    assert any(answer.calls == 0 for answer in EXPECTED)  # nothing to ask
    assert any(answer.calls > len(answer.choices) for answer in EXPECTED)  # a mention was withdrawn
    assert len({answer.data for answer in EXPECTED}) > COUNT // 2


@pytest.mark.thorough(but=("1-1", "1-7", "3-2", "3-7", "1073741824-7", "1073741824-16"))
@pytest.mark.parametrize("width", [1, 2, 7, 16])
@pytest.mark.parametrize("most", [1, 3, 1 << 30])
def test_answers_beside_each_other_are_those_of_one_at_a_time(width: int, most: int) -> None:
    MODEL.batches.clear()
    assert schedule(MODEL, answering(masks(COUNT)), width=width, most=most) == EXPECTED
    read = [len(batch) for batch in MODEL.batches]
    assert max(read) == width and free_slots() == 16
    if most > 3 and width > 1:  # prompts beside single tokens
        assert any(min(batch) == 1 and max(batch) > 3 for batch in MODEL.batches if batch)
        assert len(read) < sum(answer.calls for answer in EXPECTED)


@settings(max_examples=settings.default.max_examples // 3)
@given(st.data())
def test_cancelled_answers_disturb_no_others(data: st.DataObject) -> None:
    ends = data.draw(st.dictionaries(st.integers(0, 9), st.integers(1, 30)))
    width, most = data.draw(st.integers(1, 16)), data.draw(st.sampled_from([2, 1 << 30]))
    found = schedule(
        MODEL,
        answering(masks(10)),
        width=width,
        most=most,
        cancelled=lambda number, steps: steps >= ends.get(number, 1 << 30),
    )
    for number, (answer, expected) in enumerate(zip(found, EXPECTED[:10], strict=True)):
        assert answer == expected or (answer is None and ends[number] <= expected.calls)
    assert free_slots() == 16


@pytest.mark.parametrize("number", range(4))
def test_an_answer_can_be_closed_at_any_step(number: int) -> None:
    """What is left is the sequence, which belongs to the driver; the mask answers as before."""
    mask = masks(COUNT)[number]
    expected = EXPECTED[number]
    for steps in range(expected.calls + 1):
        sequence = MODEL.new_sequence()
        writing = generate(prompt(number), mask, budget=60)
        logits: Any = None
        for _ in range(steps):
            step = writing.send(logits)
            MODEL.truncate(sequence, sequence.length - step.forget)
            logits = MODEL.eval(sequence, step.ids)
        writing.close()
        MODEL.release(sequence)
        with pytest.raises(StopIteration):
            next(writing)
    assert alone(number, mask) == expected


def test_steps_are_counted_once() -> None:
    """Positions that were forgotten count as read: `fed` is what the model did."""
    MODEL.evaluated.clear()
    for number, mask in enumerate(masks(COUNT)):
        before = len(MODEL.evaluated)
        answer = alone(number, mask)
        read = MODEL.evaluated[before:]
        assert (answer.calls, answer.fed) == (len(read), sum(read))
    kinds = Counter(answer.prompt == len(prompt(number)) for number, answer in enumerate(EXPECTED) if answer.calls)
    assert kinds == {True: sum(answer.calls > 0 for answer in EXPECTED)}


@pytest.mark.parametrize("name", FORMATS)
def test_all_formats_beside_each_other(name: str) -> None:
    form = FORMATS[name]
    documents = [Document("d", text) for text in TEXTS if text]
    jobs = [
        (number, TokenMask(form.constraint(document, labels), VOCABULARY))
        for document in documents
        for number, labels in enumerate(form.questions(LABELS))
    ]
    expected = [alone(number, mask, 200) for number, mask in jobs]
    together = [generate(prompt(number), mask, budget=200) for number, mask in jobs]
    assert schedule(MODEL, together, width=5, most=4) == expected
