"""Sentence ends, by rules that hold for abstracts and clinical notes; no white space is left in a sentence's edges.

Every character that is not white space lies in exactly one sentence, so that what is read sentence by sentence is
read whole. A split too few costs a longer chunk, a split too many may cut a mention: doubtful places do not split.
"""

from __future__ import annotations

import re
from itertools import pairwise

from .span import Span

__all__ = ["sentences"]

# A stop with its closing quotes or brackets, white space, then what can open a sentence; an ideographic full
# stop; an empty line; a line that ends like a heading or an item and is followed by one that starts anew.
# The look-behinds keep it linear: a run of stops or of white space is tried once, not from each of its characters.
_BREAK = re.compile(
    r"""(?P<stop>(?<![.!?])[.!?]++["')\]\u201d\u2019]*+)\s++(?=["'(\[\u201c\u2018]*+[A-Z0-9\u00c0-\u00de\u0391-\u03a9])
      | (?<=[。！？])(?![」』）。！？])
      | (?<!\s)\s*\n\s*\n\s*
      | (?<=[.:;!?])[ \t]*\r?\n\s*
      | \r?\n\s*(?=[-*\u2022]\s)""",
    re.VERBOSE,
)
_ABBREVIATION = re.compile(
    r"(?:^|[\s(\[])(?:[A-Z]|e\.g|i\.e|vs|cf|al|etc|approx|ca|Dr|Drs|Mr|Mrs|Ms|Prof|St|Figs?|Refs?|Eqs?|Nos?|Vol|pp?|"
    r"sp|spp|subsp|var|str|resp|incl|min|max|wt|inc|Inc|Ltd|Co|Corp|U\.S|U\.K|i\.v|i\.p|i\.m|s\.c|p\.o|b\.i\.d|t\.i\.d|q\.d)$"
)


def sentences(text: str, *, cut: int | None = None) -> list[Span]:
    """The sentences of `text` in order; `cut` is one more place where a sentence ends (a title's end)."""
    ends = [m.end() for m in _BREAK.finditer(text) if not (m["stop"] and _after_abbreviation(text, m))]
    if cut is not None and 0 < cut < len(text):
        ends = sorted({*ends, cut})
    edges = [0, *ends, len(text)]
    pieces = (_trimmed(text, a, b) for a, b in pairwise(edges))
    return [span for span in pieces if span]


def _after_abbreviation(text: str, match: re.Match[str]) -> bool:
    """Whether the stop is an abbreviation's own; before an empty line it ends the sentence all the same."""
    if match["stop"] != "." or match[0].count("\n") > 1:
        return False
    return bool(_ABBREVIATION.search(text[max(0, match.start() - 12) : match.start()]))


def _trimmed(text: str, start: int, end: int) -> Span | None:
    """[start, end) without white space at its edges; None where nothing else is in it."""
    piece = text[start:end]
    start += len(piece) - len(piece.lstrip())
    return Span(start, start + len(piece.strip())) if piece.strip() else None
