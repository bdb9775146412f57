"""The main path: chunks of a document, a prompt for each, an answer under a constraint, entities in its own offsets.

import bioner_edge
extractor = bioner_edge.load()
extractor("Naloxone reverses the antihypertensive effect of clonidine.").entities
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby

from bioner_edge import formats, prompts
from bioner_edge.backends.contract import Backend, CachedSequence
from bioner_edge.decoding.automaton import Anything
from bioner_edge.decoding.gbnf import GrammarAutomaton
from bioner_edge.decoding.loop import Answer, decode
from bioner_edge.decoding.method_cache import method_cache
from bioner_edge.decoding.token_masks import TokenMask, Vocabulary
from bioner_edge.document import Document, Entity, Span
from bioner_edge.errors import InputError, UsageError, unknown_name
from bioner_edge.extraction import Extraction
from bioner_edge.formats.contract import Parsed, Problem
from bioner_edge.models.manifest import UNITS
from bioner_edge.scores import score_entities
from bioner_edge.text.chunks import chunks
from bioner_edge.text.sentences import unwrap
from bioner_edge.text.surrogates import lone_surrogate

__all__ = ["CONSTRAINTS", "Extraction", "Extractor"]

CONSTRAINTS = ("free", "gbnf", "grounded", "llama-gbnf")


class Extractor:
    """Reads documents with one model, one format and one list of labels; see `load`."""

    vocabulary_class = Vocabulary

    def __init__(
        self,
        backend: Backend,
        *,
        format: str,
        labels: Sequence[str],
        constraint: str = "grounded",
        guidelines: Mapping[str, str] | None = None,
        unit: str = "document",
        min_score: float = 0.0,
        removed_mass: bool = True,
    ) -> None:
        if constraint not in CONSTRAINTS:
            raise UsageError(unknown_name("constraint", constraint, CONSTRAINTS))
        if unit not in UNITS:
            raise UsageError(unknown_name("unit", unit, UNITS))
        if bad := next(
            (reason for text in (*labels, *(guidelines or {}).values()) if (reason := lone_surrogate(text))), None
        ):
            raise UsageError(f"a label or guideline cannot be read: {bad}")
        self.backend = backend
        self.format = formats.get(format)
        self.labels = list(labels)
        self.constraint = constraint
        self.unit = unit
        self.min_score = min_score
        self.removed_mass = removed_mass
        self.vocabulary = self.vocabulary_class(backend)
        self._calls = [_Call(self, asked, guidelines or {}) for asked in self.format.questions(self.labels)]
        self._prefixes: dict[tuple[int, ...], CachedSequence] = {}
        cached = sum(map(len, {tuple(c.before) for c in self._calls}))
        self._least: Callable[[str], int] = method_cache(
            self._least_tokens, 8
        )  # asked for a chunk's limit, then for its budget
        self._empty = self._least("")
        self._room = backend.context - cached - max(len(c.after) for c in self._calls) - 2 * self._empty
        if self._room < 48:
            raise UsageError(f"a context of {backend.context} tokens is too small for this prompt; take a larger one")

    @property
    def prompts(self) -> list[tuple[list[int], list[int]]]:
        """Of each question the token ids before and after the text."""
        return [(call.before, call.after) for call in self._calls]

    def __call__(self, source: str | Document) -> Extraction:
        """The entities of a document, its own annotations unread. Raises InputError for a lone surrogate."""
        document = Document("text", source) if isinstance(source, str) else source
        if reason := lone_surrogate(document.text):
            raise InputError(f"document {document.id}: {reason}")
        entities: dict[tuple[str, tuple[Span, ...]], Entity] = {}
        problems: list[tuple[Span, Problem]] = []
        counts = Counter[str]()
        for chunk in self._chunks(document):
            # As long as the text, so that offsets are the same in both.
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
        """Tokens that a text takes with its answer: at least as long again, or twice the answer without mentions."""
        text = unwrap(text)
        size = len(self.backend.tokenize(text.encode(), False))
        return size + max(2 * (self._least(text) - self._empty), size)

    def _least_tokens(self, text: str) -> int:
        """The tokens of an answer that finds nothing in a text."""
        empty = self.format.render(Document("", text), self._calls[0].labels)
        return len(self.backend.tokenize(empty.encode(), False))

    def _answers(self, part: Document) -> Iterator[tuple[Answer, Parsed]]:
        """The answers about a chunk, in the order of the calls; calls whose prompts begin alike read the text once."""
        text = self.backend.tokenize(part.text.encode(), False)
        budget = self._budget(part, text)
        for before, calls in groupby(self._calls, key=lambda call: call.before):
            sharing = list(calls)
            prefix = self._prefix(before)
            # The last token is left to each prompt, so that none is empty.
            asked = [*before[prefix.length :], *text]
            read, left = asked[:-1], asked[-1:]
            shared = self.backend.fork(prefix, prefix.length)
            try:
                once = 0
                if len(sharing) > 1 and read:
                    self.backend.eval(shared, read)
                    once, read = len(read), []
                for call in sharing:
                    answer, parsed = call.answer(part, shared, [*read, *left, *call.after], budget)
                    if once:  # what was read for all is counted with the first
                        fed, prompted = answer.fed + once, answer.prompt + once
                        answer, once = replace(answer, calls=answer.calls + 1, fed=fed, prompt=prompted), 0
                    yield answer, parsed
            finally:
                self.backend.release(shared)

    def _budget(self, part: Document, text: Sequence[int]) -> int:
        """The tokens that may be fed after the prompt: more than any answer takes, so that a model may not ramble."""
        return 4 * max(len(text), self._least(part.text)) + 128

    def _prefix(self, before: list[int]) -> CachedSequence:
        """The cached instruction, less its last token."""
        key = tuple(before)
        if key not in self._prefixes:
            self._prefixes[key] = self.backend.new_sequence()
            if len(before) > 1:
                self.backend.eval(self._prefixes[key], before[:-1])
        return self._prefixes[key]

    def close(self) -> None:
        self.backend.close()

    def __enter__(self) -> Extractor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Call:
    """One question asked of every chunk: the prompt's parts before and after the text, and the constraint."""

    def __init__(self, extractor: Extractor, labels: list[str], guidelines: Mapping[str, str]) -> None:
        self.extractor = extractor
        self.labels = labels
        backend = extractor.backend
        messages = extractor.format.instruction(labels, guidelines)
        prompt = prompts.build(backend.chat_template, messages, backend.template_tokens)
        self.before = backend.tokenize(prompt.before.encode(), True)
        if backend.bos is not None and self.before[:1] != [backend.bos]:
            self.before.insert(0, backend.bos)
        self.after = backend.tokenize(prompt.after.encode(), True)
        self._shared: TokenMask | None = None

    def answer(self, part: Document, shared: CachedSequence, prompt: list[int], budget: int) -> tuple[Answer, Parsed]:
        """One answer about a chunk, and what it says; `shared` holds what was read of it before."""
        backend, form = self.extractor.backend, self.extractor.format
        sequence = backend.fork(shared, shared.length)
        budget = min(backend.context - shared.length - len(prompt), budget)
        mask = self._mask(part)
        try:
            if self.extractor.constraint == "llama-gbnf":
                from bioner_edge.decoding import llama_sampler

                answer = llama_sampler.decode(backend, sequence, prompt, mask, form.gbnf(self.labels), budget=budget)
            else:
                answer = decode(
                    backend, sequence, prompt, mask, budget=budget, removed_mass=self.extractor.removed_mass
                )
        finally:
            backend.release(sequence)
        return answer, self.read(answer, part)

    def read(self, answer: Answer, part: Document) -> Parsed:
        """What an answer says; one that ended at its budget has that among its problems."""
        form = self.extractor.format
        reading = form.parse if self.extractor.constraint == "grounded" else form.salvage
        parsed = reading(answer.text, part, self.labels)
        if answer.closed:
            limit = Problem.at(
                "cut", answer.text, len(answer.text), f"closed after {answer.fed} tokens, the budget of this chunk"
            )
            parsed = replace(parsed, problems=(*parsed.problems, limit))
        return parsed

    def _mask(self, part: Document) -> TokenMask:
        """The constraint of this chunk; one that no document changes is made once, so that its states stay cached."""
        vocabulary, form = self.extractor.vocabulary, self.extractor.format
        if self.extractor.constraint == "grounded":
            return TokenMask(form.constraint(part, self.labels), vocabulary)
        if self._shared is None:
            free = self.extractor.constraint == "free"
            self._shared = TokenMask(Anything() if free else GrammarAutomaton(form.gbnf(self.labels)), vocabulary)
        return self._shared
