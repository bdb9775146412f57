"""The decode loop, one for all back ends: ask the model only where there is a choice.

Bytes that must come next are fed as canonical tokens together with the next question, so they cost no step of their
own. The last canonical token is held back where a longer token could take its place, and so is white space at the
end, which tokenizers glue to the word that follows. Greedy, hence deterministic for one setting.

A mention is asserted only where the model means it. What a constraint leaves of a model that wanted something else
is noise, blown up to a probability of one: so a model that fails to copy a character that its tokenizer spells in
bytes would mark it. Where the automaton knows a neutral way to go on, as a copy does, that way has all the mass that is
not for a mention, and a mention at one of whose choices nearly all mass was forbidden is taken back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from bioner_edge.backends.contract import Backend, CachedSequence, Logits
from bioner_edge.decoding.automaton import State
from bioner_edge.decoding.token_masks import TokenMask
from bioner_edge.errors import ModelError

__all__ = ["Answer", "Choice", "Run", "decode"]


_NOISE = 0.9
"""The share of the model's mass that the constraint forbids from which a choice says nothing about the text."""

_CONTINUATION = bytes(range(0x80, 0xC0))  # the bytes of a UTF-8 character after its first


@dataclass(frozen=True, slots=True)
class Choice:
    """One choice: the bytes [start, end) of the answer that it wrote, and two figures of it.

    `probability` is p(chosen | candidates): over the tokens that the constraint allows, less those that are shorter
    than the canonical token of bytes that must come next anyway, and with the end tokens where the answer may end.
    `removed_mass` is what the model gave to all tokens that the constraint forbids, and to those alone; None where it
    was not asked for.
    """

    start: int
    end: int
    probability: float
    removed_mass: float | None


@dataclass(frozen=True, slots=True)
class Answer:
    """What was written. `closed`: the budget ran out and the automaton's shortest way to the end was appended.

    `calls` counts steps of the model, `fed` the tokens that it read in them, `prompt` those of them that are the
    prompt's. `tokens` were written, forced ones too, `chosen` of them by a choice: a choice to end writes none.
    """

    data: bytes
    choices: tuple[Choice, ...]
    closed: bool
    calls: int
    fed: int
    prompt: int = 0
    tokens: int = 0
    chosen: int = 0

    @property
    def text(self) -> str:
        """The answer as text; what an unconstrained model wrote outside UTF-8 becomes U+FFFD."""
        return self.data.decode("utf-8", "replace")


