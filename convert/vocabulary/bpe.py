"""Byte-pair merging of single tokens in Python: how a token is formed, and whether scores can replace merge ranks.

Where a text contains a token, no merge crossed the token's borders, so it merged as it does alone: how a token is
formed does not depend on the text around it. All proofs here rest on that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from bioner_edge.convert.vocabulary.tokenizer_json import Merge

__all__ = ["Rank", "merges_of", "scores"]

Rank = Callable[[Merge], float | None]
"""The rank of a pair (the lowest merges first); None where it does not merge."""


def merges_of(token: str, rank: Rank) -> list[Sequence[str]]:
    """How `token` merges by itself: its characters, then the symbols after each merge."""
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
    """A score for each token by which merging is the same as by rank; None where there are no such scores.

    SentencePiece merges by score: it joins any adjacent symbols that spell a token, the highest score first, for the
    same token the leftmost. A token is formed in one way only, the one in which it merges alone. So the negated rank of
    its last merge is a score that gives the same order; and there are no scores where a token's text ends as two
    symbols, since by score they would be joined.
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
