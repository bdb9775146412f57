"""Speed of extraction: model steps and whole answers, timed from outside, so that the core has no timing code.

    document  |-- chunks, tokens, constraint --| prompt | step  step  step … | reading the answer | next chunk …
    ttft_s    |----------------------------------------|                       of its first answer
    prefill                                    |--------|
    decode                                              |--------------------|

Prefill is the steps up to the one that reads the end of a prompt, including forced tokens read in that step. Decoding
is the wall time from there to the end of the answer, including constraint, choice and our own Python. Forced tokens
count as written, since they are part of the answer; `forced_share` is their share. Timing costs two clock readings and
two additions per step, under a microsecond.
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

__all__ = ["Watch", "figures", "read", "warm_up", "watch_reader"]


@dataclass(slots=True)
class Watch:
    """Timings of a reader. Seconds are by `time.perf_counter`."""

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
    _document: float | None = None  # start time, None once its first prompt is read
    _answer: float | None = None  # start of its decoding, None outside an answer
    _steps: int = 0  # of this answer

    def document(self, document: Document) -> None:
        """Read a document. Raises what the reader raises; its steps until then count, the document does not."""
        self._document = started = time.perf_counter()
        extraction = self.reader(document)
        self.latencies_s.append(time.perf_counter() - started)
        self.found.append(extraction)

    def step(self, inner: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a step of the model, whose last argument is the tokens that it reads."""

        def timed(*arguments: Any) -> Any:
            count, started = len(arguments[-1]), time.perf_counter()
            result = inner(*arguments)
            if self._steps:
                self._steps += 1
            else:
                self._end_prefill(started, count)
            return result

        return timed

    def _end_prefill(self, started: float, count: int) -> None:
        ended = time.perf_counter()
        self.prefill_s += ended - started
        self.prefill_tokens += count
        if self._answer is not None:  # otherwise it is a prefix that several prompts share
            self._answer, self._steps = ended, 1
            if self._document is not None:
                self.ttfts_s.append(ended - self._document)
                self._document = None

    def answer(self, inner: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a function that decodes an answer and returns an `Answer`."""

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
def watch_reader(reader: Extractor) -> Iterator[Watch]:
    """Time the steps and answers of a reader, under any constraint; one reader at a time."""
    watch = Watch(reader)
    model: Any = getattr(reader.backend, "llama", reader.backend)  # llama-cpp-python's object calls its own methods
    step, row = model.eval, reader.constraint
    model.eval, reader.constraint = watch.step(step), replace(row, decode=watch.answer(row.decode))
    try:
        yield watch
    finally:
        model.eval, reader.constraint = step, row


def warm_up(reader: Extractor, documents: Sequence[Document]) -> None:
    """Read documents for one-time costs: the instruction, the threads, the states of a grammar."""
    for document in documents:
        _attempt(reader, document)


def read(reader: Extractor, documents: Sequence[Document], between: Callable[[], object]) -> Watch:
    """Time the reading of documents, calling `between` after each.

    A document that cannot be read is skipped, whatever it raises; `unread` has its id. Raises InputError where none can
    be.
    """
    failure: Exception = InputError("there is none")
    with watch_reader(reader) as watch:
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
    """The speed figures of a repetition; None for what did not occur."""
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
