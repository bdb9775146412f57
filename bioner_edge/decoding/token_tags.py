"""The grounded constraint of BIO formats: the tokens of the text, one per line, with valid sequences of tags."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

from bioner_edge.decoding.slots import Literals, SlotAutomaton

__all__ = ["TokenTags"]

_OUTSIDE = -1


class TokenTags(SlotAutomaton):
    """`tokens` (escaped), each followed by a tab and O, B-TYPE, or, after a tag of the same type, I-TYPE.

    A place is (kind, index of the token, type of the mention around the previous token or -1).
    """

    def __init__(self, tokens: Sequence[bytes], types: Sequence[bytes]) -> None:
        self._tokens = b"\n".join(tokens)  # no token contains a line break; one string is far smaller than a list
        self._edges = array("i", [0])
        for token in tokens:
            self._edges.append(self._edges[-1] + len(token) + 1)
        self._types = types
        super().__init__(("token", 0, _OUTSIDE))

    def _line(self, number: int) -> bytes:
        """A token with its tab, and the line break before it."""
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
