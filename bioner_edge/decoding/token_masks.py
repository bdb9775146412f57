"""Token masks: which tokens of a vocabulary an automaton over bytes allows in a state.

The vocabulary is a trie of its pieces. Walking trie and automaton together visits only what both allow, so that a step
of a copy costs microseconds whatever the vocabulary size, and every tokenization of allowed bytes is allowed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bioner_edge.backends.contract import Backend
from bioner_edge.decoding.automaton import ByteAutomaton, State
from bioner_edge.decoding.suffix_array import Search, Searching, SuffixArray
from bioner_edge.errors import ModelError

__all__ = ["TokenMask", "Vocabulary"]

Ids = NDArray[np.int64]
_KEPT = 1 << 22  # cached ids over all states; each state counts as 64 more
_SEARCHES = 1024
_MANY = 64  # from this many tokens on, numpy filters faster than Python
_QUOTE = 0x22
_CONTINUATION = bytes(range(0x80, 0xC0))  # the bytes of a UTF-8 character after its first


class Vocabulary:
    """The pieces of a back end's tokens and their trie. Raises ModelError if some byte cannot be spelled."""

    def __init__(self, backend: Backend) -> None:
        self.pieces: list[bytes | None] = [backend.piece(t) for t in range(backend.vocabulary_size)]
        self.end_tokens = backend.end_tokens
        self.end_ids = np.array(sorted(backend.end_tokens), np.int64)
        self._tokenize = backend.tokenize
        self.children: list[dict[int, int]] = [{}]  # node -> byte -> node
        self.ids: list[list[int]] = [[]]  # node -> the tokens that end there
        for token, piece in enumerate(self.pieces):
            if piece:
                self._insert(piece, token)
        missing = [b for b in range(256) if b not in self.children[0] or not self.ids[self.children[0][b]]]
        # Some vocabularies omit 0xC0, 0xC1 and 0xF5-0xFF, which never occur in UTF-8, and 0xF1 and 0xF2 (empty planes).
        if missing := [b for b in missing if b not in (0xC0, 0xC1, 0xF1, 0xF2) and b < 0xF5]:
            message = f"cannot spell the bytes {bytes(missing)!r}; it cannot copy every text"
            raise ModelError(f"the model's vocabulary {message}")
        if self.spell(backend.tokenize(b"a", False)) != b"a":  # SentencePiece may prepend a blank
            raise ModelError("the model's tokenizer changes its input; forced text cannot be fed to the model")

    def _insert(self, piece: bytes, token: int) -> None:
        node = 0
        for byte in piece:
            after = self.children[node].get(byte)
            if after is None:
                after = len(self.children)
                self.children[node][byte] = after
                self.children.append({})
                self.ids.append([])
            node = after
        self.ids[node].append(token)

    def spell(self, ids: Sequence[int]) -> bytes:
        """The bytes that the tokens write."""
        return b"".join(self.pieces[i] or b"" for i in ids)

    def byte(self, value: int) -> int:
        """A token that writes a single byte. Raises ModelError if there is none."""
        if not (ids := self.ids[self.children[0].get(value, 0)]):
            raise ModelError(f"the model's vocabulary cannot spell the byte {value:#x} of this text")
        return ids[0]

    def tokenize_bytes(self, data: bytes) -> list[int]:
        """The canonical tokens of bytes that may begin or end inside a character.

        Tokenizers read complete characters only. The rest of a character begun by an earlier token is spelled byte by
        byte; an incomplete character at the end is left out, since a single token may write it. Raises ModelError if a
        byte has no token.
        """
        rest = data.lstrip(_CONTINUATION)
        whole = rest.decode("utf-8", "ignore").encode()
        begun = [self.byte(byte) for byte in data[: len(data) - len(rest)]]
        return begun + (self._tokenize_text(whole) if whole else [])

    def _tokenize_text(self, text: bytes) -> list[int]:
        """The canonical tokens of complete characters. Those that the tokenizer would change (SentencePiece turns ▁
        into a space) are spelled in bytes."""
        ids = self._tokenize(text, False)
        if self.spell(ids) == text:
            return ids
        changed = {c for c in set(text.decode()) if not self._keeps(c.encode())}
        ids = []
        for strange, run in groupby(text.decode(), key=changed.__contains__):
            part = "".join(run).encode()
            whole = not strange and self._keeps(part)
            ids += self._tokenize(part, False) if whole else map(self.byte, part)
        return ids

    def _keeps(self, text: bytes) -> bool:
        """Whether the tokens of a text spell it."""
        return self.spell(self._tokenize(text, False)) == text


