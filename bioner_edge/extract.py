"""Extract entities: split a document into chunks, prompt for each, decode under a constraint, map offsets back.

import bioner_edge
extractor = bioner_edge.load()
extractor("Naloxone reverses the antihypertensive effect of clonidine.").entities
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from bioner_edge import formats
from bioner_edge.backends.contract import Backend, CachedSequence
from bioner_edge.constraints import DEFAULT, Constraint, find_constraint
from bioner_edge.decoding.loop import Answer
from bioner_edge.decoding.method_cache import method_cache
from bioner_edge.document import Document, Entity, Span
from bioner_edge.engine import Engine
from bioner_edge.errors import InputError, UsageError, unknown_name
from bioner_edge.extraction import Extraction
from bioner_edge.formats.contract import Parsed, Problem
from bioner_edge.models.manifest import UNITS
from bioner_edge.questions import ask
from bioner_edge.scores import score_entities
from bioner_edge.text.chunks import chunks
from bioner_edge.text.sentences import unwrap
from bioner_edge.text.surrogates import surrogate_error

__all__ = ["Extraction", "Extractor"]

_MIN_ROOM = 48  # tokens of a chunk and its answer


class Extractor:
    """Extracts entities with one model, format and list of labels; see `load`."""

    def __init__(
        self,
        model: Backend | Engine,
        *,
        format: str,
        labels: Sequence[str],
        constraint: str | Constraint = DEFAULT,
        guidelines: Mapping[str, str] | None = None,
        unit: str = "document",
        min_score: float = 0.0,
        removed_mass: bool = True,
    ) -> None:
        if unit not in UNITS:
            raise UsageError(unknown_name("unit", unit, UNITS))
        if reason := next(
            (error for text in (*labels, *(guidelines or {}).values()) if (error := surrogate_error(text))), None
        ):
            raise UsageError(f"a label or guideline cannot be read: {reason}")
        self.constraint = find_constraint(constraint)
        self._name, self.format = format, formats.get(format)
        self.labels = list(labels)
        self.guidelines = dict(guidelines or {})
        self.unit = unit
        self.min_score = min_score
        self.removed_mass = removed_mass
        self.engine = model if isinstance(model, Engine) else Engine(model)
        self.backend = backend = self.engine.backend
        questions = ask(self.format, self.labels, self.guidelines, backend.chat_template, backend.template_tokens)
        self._questions = [_TokenizedQuestion(question.labels, *question.around(backend)) for question in questions]
        self._instructions = {tuple(question.before) for question in self._questions}
        # called twice for each chunk: for its limit and for its budget
        self._min_answer: Callable[[str], int] = method_cache(self._min_answer_tokens, 8)
        self._empty = self._min_answer("")
        fixed = sum(map(len, self._instructions)) + max(len(question.after) for question in self._questions)
        self._room = backend.context - fixed - 2 * self._empty
        if self._room < _MIN_ROOM:
            raise UsageError(f"a context of {backend.context} tokens is too small for this prompt; use a larger one")

    def using(
        self,
        *,
        format: str | None = None,
        labels: Sequence[str] | None = None,
        constraint: str | Constraint | None = None,
        guidelines: Mapping[str, str] | None = None,
    ) -> Extractor:
        """An extractor of the same loaded model with other settings; those not given are this one's.

        Both may be used in turn. They share the model: closing one closes the other. Raises UsageError as `load` does.
        """
        return Extractor(
            self.engine,
            format=format or self._name,
            labels=self.labels if labels is None else labels,
            constraint=self.constraint if constraint is None else constraint,
            guidelines=self.guidelines if guidelines is None else guidelines,
            unit=self.unit,
            min_score=self.min_score,
            removed_mass=self.removed_mass,
        )

    @property
    def prompts(self) -> list[tuple[list[int], list[int]]]:
        """For each question, the token ids before and after the text."""
        return [(question.before, question.after) for question in self._questions]

    def __call__(self, source: str | Document) -> Extraction:
        """Extract the entities of a document; its gold is not read. Raises InputError for a lone surrogate."""
        document = Document("text", source) if isinstance(source, str) else source
        if reason := surrogate_error(document.text):
            raise InputError(f"document {document.id}: {reason}")
        entities: dict[tuple[str, tuple[Span, ...]], Entity] = {}
        problems: list[tuple[Span, Problem]] = []
        counts = Counter[str]()
        for chunk in self._chunks(document):
            # Unwrapping keeps the length, so offsets hold in both.
            part = Document(document.id, unwrap(document.text[chunk.start : chunk.end]))
            for answer, parsed in self._answers(part):
                counts.update(answers=1, calls=answer.calls, fed=answer.fed)
                counts.update(prompt=answer.prompt, tokens=answer.tokens, chosen=answer.chosen)
                problems += [(chunk, p) for p in parsed.problems]
                before = len(entities)
                for entity in score_entities(answer, parsed):
                    if entity.score is None or entity.score >= self.min_score:
                        moved = entity.shifted(chunk.start)
                        entities.setdefault(moved.key, moved)
                if any(p.kind != "cut" for p in parsed.problems):
                    counts.update(broken=1, salvaged=len(entities) - before)
        found = sorted(entities.values(), key=lambda e: (e.start, -e.end, self.labels.index(e.label)))
        return Extraction(document, tuple(found), tuple(problems), **counts)

    def _chunks(self, document: Document) -> Iterator[Span]:
        return chunks(document.text, self._cost, self._room, unit=self.unit, title_end=document.title_end)

    def _cost(self, text: str) -> int:
        """Tokens of a text and its answer: the longer of the text and twice the answer without entities."""
        text = unwrap(text)
        size = len(self.backend.tokenize(text.encode(), False))
        return size + max(2 * (self._min_answer(text) - self._empty), size)

    def _min_answer_tokens(self, text: str) -> int:
        """Tokens of the answer without entities."""
        empty = self.format.render(Document("", text), self._questions[0].labels)
        return len(self.backend.tokenize(empty.encode(), False))

    def _answers(self, part: Document) -> Iterator[tuple[Answer, Parsed]]:
        """The answers about a chunk, by question; questions with the same instruction share one prefill of the text."""
        text = self.backend.tokenize(part.text.encode(), False)
        budget = self._budget(part, text)
        for before, questions in groupby(self._questions, key=lambda question: question.before):
            group = list(questions)
            prefix = self.engine.instruction(before, self._instructions)
            # The last token is left to each prompt, so that none is empty.
            prompt = [*before[prefix.length :], *text]
            read, left = prompt[:-1], prompt[-1:]
            shared = self.backend.fork(prefix, prefix.length)
            try:
                once = 0
                if len(group) > 1 and read:
                    self.backend.eval(shared, read)
                    once, read = len(read), []
                for question in group:
                    answer = self._answer(question, part, shared, [*read, *left, *question.after], budget)
                    if once:  # the shared prefill is counted with the first answer
                        fed, prompted = answer.fed + once, answer.prompt + once
                        answer, once = replace(answer, calls=answer.calls + 1, fed=fed, prompt=prompted), 0
                    yield answer, self.read(answer, part, question.labels)
            finally:
                self.backend.release(shared)

    def _answer(
        self, question: _TokenizedQuestion, part: Document, shared: CachedSequence, prompt: list[int], budget: int
    ) -> Answer:
        """Decode one answer about a chunk, from a fork of the prefix that is cached in `shared`."""
        budget = min(self.backend.context - shared.length - len(prompt), budget)
        allowed = question.allowed
        if allowed is None:
            row = self.constraint
            allowed = row.make(self.format, question.labels, part, self.engine.vocabulary)
            question.allowed = None if row.per_document else allowed
        sequence = self.backend.fork(shared, shared.length)
        try:
            return self.constraint.decode(
                self.backend, sequence, prompt, allowed, budget=budget, removed_mass=self.removed_mass
            )
        finally:
            self.backend.release(sequence)

    def read(self, answer: Answer, part: Document, labels: Sequence[str]) -> Parsed:
        """Parse an answer; if its budget ran out, that is among its problems."""
        parsed = self.constraint.read(self.format, answer.text, part, labels)
        if not answer.closed:
            return parsed
        limit = f"closed after {answer.fed} tokens, the budget of this chunk"
        problem = Problem.at("cut", answer.text, len(answer.text), limit)
        return replace(parsed, problems=(*parsed.problems, problem))

    def _budget(self, part: Document, text: Sequence[int]) -> int:
        """Tokens that may be fed after the prompt: more than any answer needs, but a bound for a model that rambles."""
        return 4 * max(len(text), self._min_answer(part.text)) + 128

    def close(self) -> None:
        self.backend.close()

    def __enter__(self) -> Extractor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(slots=True)
class _TokenizedQuestion:
    """A question as token ids, with its constraint if that does not depend on the document."""

    labels: list[str]
    before: list[int]
    after: list[int]
    allowed: Any = None
