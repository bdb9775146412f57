"""How fast documents are read: the model's steps and whole answers, timed from outside, so that the core stays clean.

    document  |-- chunks, tokens, constraint --| prompt | step  step  step … | reading the answer | next chunk …
    ttft_s    |----------------------------------------|                       of its first answer
    prefill                                    |--------|
    decode                                              |--------------------|

Prefill is the steps up to the one that reads the end of a prompt, whatever forced tokens that one reads too. Decoding
is wall time from there to the end of the answer, with all that is not the model: constraint, choice, our own Python.
Tokens that are forced count as written, for they are part of the answer; `forced_share` says how many they are.

Two clock readings and two additions a step are what the timing takes, under a microsecond.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

from bioner_edge.benchmarks.process import describe_error
from bioner_edge.document import Document
from bioner_edge.errors import InputError
from bioner_edge.extract import Extractor
from bioner_edge.extraction import Extraction

__all__ = ["Watch", "figures", "read", "warm_up", "watching"]


@dataclass(slots=True)
class Watch:
    """What was timed of a reader. Seconds are by `time.perf_counter`."""

    reader: Extractor
    prefill_s: float = 0.0
    prefill_tokens: int = 0
    decode_s: float = 0.0
    decode_steps: int = 0
    tokens: int = 0
    ttfts_s: list[float] = field(default_factory=list)
    latencies_s: list[float] = field(default_factory=list)
    found: list[Extraction] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    _document: float | None = None  # when it began, None once its first prompt is read
    _answer: float | None = None  # since when it is decoded, None outside of one
    _steps: int = 0  # of this answer

    def document(self, document: Document) -> None:
        """Read a document. Raises what the reader raises; its steps until then stay counted, the document does not."""
        self._document = started = time.perf_counter()
        extraction = self.reader(document)
        self.latencies_s.append(time.perf_counter() - started)
        self.found.append(extraction)

    def step(self, inner: Callable[..., Any]) -> Callable[..., Any]:
        """A step of the model, whose last argument is the tokens that it reads."""

        def timed(*arguments: Any) -> Any:
            count, started = len(arguments[-1]), time.perf_counter()
            result = inner(*arguments)
            if self._steps:
                self._steps += 1
            else:
                self._prefilled(started, count)
            return result

        return timed

    def _prefilled(self, started: float, count: int) -> None:
        ended = time.perf_counter()
        self.prefill_s += ended - started
        self.prefill_tokens += count
        if self._answer is not None:  # else it is what several answers share, and their prompts go on
            self._answer, self._steps = ended, 1
            if self._document is not None:
                self.ttfts_s.append(ended - self._document)
                self._document = None

    def answer(self, inner: Callable[..., Any]) -> Callable[..., Any]:
        """What writes an answer, and returns it as an `Answer`."""

        def timed(*arguments: Any, **settings: Any) -> Any:
            self._answer = time.perf_counter()
            try:
                answer = inner(*arguments, **settings)
                self.decode_s += time.perf_counter() - self._answer
                self.decode_steps += max(0, self._steps - 1)
                self.tokens += answer.tokens
                return answer
            finally:
                self._answer, self._steps = None, 0

        return timed


@contextmanager
def watching(reader: Extractor) -> Iterator[Watch]:
    """Times the steps and answers of a reader, under whatever constraint, while it lasts; one reader at a time."""
    watch = Watch(reader)
    model: Any = getattr(reader.backend, "llama", reader.backend)  # llama-cpp-python's own object calls itself
    step, row = model.eval, reader.constraint
    model.eval, reader.constraint = watch.step(step), replace(row, decode=watch.answer(row.decode))
    try:
        yield watch
    finally:
        model.eval, reader.constraint = step, row


def warm_up(reader: Extractor, documents: Sequence[Document]) -> None:
    """Read documents for what is done once only: the instruction, the threads, the states of a grammar."""
    for document in documents:
        _attempt(reader, document)


def read(reader: Extractor, documents: Sequence[Document], between: Callable[[], object]) -> Watch:
    """Read documents against the clock, calling `between` after each.

    One that cannot be read is left out, whatever it raises; `unread` has its id. Raises InputError where none can be.
    """
    failure: Exception = InputError("there is none")
    with watching(reader) as watch:
        for document in documents:
            if failed := _attempt(watch.document, document):
                failure = failed
                watch.unread.append(document.id)
            between()
    if not watch.found:
        raise InputError(
            f"none of {len(documents)} documents can be read, so none is timed; the last: {describe_error(failure)}"
        )
    return watch


def _attempt(action: Callable[[Document], object], document: Document) -> Exception | None:
    try:
        action(document)
    except Exception as error:
        return error
    return None


def figures(watch: Watch) -> dict[str, Any]:
    """What the line of a repetition has of speed; None for what did not occur."""
    seconds = sum(watch.latencies_s)
    answers = sum(extraction.answers for extraction in watch.found)
    tokens, chosen = sum(e.tokens for e in watch.found), sum(e.chosen for e in watch.found)
    return {
        "documents": len(watch.found),
        "unread": watch.unread,
        "seconds": seconds,
        "ttft_s": median(watch.ttfts_s) if watch.ttfts_s else None,
        "latencies_s": watch.latencies_s,
        "prefill_tokens_per_s": _share(watch.prefill_tokens, watch.prefill_s),
        "decode_tokens_per_s": _share(watch.tokens, watch.decode_s),
        "documents_per_s": _share(len(watch.found), seconds),
        "calls_per_answer": _share(sum(e.calls for e in watch.found), answers),
        "tokens_per_answer": _share(tokens, answers),
        "forced_share": _share(tokens - chosen, tokens),
    }


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None
