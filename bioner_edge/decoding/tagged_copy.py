"""The constraint of tag formats: exactly the text, with tags that open and close at the edges of tokens."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Sequence
from itertools import accumulate

from .automaton import ByteAutomaton

__all__ = ["TaggedCopy"]

_State = tuple[int, tuple[int, ...], int, bytes]
"""(bytes of the escaped text written, open tags, bit mask of the types opened right here, part of a tag written)."""


class TaggedCopy(ByteAutomaton):
    """A copy of `characters`, each as it is written, with tags between them; tag n is `opening[n]` … `closing[n]`.

    A tag opens at one of `starts` and closes at one of `ends` (offsets in characters), encloses at least one
    character, and opens at most once at one position; tags nest. A tag may begin with bytes that the text can have
    there too, as long as its second byte tells them apart: so it is with the `<` that no tag's name follows.
    """

    def __init__(
        self,
        characters: Sequence[str],
        starts: Collection[int],
        ends: Collection[int],
        opening: Sequence[bytes],
        closing: Sequence[bytes],
    ) -> None:
        written = [c.encode() for c in characters]
        self.text = b"".join(written)
        offsets = [0, *accumulate(map(len, written))]
        self.starts = frozenset(offsets[s] for s in starts)
        self.ends = frozenset(offsets[e] for e in ends)
        self.edges = sorted(self.starts | self.ends)
        self.last_end = max(self.ends, default=-1)
        self.opening = opening
        self.closing_tags = closing
        self.start: _State = (0, (), 0, b"")

    def _tags(self, state: _State) -> list[tuple[bytes, _State]]:
        """The tags that may stand here, each with the state after it."""
        position, stack, opened, _ = state
        tags: list[tuple[bytes, _State]] = []
        if stack and not opened and position in self.ends:
            tags.append((self.closing_tags[stack[-1]], (position, stack[:-1], 0, b"")))
        if position in self.starts:
            for n, tag in enumerate(self.opening):
                if not opened >> n & 1:
                    tags.append((tag, (position, (*stack, n), opened | 1 << n, b"")))
        return tags

    def _copies(self, state: _State) -> bool:
        """Whether the text may go on: there is some, and a right edge is left for the tags that are open."""
        position, stack, _, _ = state
        return position < len(self.text) and (not stack or position < self.last_end)

    def _is_text(self, part: bytes, position: int) -> bool:
        """Whether what looked like a tag's first byte can have been the text's own."""
        return len(part) == 1 and self.text[position : position + 1] == part

    def options(self, state: _State) -> Collection[int]:
        position, stack, _, part = state
        if not part and position not in self.starts and position not in self.ends:
            return (self.text[position],) if position < len(self.text) else ()
        found = {tag[len(part)] for tag, _ in self._tags(state) if tag.startswith(part)}
        if self._copies(state):
            if not part:
                found.add(self.text[position])
            elif self._is_text(part, position):
                found.update(self.options((position + 1, stack, 0, b"")))
        return found

    def step(self, state: _State, byte: int) -> _State | None:
        position, stack, _, part = state
        if part or position in self.starts or position in self.ends:
            longer = part + bytes((byte,))
            for tag, after in self._tags(state):
                if tag == longer:
                    return after
                if tag.startswith(longer):
                    return (*state[:3], longer)
        if not self._copies(state):
            return None
        if self._is_text(part, position):
            return self.step((position + 1, stack, 0, b""), byte)
        if not part and self.text[position] == byte:
            return position + 1, stack, 0, b""
        return None

    def accepts(self, state: _State) -> bool:
        position, stack, _, part = state
        return not stack and self.text[position:] == part

    def forced(self, state: _State) -> bytes:
        position, _, _, part = state
        if not part and position not in self.starts and position not in self.ends:
            edge = bisect_right(self.edges, position)  # nothing can be chosen before the next edge
            until = self.edges[edge] if edge < len(self.edges) else len(self.text)
            return self.text[position:until] + super().forced((until, state[1], 0, b""))
        return super().forced(state)

    def closing(self, state: _State) -> bytes:
        written = bytearray()
        while not self.accepts(state):
            position, stack, _, part = state
            fitting = [(tag, after) for tag, after in self._tags(state) if tag.startswith(part)]
            if (
                stack and fitting and fitting[0][0] == self.closing_tags[stack[-1]]
            ):  # close what is open, as soon as it can be
                tag, state = fitting[0]
                written += tag[len(part) :]
            elif self._copies(state) and (not part or self._is_text(part, position)):
                written += self.text[position + len(part) : position + 1]
                state = (position + 1, stack, 0, b"")
            else:
                tag, state = min(fitting, key=lambda pair: len(pair[0]))
                written += tag[len(part) :]
        return bytes(written)
