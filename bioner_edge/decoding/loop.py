"""The constrained decode loop, for one sequence or for a batch: ask the model only where there is a choice.

`generate` writes one answer without knowing the back end: it yields the tokens that the model must read next and is
sent the logits after them, so that one loop serves both a driver of one sequence (`decode`) and a scheduler of many.

Forced bytes are fed as canonical tokens together with the next choice and cost no step of their own. The last forced
token is held back where a longer token could take its place, and so is trailing white space, which tokenizers attach to
the next word. Decoding is greedy, hence deterministic for given settings.

A mention is written only where the model means it. Where the constraint removes nearly all of the model's probability
mass, what remains is noise, renormalized to a probability of one: a model that cannot copy a character which its
tokenizer spells in bytes would mark that character as a mention. So where the automaton has a neutral continuation, as
a copy of the text has, all mass that does not begin a mention counts for it, and a mention is withdrawn when nearly all
mass was removed at one of its choices.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bioner_edge.backends.contract import Backend, CachedSequence, Logits
from bioner_edge.decoding.automaton import State
from bioner_edge.decoding.token_masks import TokenMask
from bioner_edge.errors import ModelError

__all__ = ["Answer", "Choice", "Decoding", "Step", "decode", "generate"]


_NOISE = 0.9
"""The share of removed mass from which a choice says nothing about the text."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A choice of the model, which wrote the bytes [start, end) of the answer.

    `probability` is p(chosen | candidates). Candidates are the tokens that the constraint allows, end tokens included
    where the answer may end, except those shorter than the canonical token of bytes that must come next anyway.
    `removed_mass` is the total probability of the tokens that the constraint forbids; None if it was not requested.
    """

    start: int
    end: int
    probability: float
    removed_mass: float | None


@dataclass(frozen=True, slots=True)
class Answer:
    """A finished answer. `closed`: the budget ran out, and the automaton's shortest ending was appended.

    `calls` counts the model's steps and `fed` the tokens read in them, of which `prompt` belong to the prompt. `tokens`
    counts the tokens written, forced ones included, and `chosen` those chosen by the model; an end token is not
    written.
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
        """The answer as text. An unconstrained model may write invalid UTF-8, which becomes U+FFFD."""
        return self.data.decode("utf-8", "replace")


class Step(NamedTuple):
    """What an answer needs from the model next: drop the last `forget` positions of its sequence, then append `ids`.

    Only the logits after the last of `ids` are needed; a driver may feed the others in steps of their own.
    """

    ids: list[int]
    forget: int = 0


def decode(
    backend: Backend,
    sequence: CachedSequence,
    prompt: Sequence[int],
    mask: TokenMask,
    *,
    budget: int,
    removed_mass: bool = True,
) -> Answer:
    """Run `generate` on one sequence, which may already hold the beginning of the prompt, and return its answer.

    Afterwards the sequence holds the tokens read, not the whole answer. Raises what the back end raises.
    """
    answering = generate(prompt, mask, budget=budget, removed_mass=removed_mass)
    logits: Any = None  # a generator starts with None
    while True:
        try:
            step = answering.send(logits)
        except StopIteration as end:
            answer: Answer = end.value
            return answer
        if step.forget:
            backend.truncate(sequence, sequence.length - step.forget)
        logits = backend.eval(sequence, step.ids)


def generate(
    prompt: Sequence[int], mask: TokenMask, *, budget: int, removed_mass: bool = True
) -> Generator[Step, Logits, Answer]:
    """Write one answer of the mask's automaton after `prompt`.

    Yields what the model must read next, is sent the logits after it (vocabulary_size,), which it does not keep, and
    returns the answer. It owns no resources: to cancel an answer, close the generator and release the sequence.

    `budget` bounds the tokens fed after the prompt. When it runs out, the answer is closed by the shortest valid
    ending, which the model does not read. Without `removed_mass`, it is computed only where a decision needs it. Raises
    ModelError for logits that are not finite, and if the vocabulary cannot spell forced bytes.
    """
    answer = Decoding(prompt, mask, removed_mass)
    automaton, vocabulary = mask.automaton, mask.vocabulary
    pieces, ends = vocabulary.pieces, vocabulary.end_ids
    limit = len(prompt) + budget
    closed = False
    while True:
        held_back = answer.write_forced()
        candidates = allowed = mask.allowed(answer.state)
        if held_back:  # shorter tokens are not canonical here
            candidates = candidates[[len(pieces[i] or b"") >= held_back for i in candidates.tolist()]]
        accepting = automaton.accepts(answer.state)
        if accepting and not len(candidates):
            break
        if answer.fed + len(answer.pending) >= limit:
            answer.written += automaton.closing(answer.state)
            closed = True
            break
        if len(candidates) == 1 and not accepting and not answer.is_doubtful(int(candidates[0])):
            answer.write(int(candidates[0]))
            continue
        if accepting:
            candidates, allowed = np.concatenate([candidates, ends]), np.concatenate([allowed, ends])
        token = answer.choose((yield answer.next_step()), candidates, allowed)
        if token is None and answer.pending:
            continue
        if token is None or token in vocabulary.end_tokens:
            break
        answer.write(token)
        answer.chosen += 1
    return answer.finish(len(prompt), closed)


