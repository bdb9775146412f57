"""The constraint of BIO formats: the text's tokens, a line each, with tags that may follow one another."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

from bioner_edge.decoding.slots import Literals, SlotAutomaton

__all__ = ["TokenTags"]

_OUTSIDE = -1


class TokenTags(SlotAutomaton):
    """`tokens` as they are written, each followed by a tab and O, B-TYPE, or I-TYPE behind a tag of the same type.

    A place is (kind, number of the token, type of the mention that the token before was in).
    """

    def __init__(self, tokens: Sequence[bytes], types: Sequence[bytes]) -> None:
        self._tokens = b"\n".join(tokens)  # no token holds a line break; one string is a fraction of a list's size
        self._edges = array("i", [0])
        for token in tokens:
            self._edges.append(self._edges[-1] + len(token) + 1)
        self._types = types
        super().__init__(("token", 0, _OUTSIDE))

    def _line(self, number: int) -> bytes:
        """A token and its tab, the line break before it included."""
        token = self._tokens[self._edges[number] : self._edges[number + 1] - 1]
        return (b"\n" if number else b"") + token + b"\t"

    def slot(self, place: Any) -> Literals | None:
        kind, number, inside = place
        if number == len(self._edges) - 1:
            return None
        if kind == "token":
            return Literals([(self._line(number), ("tag", number, inside))])
        tags = [(b"O", _OUTSIDE), *((b"B-" + name, n) for n, name in enumerate(self._types))]
        if inside != _OUTSIDE:
            tags.append((b"I-" + self._types[inside], inside))
        return Literals([(tag, ("token", number + 1, after)) for tag, after in tags])

    def ending(self, place: Any) -> bytes:
        kind, number, _ = place
        rest = b"O".join([*(self._line(n) for n in range(number + (kind == "tag"), len(self._edges) - 1)), b""])
        return b"O" + rest if kind == "tag" else rest
