"""Split a text into chunks for prompts: single sentences, or as many as fit; only white space is left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from bioner_edge.document import Span
from bioner_edge.text.sentences import sentences
from bioner_edge.text.tokens import tokens

__all__ = ["chunks"]


def chunks(
    text: str, count: Callable[[str], int], limit: int, *, unit: str = "sentence", title_end: int | None = None
) -> Iterator[Span]:
    """Split a text into spans of at most `limit` tokens, leaving out nothing but white space.

    `count` counts the tokens, at most 18 per character. `unit` is "sentence", or "document" for as many whole sentences
    as fit. A sentence longer than the limit is cut between words, a longer word anywhere.
    """
    parts = (p for s in sentences(text, cut=title_end) for p in _split_to_fit(text, s, count, limit))
    if unit == "sentence":
        yield from parts
        return
    held: Span | None = None
    for part in parts:
        joined = Span(held.start, part.end) if held else part
        # A character has at most four bytes and a token at least one; with the longest answer that makes 18 tokens.
        if held is None or joined.end - joined.start <= limit // 18 or count(text[joined.start : joined.end]) <= limit:
            held = joined
        else:
            yield held
            held = part
    if held:
        yield held


def _split_to_fit(text: str, span: Span, count: Callable[[str], int], limit: int) -> Iterator[Span]:
    """Cut `span` into pieces within the limit."""
    start = span.start
    while start < span.end:
        window = span.end
        if window - start > 8 * limit:  # so that a text of a million characters is not counted whole repeatedly
            window = _cut_before(text, start, start + 8 * limit)
        while count(text[start:window]) > limit:
            window = _cut_before(text, start, window)
        yield Span(start, window)
        start = window
        while start < span.end and text[start].isspace():
            start += 1


def _cut_before(text: str, start: int, end: int) -> int:
    """An offset before `end` to cut at: after white space, else after a token, else anywhere."""
    target = start + (end - start) * 3 // 4
    for at in range(target, start + (target - start) // 2, -1):
        if text[at].isspace():
            return at
    for left in (max(start, target - 64), start):  # nearby first: scripts without spaces have a token per character
        edges = [left + t.end for t in tokens(text[left:target]) if left + t.end < target]
        if edges:
            return edges[-1]
    return max(start + 1, target)