class Decoding:
    """The state of one answer, and the operations on it."""

    def __init__(self, prompt: Sequence[int], mask: TokenMask, with_removed_mass: bool) -> None:
        self.mask = mask
        self.with_removed_mass = with_removed_mass
        self.state: State = mask.automaton.start
        self.pending = list(prompt)  # tokens that the model has yet to read
        self.forget = 0  # positions to drop from the cache
        self.length = 0  # positions read, less those
        self.written = bytearray()
        self.choices: list[Choice] = []
        self.calls = self.fed = 0
        self.tokens = self.chosen = 0
        self.certain: _Mark | None = None  # the last choice outside a mention

    def next_step(self) -> Step:
        """Take all pending tokens as the model's next step."""
        step = Step(self.pending, self.forget)
        self.calls += 1
        self.fed += len(self.pending)
        self.length += len(self.pending)
        self.pending, self.forget = [], 0
        return step

    def write(self, token: int) -> None:
        """Append a token to the answer, to be read with the next step."""
        piece = self.mask.vocabulary.pieces[token] or b""
        self.state = self.mask.advance(self.state, piece)
        self.written += piece
        self.pending.append(token)
        self.tokens += 1

    def write_forced(self) -> int:
        """Append the canonical tokens of forced bytes. Returns the length in bytes of the token held back, else 0."""
        forced = self.mask.automaton.forced(self.state)
        ids = self.mask.vocabulary.tokenize_bytes(forced) if forced else []
        pieces = self.mask.vocabulary.pieces
        for n, token in enumerate(ids):
            if self.is_doubtful(token):
                return 0
            size = len(pieces[token] or b"")
            last = not b"".join(pieces[i] or b"" for i in ids[n + 1 :]).strip()  # only white space follows
            if last and any(len(pieces[i] or b"") > size for i in self.mask.allowed(self.state).tolist()):
                return size
            self.write(token)
        return 0

    def is_doubtful(self, token: int) -> bool:
        """Whether a token writes part of a character inside a mention. Such a token is a choice even if no other is
        allowed: the model may mean another character with the same first bytes, or be unable to copy this one."""
        piece = self.mask.vocabulary.pieces[token] or b""
        return not piece.isascii() and not _is_whole(piece) and self.mask.automaton.in_mention(self.state)

    def choose(self, logits: Logits, candidates: NDArray[np.int64], allowed: NDArray[np.int64]) -> int | None:
        """Choose the candidate with the highest logit and record its probability. Returns None if that is noise; the
        current mention is then withdrawn. `allowed` are all tokens that the constraint allows."""
        among = logits[candidates].astype(np.float64)
        best = int(among.argmax())
        if not np.isfinite(among[best]):  # argmax prefers NaN, so a single one shows here
            raise ModelError("the model gives NaN or infinite logits; its weights are damaged, convert it again")
        top = among[best]
        in_mention = self.mask.automaton.in_mention(self.state)
        if not in_mention:
            self.certain = _Mark(self)
        ahead = self.mask.automaton.neutral(self.state)
        begins = ahead is not None and not self.is_neutral(int(candidates[best]), ahead)
        removed = None
        if self.with_removed_mass or in_mention or begins:
            # Relative to the same maximum. The sum over the whole vocabulary takes float32 exponentials: exact enough.
            total = float(np.exp(np.minimum(logits - np.float32(top), 80.0)).sum(dtype=np.float64))
            kept = among if allowed is candidates else logits[allowed].astype(np.float64)
            removed = max(0.0, 1.0 - float(np.exp(np.minimum(kept - top, 80.0)).sum()) / total)
            if in_mention and removed >= _NOISE:
                self.withdraw()
                return None
            if ahead is not None and begins:
                neutral = np.array([self.is_neutral(i, ahead) for i in candidates.tolist()])
                mentions = float(np.exp(among[~neutral] - top).sum())
                if neutral.any() and mentions <= total - mentions:
                    best = int(np.where(neutral, among, -np.inf).argmax())
        mass = np.exp(among - among[best]).sum()
        token = int(candidates[best])
        size = len(self.mask.vocabulary.pieces[token] or b"")
        at = len(self.written)
        self.choices.append(Choice(at, at + size, float(1.0 / mass), removed if self.with_removed_mass else None))
        return token

    def is_neutral(self, token: int, ahead: bytes) -> bool:
        """Whether a token follows the neutral continuation or ends the answer, rather than begin a mention."""
        vocabulary = self.mask.vocabulary
        return token in vocabulary.end_tokens or ahead.startswith(vocabulary.pieces[token] or b"")

    def withdraw(self) -> None:
        """Go back to the last choice before the current mention, and write the text without it."""
        mark, self.certain = self.certain, None
        assert mark is not None  # an answer never begins inside a mention
        text = self.mask.automaton.without_mention(mark.state, self.state)
        self.forget += self.length - mark.length
        self.state, self.length = mark.state, mark.length
        del self.written[mark.written :], self.choices[mark.choices :]
        self.tokens, self.chosen = mark.tokens, mark.chosen
        for token in self.mask.vocabulary.tokenize_bytes(text):
            self.write(token)

    def finish(self, prompt: int, closed: bool) -> Answer:
        """The answer so far, after a prompt of `prompt` tokens, which was not read if there was no choice."""
        read = prompt if self.calls else 0
        counts = (self.calls, self.fed, read, self.tokens, self.chosen)
        return Answer(bytes(self.written), tuple(self.choices), closed, *counts)


def _is_whole(piece: bytes) -> bool:
    """Whether a token's bytes are complete characters."""
    return piece.decode("utf-8", "ignore").encode() == piece


class _Mark:
    """A snapshot of an answer at a choice, to go back to."""

    __slots__ = ("choices", "chosen", "length", "state", "tokens", "written")

    def __init__(self, answer: Decoding) -> None:
        self.state, self.length = answer.state, answer.length
        self.written, self.choices = len(answer.written), len(answer.choices)
        self.tokens, self.chosen = answer.tokens, answer.chosen