class Run:
    """The state of one decoding, so that each step reads as a sentence."""

    def __init__(
        self,
        backend: Backend,
        sequence: CachedSequence,
        prompt: Sequence[int],
        mask: TokenMask,
        with_removed_mass: bool,
    ) -> None:
        self.backend = backend
        self.sequence = sequence
        self.mask = mask
        self.with_removed_mass = with_removed_mass
        self.state: State = mask.automaton.start
        self.pending = list(prompt)  # tokens decided on, not yet read by the model
        self.written = bytearray()
        self.choices: list[Choice] = []
        self.calls = self.fed = 0
        self.tokens = self.chosen = 0
        self.certain: _Mark | None = None  # the last choice before the mention that is being written, if one is

    def write(self, token: int) -> None:
        piece = self.mask.vocabulary.pieces[token] or b""
        self.state = self.mask.advance(self.state, piece)
        self.written += piece
        self.pending.append(token)
        self.tokens += 1

    def canonical(self, data: bytes) -> list[int]:
        """Canonical tokens. Tokenizers read only whole characters: where a token chosen before ended inside one, its
        other bytes are spelled one by one; one only begun is left to the choice, since it may be one token."""
        rest = data.lstrip(_CONTINUATION)
        whole = rest.decode("utf-8", "ignore").encode()
        begun = [self.mask.vocabulary.byte(byte) for byte in data[: len(data) - len(rest)]]
        return begun + (self.spelled(whole) if whole else [])

    def spelled(self, text: bytes) -> list[int]:
        """Canonical tokens of whole characters; those that the tokenizer would change, as SentencePiece reads ▁ as a
        blank, are spelled in bytes. Raises ModelError where a byte has no token."""
        ids = self.backend.tokenize(text, False)
        if self.mask.vocabulary.spell(ids) == text:
            return ids
        changed = {c for c in set(text.decode()) if not self.keeps(c.encode())}
        ids = []
        for strange, run in groupby(text.decode(), key=changed.__contains__):
            part = "".join(run).encode()
            whole = not strange and self.keeps(part)
            ids += self.backend.tokenize(part, False) if whole else map(self.mask.vocabulary.byte, part)
        return ids

    def keeps(self, text: bytes) -> bool:
        """Whether the tokens of a text spell it."""
        return self.mask.vocabulary.spell(self.backend.tokenize(text, False)) == text

    def write_forced(self) -> int:
        """Write what is forced, as canonical tokens; returns the length of the token held back, 0 if none was."""
        forced = self.mask.automaton.forced(self.state)
        ids = self.canonical(forced) if forced else []
        pieces = self.mask.vocabulary.pieces
        for n, token in enumerate(ids):
            if self.doubtful(token):
                return 0
            size = len(pieces[token] or b"")
            last = not b"".join(pieces[i] or b"" for i in ids[n + 1 :]).strip()  # nothing but white space follows
            if last and any(len(pieces[i] or b"") > size for i in self.mask.allowed(self.state)):
                return size
            self.write(token)
        return 0

    def doubtful(self, token: int) -> bool:
        """Whether a token writes a part of a character of a mention. The model is asked about it even where nothing
        else may come: it may have meant a character that begins alike, or have nothing to say of such a one at all."""
        piece = self.mask.vocabulary.pieces[token] or b""
        return not piece.isascii() and not _whole(piece) and self.mask.automaton.unfinished(self.state)

    def ask(self) -> Logits:
        logits = self.backend.eval(self.sequence, self.pending)
        self.calls += 1
        self.fed += len(self.pending)
        self.pending = []
        return logits

    def choose(self, candidates: NDArray[np.int64], allowed: NDArray[np.int64]) -> int | None:
        """The best candidate by the model's logits, noted with its probability; None where it is noise, and the
        mention that was being written has been taken back. `allowed` is all that the constraint allows."""
        logits = self.ask()
        among = logits[candidates].astype(np.float64)
        best = int(among.argmax())
        if not np.isfinite(among[best]):  # argmax prefers NaN, so one is enough to be seen here
            raise ModelError("the model gives NaN or infinite logits; its weights are damaged, convert it again")
        top = among[best]
        unfinished = self.mask.automaton.unfinished(self.state)
        if not unfinished:
            self.certain = _Mark(self)
        ahead = self.mask.automaton.neutral(self.state)
        begins = ahead is not None and not self.copies(int(candidates[best]), ahead)
        removed = None
        if self.with_removed_mass or unfinished or begins:
            # Relative to the same maximum; over the whole vocabulary, in float32, which is exact enough here.
            total = float(np.exp(np.minimum(logits - np.float32(top), 80.0)).sum(dtype=np.float64))
            kept = among if allowed is candidates else logits[allowed].astype(np.float64)
            removed = max(0.0, 1.0 - float(np.exp(np.minimum(kept - top, 80.0)).sum()) / total)
            if unfinished and removed >= _NOISE:
                self.withdraw()
                return None
            if ahead is not None and begins:
                neutral = np.array([self.copies(i, ahead) for i in candidates.tolist()])
                mentions = float(np.exp(among[~neutral] - top).sum())
                if neutral.any() and mentions <= total - mentions:
                    best = int(np.where(neutral, among, -np.inf).argmax())
        mass = np.exp(among - among[best]).sum()
        token = int(candidates[best])
        size = len(self.mask.vocabulary.pieces[token] or b"")
        at = len(self.written)
        self.choices.append(Choice(at, at + size, float(1.0 / mass), removed if self.with_removed_mass else None))
        return token

    def copies(self, token: int, ahead: bytes) -> bool:
        """Whether a token writes what is ahead where no mention is begun, or ends the answer."""
        return token in self.backend.end_tokens or ahead.startswith(self.mask.vocabulary.pieces[token] or b"")

    def withdraw(self) -> None:
        """Go back to where the mention began that is being written, and write its text without it."""
        mark, self.certain = self.certain, None
        assert mark is not None  # an answer does not begin inside a mention
        text = self.mask.automaton.withdrawn(mark.state, self.state)
        self.backend.truncate(self.sequence, mark.length)
        self.state = mark.state
        del self.written[mark.written :], self.choices[mark.choices :]
        self.tokens, self.chosen = mark.tokens, mark.chosen
        for token in self.canonical(text):
            self.write(token)


def _whole(piece: bytes) -> bool:
    """Whether a token's bytes are whole characters."""
    return piece.decode("utf-8", "ignore").encode() == piece


class _Mark:
    """How far a run had come at a choice, what was asked having been read."""

    __slots__ = ("choices", "chosen", "length", "state", "tokens", "written")

    def __init__(self, run: Run) -> None:
        self.state, self.length = run.state, run.sequence.length
        self.written, self.choices = len(run.written), len(run.choices)
        self.tokens, self.chosen = run.tokens, run.chosen


def decode(
    backend: Backend,
    sequence: CachedSequence,
    prompt: Sequence[int],
    mask: TokenMask,
    *,
    budget: int,
    removed_mass: bool = True,
) -> Answer:
    """Read `prompt` after what `sequence` holds, and write one answer of the mask's automaton.

    `budget` bounds the tokens that are fed after the prompt. Where it runs out the answer is closed by the shortest
    legal way, which the model need not read.
    """
    run = Run(backend, sequence, prompt, mask, removed_mass)
    automaton, ends = mask.automaton, mask.vocabulary.end_tokens
    pieces = mask.vocabulary.pieces
    limit = len(prompt) + budget
    closed = False
    while True:
        held_back = run.write_forced()
        candidates = allowed = mask.allowed(run.state)
        if held_back:  # a token shorter than the canonical one is never canonical either
            candidates = candidates[[len(pieces[i] or b"") >= held_back for i in candidates]]
        accepting = automaton.accepts(run.state)
        if accepting and not len(candidates):
            break
        if run.fed + len(run.pending) >= limit:
            run.written += automaton.closing(run.state)
            closed = True
            break
        if len(candidates) == 1 and not accepting and not run.doubtful(int(candidates[0])):
            run.write(int(candidates[0]))
            continue
        if accepting:
            candidates, allowed = np.concatenate([candidates, ends]), np.concatenate([allowed, ends])
        token = run.choose(candidates, allowed)
        if token is None and run.pending:
            continue
        if token is None or token in backend.end_tokens:
            break
        run.write(token)
        run.chosen += 1
    read = len(prompt) if run.calls else 0  # an answer without a choice is written unread
    return Answer(bytes(run.written), tuple(run.choices), closed, run.calls, run.fed, read, run.tokens, run.chosen)
