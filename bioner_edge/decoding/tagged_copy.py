"""The grounded constraint of tag formats: exactly the text, with tags that open and close at token boundaries."""

from __future__ import annotations

from collections.abc import Collection, Sequence, Set

from bioner_edge.decoding.automaton import ByteAutomaton
from bioner_edge.decoding.suffix_array import byte_offsets

__all__ = ["TaggedCopy"]

_State = tuple[int, tuple[int, ...], int, bytes]
"""(bytes of the escaped text written, open tags, bit mask of the types opened at this position, partial tag)."""


class TaggedCopy(ByteAutomaton):
    """A copy of `characters` (escaped) with tags between them; tag n is `opening[n]` … `closing[n]`.

    A tag opens at one of `starts` and closes at one of `ends` (offsets in characters), encloses at least one character,
    and opens at most once at a position; tags nest. Text and tag may begin with the same byte as long as the second one
    tells them apart, as with a `<` of the text.
    """

    def __init__(
        self,
        characters: Sequence[str],
        starts: Collection[int],
        ends: Collection[int],
        opening: Sequence[bytes],
        closing: Sequence[bytes],
    ) -> None:
        offsets = byte_offsets(characters)
        self.text = "".join(characters).encode()
        # A byte for each position, 1 where a tag may open, close, or either; a set would be many times larger.
        self.is_start, self.is_end, self.is_edge = (bytearray(len(self.text) + 1) for _ in range(3))
        for places, marked in ((starts, self.is_start), (ends, self.is_end)):
            for place in places:
                marked[offsets[place]] = self.is_edge[offsets[place]] = 1
        self.last_end = self.is_end.rfind(1)
        self.opening = opening
        self.closing_tags = closing
        self.start: _State = (0, (), 0, b"")

    def _tags(self, state: _State) -> list[tuple[bytes, _State]]:
        """The tags allowed here, each with the state after it."""
        position, stack, opened, _ = state
        tags: list[tuple[bytes, _State]] = []
        if stack and not opened and self.is_end[position]:
            tags.append((self.closing_tags[stack[-1]], (position, stack[:-1], 0, b"")))
        if self.is_start[position]:
            for n, tag in enumerate(self.opening):
                if not opened >> n & 1:
                    tags.append((tag, (position, (*stack, n), opened | 1 << n, b"")))
        return tags

    def _copies(self, state: _State) -> bool:
        """Whether the text may continue: some is left, and the open tags can still be closed further right."""
        position, stack, _, _ = state
        return position < len(self.text) and (not stack or position < self.last_end)

    def _is_text(self, part: bytes, position: int) -> bool:
        """Whether the first byte of a partial tag can be the text's own."""
        return len(part) == 1 and self.text[position : position + 1] == part

    def options(self, state: _State) -> Set[int]:
        position, stack, _, part = state
        if not part and not self.is_edge[position]:
            return {self.text[position]} if position < len(self.text) else set()
        found = {tag[len(part)] for tag, _ in self._tags(state) if tag.startswith(part)}
        if self._copies(state):
            if not part:
                found.add(self.text[position])
            elif self._is_text(part, position):
                found.update(self.options((position + 1, stack, 0, b"")))
        return found

    def step(self, state: _State, byte: int) -> _State | None:
        position, stack, _, part = state
        if part or self.is_edge[position]:
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

    def stretch(self, state: _State) -> tuple[bytes, _State]:
        position, stack, _, part = state
        if part or self.is_edge[position]:
            return b"", state
        until = self._next_edge(position)
        return self.text[position:until], (until, stack, 0, b"")

    def _next_edge(self, position: int) -> int:
        """The next position with a choice."""
        edge = self.is_edge.find(1, position + 1)
        return edge if edge >= 0 else len(self.text)

    def accepts(self, state: _State) -> bool:
        position, stack, _, part = state
        return not stack and self.text[position:] == part

    def forced(self, state: _State) -> bytes:
        position, _, _, part = state
        if not part and not self.is_edge[position]:
            until = self._next_edge(position)
            return self.text[position:until] + super().forced((until, state[1], 0, b""))
        return super().forced(state)

    def neutral(self, state: _State) -> bytes | None:
        """The rest of the text: copying asserts nothing."""
        position, _, _, part = state
        return None if self.in_mention(state) else self.text[position + len(part) :]

    def in_mention(self, state: _State) -> bool:
        position, stack, _, part = state
        return bool(stack or (part and not self._is_text(part, position)))

    def without_mention(self, before: _State, state: _State) -> bytes:
        """The text up to the next edge: before it the same tag could be opened again."""
        begin = before[0] + len(before[3])
        return self.text[begin : self._next_edge(max(begin, state[0]))]

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