class TokenMask:
    """An automaton over a vocabulary's tokens. Allowed tokens are cached by state: keep one mask per automaton."""

    def __init__(self, automaton: ByteAutomaton, vocabulary: Vocabulary) -> None:
        self.automaton = automaton
        self.vocabulary = vocabulary
        self._allowed: dict[State, Ids] = {}
        self._kept = 0
        self._inside: dict[Search, _Inside] = {}
        if automaton.surfaces:  # every mention begins with this search, the widest
            self._search(automaton.surfaces, automaton.surfaces.root)

    def allowed(self, state: State) -> Ids:
        """The tokens that may come next, without end tokens."""
        found = self._allowed.get(state)
        if found is None:
            if self._kept >= _KEPT:  # a copy never returns to an earlier state
                self._allowed.clear()
                self._kept = 0
            searching = self.automaton.searching(state)
            found = self._walk(0, state) if searching is None else self._allowed_in_mention(searching)
            self._allowed[state] = found
            self._kept += len(found) + 64
        return found

    def _walk(self, start: int, state: State) -> Ids:
        """The tokens below a node of the trie that the automaton allows."""
        children, ids = self.vocabulary.children, self.vocabulary.ids
        options, step, stretch = self.automaton.options, self.automaton.step, self.automaton.stretch
        surfaces, searching = self.automaton.surfaces, self.automaton.searching
        found: list[int] = []
        open_nodes: list[tuple[int, State]] = [(start, state)]
        while open_nodes:
            node, at = open_nodes.pop()
            below = children[node]
            if not below:
                continue
            if surfaces and (search := at if isinstance(at, Searching) else searching(at)):
                for byte, after in _within(surfaces, search, below):
                    found += ids[below[byte]]
                    open_nodes.append((below[byte], after))
                continue
            sure, end = stretch(at)
            if sure:
                node = self._follow(node, sure, found)
                if node:
                    open_nodes.append((node, end))
                continue
            allowed = options(at)
            for byte in allowed if len(allowed) <= len(below) else allowed & below.keys():
                child = below.get(byte)
                if child is not None:
                    found += ids[child]
                    open_nodes.append((child, step(at, byte)))
        return np.array(found, np.int64)

    def _follow(self, node: int, data: bytes, found: list[int]) -> int:
        """The node after `data`, or 0 if the trie has none; the tokens on the way are added to `found`."""
        children, ids = self.vocabulary.children, self.vocabulary.ids
        for byte in data:
            node = children[node].get(byte, 0)
            if not node:
                break
            found += ids[node]
        return node

    def _allowed_in_mention(self, searching: Searching) -> Ids:
        """The tokens that may come next inside a mention: those that continue it, and those that end it."""
        assert self.automaton.surfaces is not None
        inside = self._inside.get(searching.at) or self._search(self.automaton.surfaces, searching.at)
        ending: list[int] = []
        for node, key in inside.endings:
            if key >= searching.floor:
                ending += self.vocabulary.ids[node]
                if self.vocabulary.children[node]:
                    ending += self._walk(node, searching.found(key)).tolist()
        if inside.arrays is not None:
            ids, highest = inside.arrays
            return np.concatenate([ids[highest >= searching.floor], np.array(ending, np.int64)])
        going_on = inside.ids
        if searching.floor > inside.lowest:
            going_on = [i for i, highest in zip(going_on, inside.highest, strict=True) if highest >= searching.floor]
        return np.array(going_on + ending, np.int64)

    def _search(self, surfaces: SuffixArray, start: Search) -> _Inside:
        """Walk the trie once for all states with this search, whatever their floor and what follows the mention."""
        children, ids, branches = self.vocabulary.children, self.vocabulary.ids, surfaces.branches
        found: list[int] = []
        highest: list[int] = []
        endings: list[tuple[int, int]] = []
        open_nodes = [(0, start)]
        while open_nodes:
            node, search = open_nodes.pop()
            below = children[node]
            if not below:
                continue
            quote = below.get(_QUOTE)
            if quote is not None and (key := surfaces.found(search)) is not None:
                endings.append((quote, key))
            stretch = surfaces.stretch(search)
            if not stretch:
                for byte, after in branches(search):
                    child = below.get(byte)
                    if child is not None:
                        if here := ids[child]:
                            found += here
                            highest += [surfaces.highest(after)] * len(here)
                        open_nodes.append((child, after))
                continue
            node = self._follow(node, stretch, found)
            highest += [surfaces.highest(search)] * (len(found) - len(highest))
            if node:
                low, high, length, last = search
                open_nodes.append((node, (low, high, length + len(stretch), last)))
        if len(self._inside) >= _SEARCHES:
            self._inside.clear()
        arrays = (np.array(found, np.int64), np.array(highest, np.int64)) if len(found) > _MANY else None
        inside = _Inside(found, highest, min(highest, default=0), endings, arrays)
        self._inside[start] = inside
        return inside

    def advance(self, state: State, data: bytes) -> State:
        """The state after `data`, which must be allowed."""
        for byte in data:
            state = self.automaton.step(state, byte)
        return state


def _within(surfaces: SuffixArray, searching: Searching, below: dict[int, int]) -> Iterator[tuple[int, State]]:
    """The bytes that may follow inside a mention and have a node below, each with the state or search after it."""
    at, floor, found = searching
    least = surfaces.least(floor)
    for byte, after in surfaces.branches(at):
        if byte in below and after[3] >= least:
            yield byte, Searching(after, floor, found)
    if _QUOTE in below and (key := surfaces.found(at)) is not None and key >= floor:
        yield _QUOTE, found(key)


class _Inside(NamedTuple):
    """How a search may continue: tokens, the highest key that each can lead to, the minimum of these keys, and (node,
    key) of each closing quote. `arrays` holds the first two if there are many."""

    ids: list[int]
    highest: list[int]
    lowest: int
    endings: list[tuple[int, int]]
    arrays: tuple[Ids, Ids] | None
