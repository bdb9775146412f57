"""Tokens and boundaries: where a mention may start and end.

A token is a run of letters, digits, combining marks and underscores; or one other non-space character; or one
character of a script written without spaces (Han, Kana, Thai, Lao, Khmer, Burmese). A boundary is the edge of a token.
Hyphens are separate tokens: as word characters they would cost four points of F1 on BC5CDR.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from bioner_edge.document import Span

__all__ = ["boundaries", "tokens"]

# Han, Kana, Thai, Lao, Khmer, Burmese: blocks of the Unicode character database.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u19e0-\u19ff\ua9e0-\ua9ff\uaa60-\uaa7f"
    "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3031-\u3035\u3038-\u303b\u3041-\u30ff\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f"
    "\U0001aff0-\U0001b16f\U00020000-\U000323af"
)
_ONE_UNSPACED = re.compile(f"[{_UNSPACED}]")  # their vowel signs too stand alone, whatever comes before


@lru_cache(maxsize=256)
def _pattern(marks: str) -> re.Pattern[str]:
    mark = f"|[{re.escape(marks)}]" if marks else ""
    return re.compile(rf"[{_UNSPACED}]|(?:[^\W{_UNSPACED}]{mark})+|\S")


def tokens(text: str) -> list[Span]:
    """The tokens of `text`, in order."""
    # `re` has no class for combining marks, so those in the text are listed in the pattern.
    seen = "" if text.isascii() else "".join(sorted(set(text)))
    marks = "".join(c for c in seen if unicodedata.category(c)[0] == "M" and not _ONE_UNSPACED.match(c))
    return [Span(m.start(), m.end()) for m in _pattern(marks).finditer(text)]


def boundaries(text: str) -> tuple[frozenset[int], frozenset[int]]:
    """Where a mention may start, and where it may end: the left and the right edges of the tokens."""
    found = tokens(text)
    return frozenset(t.start for t in found), frozenset(t.end for t in found)
