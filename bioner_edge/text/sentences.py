"""Split a text into sentences, by rules for abstracts and clinical notes; sentences have no white space at their edges.

Every non-space character is in exactly one sentence, so that nothing is lost. A missing split only makes a chunk
longer, while a wrong one may cut a mention: doubtful places do not split. A line break inside a paragraph, as in
hard-wrapped text, counts as a space.
"""

from __future__ import annotations

import re
from collections.abc import Set
from itertools import pairwise

from bioner_edge.document import Document, Entity, Span

__all__ = ["cut_out", "sentences", "split_sentences", "unwrap"]

# A stop with its closing quotes or brackets, white space, and a possible sentence start; an ideographic full stop;
# an empty line; the end of a line after a stop or colon; before a line that begins like a list item.
# The look-behinds keep it linear: a run of stops or white space is tried once, not from each of its characters.
_BREAK = re.compile(
    r"""(?P<stop>(?<![.!?])[.!?]++["')\]\u201d\u2019]*+)\s++(?=["'(\[\u201c\u2018]*+[A-Z0-9\u00c0-\u00de\u0391-\u03a9])
      | (?<=[。！？])(?![」』）。！？])
      | (?<!\s)\s*\n\s*\n\s*
      | (?P<line>(?<=[.:;!?])[ \t]*\r?\n\s*)
      | \r?\n\s*(?=[-*\u2022]\s)""",
    re.VERBOSE,
)
_ABBREVIATION = re.compile(
    # initials and genera (E. coli), abbreviations with inner stops (e.g., U.S., i.v., b.i.d.)
    r"(?:^|[\s(\[/])(?:[A-Z]|(?:[A-Za-z]\.)+[A-Za-z]|"
    # Latin, references, titles, companies
    r"(?:[Vv]s|[Vv]|cf|al|etc|approx|ca|Drs?|Mrs?|Ms|Prof|St|Figs?|figs?|Refs?|refs?|Eqs?|Tabs?|Secs?|Suppl|"
    r"Nos?|nos?|Vols?|vols?|pp?|eds?|resp|incl|excl|est|Inc|inc|Ltd|Co|Corp|Jr|Sr|viz|et seq|"
    # taxa
    r"spp?|s?sp|ssp|subspp?|subg|gen|var|str|bv|sv|pv|cv|nov|"
    # measures
    r"min|max|avg|wt|wts|vol|conc|temp|hrs?|secs?|mins?|wks?|mos?|yrs?|"
    # clinical notes
    r"[Pp]ts?|[Vv]it|[Dd]x|[Rr]x|[Tt]x|[Hh]x|[Ff]x|[Ss]x|tabs?|caps?|inj|susp|[Ss]ol|oint|supp|gtts?|dept|hosp|adm|w/w|w/v|v/v))$"
)
_MAX_ABBREVIATION = 12  # characters, with the one before it
_WIDTH = 30  # characters: a paragraph of shorter lines was written line by line, not wrapped
_ITEM = re.compile(r"[-*\u2022]\s")
_SOFT = re.compile(r"(?<=\S)[^\S\n]*+\n[^\S\n]*+(?=\S)(?![-*\u2022]\s)")
_BLANKS = str.maketrans("\r\n", "  ")


def sentences(text: str, *, cut: int | None = None) -> list[Span]:
    """The sentences of `text` in order; `cut` is an additional sentence end (that of a title)."""
    wraps = _wraps(text)
    ends = [m.end() for m in _BREAK.finditer(text) if not _goes_on(text, m, wraps)]
    if cut is not None and 0 < cut < len(text):
        ends = sorted({*ends, cut})
    edges = [0, *ends, len(text)]
    pieces = (_trim(text, a, b) for a, b in pairwise(edges))
    return [span for span in pieces if span]


def unwrap(text: str) -> str:
    """Replace each character of a line break inside a paragraph by a space.

    Empty lines and breaks before list items stay. The length, and so all offsets, are unchanged.
    """
    return _SOFT.sub(lambda match: match.group().translate(_BLANKS), text)


def split_sentences(document: Document) -> list[Document]:
    """The sentences of a document as documents; an entity that crosses sentences is lost."""
    return [cut_out(document, span) for span in sentences(document.text, cut=document.title_end)]


def cut_out(document: Document, span: Span) -> Document:
    """A span of a document as a document, unwrapped as the model reads it, with the entities inside it, shifted."""
    inside = [e for e in document.entities if span.start <= e.start and e.end <= span.end]
    moved: list[Entity] = [e.shifted(-span.start) for e in inside]
    return Document(document.id, unwrap(document.text[span.start : span.end]), tuple(moved))


def _goes_on(text: str, match: re.Match[str], wraps: Set[int]) -> bool:
    """Whether the sentence continues after a match: the stop is an abbreviation's, or the line was wrapped.

    Before an empty line or a list item, it never does.
    """
    if match[0].count("\n") > 1 or not (match["line"] or match["stop"] == "."):
        return False
    at = match.start()
    if match["line"]:
        if _ITEM.match(text, match.end()):
            return False
        if text.index("\n", at) in wraps:
            return True
        at -= 1
    return text[at] == "." and bool(_ABBREVIATION.search(text[max(0, at - _MAX_ABBREVIATION) : at]))


def _wraps(text: str) -> Set[int]:
    """The line feeds that wrap a paragraph: it has long lines, and the next word would have exceeded the longest."""
    found: set[int] = set()
    paragraph: list[tuple[int, int, int]] = []  # of each line its end, its length, and that of its first word
    at = 0
    for line in [*text.split("\n"), ""] if "\n" in text else ():
        at += len(line) + 1
        if words := line.split(maxsplit=1):
            paragraph.append((at - 1, len(line.rstrip()), len(words[0])))
            continue
        width = max((size for _, size, _ in paragraph), default=0)
        if width >= _WIDTH:
            found.update(end for (end, size, _), (_, _, word) in pairwise(paragraph) if size + 1 + word > width)
        paragraph = []
    return found


def _trim(text: str, start: int, end: int) -> Span | None:
    """[start, end) without white space at its edges; None if it holds nothing else."""
    piece = text[start:end]
    start += len(piece) - len(piece.lstrip())
    return Span(start, start + len(piece.strip())) if piece.strip() else None
