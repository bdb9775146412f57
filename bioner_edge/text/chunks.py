"""How much text one prompt holds: a sentence, or as many sentences as fit; every character is in exactly one chunk."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from bioner_edge.document import Span
from bioner_edge.text.sentences import sentences
from bioner_edge.text.tokens import tokens

__all__ = ["chunks"]


def chunks(
    text: str, count: Callable[[str], int], limit: int, *, unit: str = "sentence", title_end: int | None = None
) -> Iterator[Span]:
    """Stretches of at most `limit` tokens (as `count` counts them, no more than 18 for a character) that leave out
    nothing but white space.

    `unit` is "sentence", or "document" for as many whole sentences as fit. A sentence longer than the limit is cut
    between words, a word longer than it where it must be.
    """
    parts = (p for s in sentences(text, cut=title_end) for p in _fitting(text, s, count, limit))
    if unit == "sentence":
        yield from parts
        return
    held: Span | None = None
    for part in parts:
        joined = Span(held.start, part.end) if held else part
        # A character has four bytes at most and a token one at least; with the longest answer that makes 18 tokens.
        if held is None or joined.end - joined.start <= limit // 18 or count(text[joined.start : joined.end]) <= limit:
            held = joined
        else:
            yield held
            held = part
    if held:
        yield held


def _fitting(text: str, span: Span, count: Callable[[str], int], limit: int) -> Iterator[Span]:
    """`span` cut into stretches within the limit."""
    start = span.start
    while start < span.end:
        window = span.end
        if window - start > 8 * limit:  # so that a text of a million characters is not counted whole, again and again
            window = _earlier(text, start, start + 8 * limit)
        while count(text[start:window]) > limit:
            window = _earlier(text, start, window)
        yield Span(start, window)
        start = window
        while start < span.end and text[start].isspace():
            start += 1


def _earlier(text: str, start: int, end: int) -> int:
    """A place to cut nearer to `start`: after white space, else after a token, else in the middle."""
    target = start + (end - start) * 3 // 4
    for at in range(target, start + (target - start) // 2, -1):
        if text[at].isspace():
            return at
    for left in (max(start, target - 64), start):  # nearby first: a script without spaces has a token a character
        edges = [left + t.end for t in tokens(text[left:target]) if left + t.end < target]
        if edges:
            return edges[-1]
    return max(start + 1, target)
