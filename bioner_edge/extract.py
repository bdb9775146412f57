"""The main path: chunks of a document, a prompt for each, an answer under a constraint, entities in its own offsets.

import bioner_edge
extractor = bioner_edge.load()
extractor("Naloxone reverses the antihypertensive effect of clonidine.").entities
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from . import formats, prompts
from .backends.contract import Backend
from .backends.contract import Sequence as Cached
from .chunks import chunks
from .corpora.notice import surrogate
from .decoding.automaton import Anything
from .decoding.gbnf import GrammarAutomaton
from .decoding.lift import Lift, Vocabulary
from .decoding.loop import Answer, Choice, decode
from .errors import InputError, UsageError, known
from .formats.contract import Parsed, Problem
from .span import Document, Entity, Span

__all__ = ["CONSTRAINTS", "Extraction", "Extractor", "load"]

CONSTRAINTS = ("free", "gbnf", "grounded")


@dataclass(frozen=True, slots=True)
class Extraction:
    """What was found in one document.

    `problems` are what could not be read of the answers, each with the chunk [start, end) of the text that it is
    about; under the grounded constraint there are none. `answers`, `calls`, `fed` count answers, model steps, tokens.
    """

    document: Document
    entities: tuple[Entity, ...]
    problems: tuple[tuple[Span, Problem], ...] = ()
    answers: int = 0
    calls: int = 0
    fed: int = 0

    def to_json(self) -> dict[str, Any]:
        """The document with the entities found, and `problems` where there were any; never its own annotations."""
        record = self.document.with_entities(self.entities).to_json()
        if self.problems:
            record["problems"] = [
                {"kind": p.kind, "message": p.message, "start": chunk.start, "end": chunk.end}
                for chunk, p in self.problems
            ]
        return record


class Extractor:
    """Reads documents with one model, one format and one list of labels; see `load`."""

    def __init__(
        self,
        backend: Backend,
        *,
        format: str,
        labels: Sequence[str],
        constraint: str = "grounded",
        guidelines: Mapping[str, str] | None = None,
        unit: str = "sentence",
        min_score: float = 0.0,
        removed_mass: bool = True,
    ) -> None:
        if constraint not in CONSTRAINTS:
            raise UsageError(known("constraint", constraint, CONSTRAINTS))
        if bad := next(
            (reason for text in (*labels, *(guidelines or {}).values()) if (reason := surrogate(text))), None
        ):
            raise UsageError(f"a label or guideline cannot be read: {bad}")
        self.backend = backend
        self.format = formats.get(format)
        self.labels = list(labels)
        self.constraint = constraint
        self.unit = unit
        self.min_score = min_score
        self.removed_mass = removed_mass
        self.vocabulary = Vocabulary(backend)
        self._calls = [_Call(self, asked, guidelines or {}) for asked in self.format.calls(self.labels)]
        # A third of the context for the text, the rest for its tagged copy.
        self._limit = (backend.context - max(c.overhead for c in self._calls)) // 3
        if self._limit < 16:
            raise UsageError(f"a context of {backend.context} tokens is too small for this prompt; take a larger one")

    def __call__(self, source: str | Document) -> Extraction:
        """The entities of a document, its own annotations unread. Raises InputError for a lone surrogate."""
        document = Document("text", source) if isinstance(source, str) else source
        if reason := surrogate(document.text):
            raise InputError(f"document {document.id}: {reason}")
        entities: dict[tuple[str, tuple[Span, ...]], Entity] = {}
        problems: list[tuple[Span, Problem]] = []
        answers = calls = fed = 0
        for chunk in self._chunks(document):
            part = Document(document.id, document.text[chunk.start : chunk.end])
            for call in self._calls:
                answer, parsed = call.answer(part)
                answers, calls, fed = answers + 1, calls + answer.calls, fed + answer.fed
                problems += [(chunk, p) for p in parsed.problems]
                for entity in _scored(answer, parsed):
                    if entity.score is None or entity.score >= self.min_score:
                        moved = entity.shifted(chunk.start)
                        entities.setdefault(moved.key, moved)
        found = sorted(entities.values(), key=lambda e: (e.start, -e.end, self.labels.index(e.label)))
        return Extraction(document, tuple(found), tuple(problems), answers, calls, fed)

    def _chunks(self, document: Document) -> Iterator[Span]:
        def count(text: str) -> int:
            return len(self.backend.tokenize(text.encode(), False))

        return chunks(document.text, count, self._limit, unit=self.unit, title_end=document.title_end)

    def close(self) -> None:
        self.backend.close()

    def __enter__(self) -> Extractor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Call:
    """One question asked of every chunk: its prompt, of which the part before the text is read once and shared."""

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
        self.overhead = len(self.before) + len(self.after)
        self._prefix: Cached | None = None
        self._shared: Lift | None = None

    def answer(self, part: Document) -> tuple[Answer, Parsed]:
        """One answer about a chunk, and what it says."""
        backend, form = self.extractor.backend, self.extractor.format
        text = backend.tokenize(part.text.encode(), False)
        prefix = self._read_prefix()
        sequence = backend.fork(prefix, prefix.length)
        prompt = [*self.before[prefix.length :], *text, *self.after]
        # Four times the text bounds a free model that rambles; the grounded answer is closed, never cut.
        budget = min(backend.context - prefix.length - len(prompt), 4 * len(text) + 128)
        try:
            answer = decode(
                backend, sequence, prompt, self._lift(part), budget=budget, removed_mass=self.extractor.removed_mass
            )
        finally:
            backend.release(sequence)
        read = form.parse if self.extractor.constraint == "grounded" else form.salvage
        parsed = read(answer.text, part, self.labels)
        if answer.closed:
            limit = Problem.at(
                "cut", answer.text, len(answer.text), f"closed after {answer.fed} tokens, the budget of this chunk"
            )
            parsed = replace(parsed, problems=(*parsed.problems, limit))
        return answer, parsed

    def _read_prefix(self) -> Cached:
        """The cached instruction; its last token is left to each prompt, so that a prompt is never empty."""
        if self._prefix is None:
            self._prefix = self.extractor.backend.new_sequence()
            if len(self.before) > 1:
                self.extractor.backend.eval(self._prefix, self.before[:-1])
        return self._prefix

    def _lift(self, part: Document) -> Lift:
        """The constraint of this chunk; one that no document changes is made once, so that its states stay cached."""
        vocabulary, form = self.extractor.vocabulary, self.extractor.format
        if self.extractor.constraint == "grounded":
            return Lift(form.constraint(part, self.labels), vocabulary)
        if self._shared is None:
            free = self.extractor.constraint == "free"
            self._shared = Lift(Anything() if free else GrammarAutomaton(form.gbnf(self.labels)), vocabulary)
        return self._shared


def _scored(answer: Answer, parsed: Parsed) -> Iterator[Entity]:
    """Each entity with the product of the probabilities of the choices that wrote it."""
    ends = [0, *_ends(answer.data)]
    for entity, place in zip(parsed.entities, parsed.places, strict=True):
        made = [c for c in answer.choices if c.start < ends[place.end] and ends[place.start] < c.end]
        score = 1.0
        for choice in made:
            score *= choice.probability
        yield replace(entity, score=score, removed_mass=_largest(made))


def _ends(data: bytes) -> Iterator[int]:
    """Where each code point of `data`, decoded with "replace", ends: U+FFFD may stand for one to three bytes."""
    at = 0
    while at < len(data):
        bad = None
        try:
            good = data[at:].decode()
        except UnicodeDecodeError as error:
            good, bad = data[at : at + error.start].decode(), at + error.end
        for char in good:
            at += len(char.encode())
            yield at
        if bad:
            at = bad
            yield at


def _largest(choices: Sequence[Choice]) -> float | None:
    masses = [c.removed_mass for c in choices if c.removed_mass is not None]
    return max(masses, default=None)


def load(
    model: str | Path | None = None,
    *,
    format: str | None = None,
    labels: Sequence[str] | None = None,
    constraint: str = "grounded",
    guidelines: Mapping[str, str] | None = None,
    min_score: float = 0.0,
    threads: int | None = None,
) -> Extractor:
    """An extractor for a model by name or path, by default the bundled one, for the format and labels of its manifest.

    Warns where a format or label is asked for that the model was not tuned for. Raises UsageError for a name that is
    not known and ModelError for a file that cannot be trusted or loaded.
    """
    from . import models
    from .backends.llama_cpp import LlamaCpp

    if constraint not in CONSTRAINTS:  # known before a model is loaded
        raise UsageError(known("constraint", constraint, CONSTRAINTS))
    path, manifest = models.find(str(model) if model is not None else None)
    if manifest is None and not (format and labels):
        raise UsageError(f"{path}: no manifest beside it, so --format and --labels must be given")
    chosen = format or (manifest.format if manifest else "")
    formats.get(chosen)
    asked: Sequence[str] = labels or (manifest.labels if manifest else ())
    if manifest and chosen != manifest.format:
        warnings.warn(f"{path.name} was not tuned for the format {chosen}; it knows {manifest.format}", stacklevel=2)
    if isinstance(asked, str):
        raise UsageError(f"labels must be a list of names, not the string {asked!r}")
    if manifest and (new := [label for label in asked if label not in manifest.labels]):
        warnings.warn(
            f"{path.name} was not tuned for the labels {', '.join(new)}; it knows {', '.join(manifest.labels)}",
            stacklevel=2,
        )
    for label in sorted((guidelines or {}).keys() - asked):
        warnings.warn(
            f"the guideline for {label!r} is not used: it is none of the labels {', '.join(asked)}", stacklevel=2
        )
    backend = LlamaCpp(path, threads=threads)
    try:
        return Extractor(
            backend,
            format=chosen,
            labels=asked,
            constraint=constraint,
            guidelines=guidelines or (manifest.guidelines if manifest else None),
            unit=manifest.unit if manifest else "document",
            min_score=min_score,
        )
    except BaseException:
        backend.close()
        raise
