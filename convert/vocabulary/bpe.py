"""Byte-pair merging in Python, for one token at a time: how it comes about, and what scores can say of merges.

Where a text holds a token, no merge has crossed the token's borders, so its inside merged as it does alone: the way in
which a token is made does not depend on the text around it. All that is proved here rests on that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from bioner_edge.convert.vocabulary.tokenizer_json import Merge

__all__ = ["Rank", "merges_of", "scores"]

Rank = Callable[[Merge], float | None]
"""The rank of a pair, the lowest is merged first; None where it is not merged."""


def merges_of(token: str, rank: Rank) -> list[Sequence[str]]:
    """How `token` merges by itself: its characters, then the symbols after each merge, to the last."""
    symbols = list(token)
    ranks = [rank(pair) for pair in pairwise(symbols)]
    found: list[Sequence[str]] = [tuple(symbols)]
    while (lowest := min((r for r in ranks if r is not None), default=None)) is not None:
        at = ranks.index(lowest)  # the leftmost of the same rank
        symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]
        before = [rank((symbols[at - 1], symbols[at]))] if at else []
        behind = [rank((symbols[at], symbols[at + 1]))] if at + 1 < len(symbols) else []
        ranks[max(at - 1, 0) : at + 2] = before + behind
        found.append(tuple(symbols))
    return found


def scores(merges: Sequence[Merge], tokens: Sequence[str]) -> list[float] | None:
    """A score for each token by which merging is the same as by rank; None where no scores are.

    Merging by score, as SentencePiece does it, joins any neighbours that spell a token: the highest score first, of the
    same token the leftmost. What spells a token is made in one way only, the one in which the token is made alone. So
    the rank of its last merge, turned round, is a score that gives the same order, and there is none where a token's
    text ends as two symbols: by score they would be joined.
    """
    ranks = {pair: float(rank) for rank, pair in enumerate(merges, start=1)}
    found = []
    for token in tokens:
        states = merges_of(token, ranks.get)
        if len(states[-1]) == 2:
            return None
        last = ranks[states[-2][0], states[-2][1]] if len(states) > 1 and len(states[-1]) == 1 else len(ranks) + 1
        found.append(-float(last))
    return found
