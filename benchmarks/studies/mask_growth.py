"""How the time and memory of a grounded constraint grow with the length of the document; see `studies.constraints`."""

from __future__ import annotations

import signal
import time
import tracemalloc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from bioner_edge import formats
from bioner_edge.benchmarks.studies.mask_timing import Player, Row, mask_maker, walk
from bioner_edge.decoding.token_masks import TokenMask
from bioner_edge.document import Document, Entity

__all__ = ["growth", "joined"]

_LIMIT_S = 60.0  # for one measurement


def joined(documents: Sequence[Document], size: int) -> Document:
    """Documents joined, repeated where too few, up to `size` characters."""
    text, entities = "", list[Entity]()
    while len(text) < size:
        for document in documents:
            entities += [e.shifted(len(text)) for e in document.entities]
            text += document.text + "\n"
            if len(text) >= size:
                break
    return Document(f"{size}", text[:size], tuple(e for e in entities if e.end <= size))


def growth(
    player: Player, name: str, labels: Sequence[str], document: Document, limit_s: float = _LIMIT_S
) -> dict[str, Any]:
    """Build, query before each token of the gold answer, step; then again under tracemalloc. `failed`: what took too
    long."""
    form, row = formats.get(name), Row(name, "grounded")
    asked = form.questions(labels)[0]
    found: dict[str, Any] = {"format": name, "characters": len(document.text)}
    try:
        with _time_limit(limit_s):
            tokens = player.tokenize(form.render(document, asked).encode(), False)
            mask = mask_maker(player, asked, row, row.tokens)(document)
            started = time.perf_counter()
            walk(mask, tokens)
            found["walk_s"] = round(time.perf_counter() - started, 3)
        found |= {"build_ms": round(row.build_ns[0] / 1e6, 2), "tokens": row.tokens.figures()}
        del mask
        with _time_limit(limit_s):
            tracemalloc.start()
            try:
                walk(TokenMask(form.constraint(document, asked), player.vocabulary), tokens)
                peak_bytes = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
        found["peak_bytes_per_byte"] = round(peak_bytes / len(document.text.encode()), 1)
    except TimeoutError:
        found["failed"] = f"> {limit_s:g} s"
    return found


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the main thread once the time is over."""

    def over(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
