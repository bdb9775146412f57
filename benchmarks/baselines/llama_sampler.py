"""The baseline `llama-gbnf`: llama.cpp's own grammar sampler; tests use it as the oracle of our grammars.

It generates one token per step, forced or not, like llama.cpp; but it tests the most likely token first, then the best
64, then the whole vocabulary: exact for greedy decoding, and nearly free where the model knows the format.

Unlike the sampler, it refuses control tokens, whose names the sampler reads as text, and bytes that are not UTF-8,
after which the sampler could not continue. The sampler never allows a NUL, whatever the grammar.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bioner_edge.backends.contract import Backend, CachedSequence, Logits
from bioner_edge.backends.llama_cpp import LlamaCpp
from bioner_edge.backends.native import lib
from bioner_edge.constraints import Constraint, LateVocabulary, grammar_mask, salvage
from bioner_edge.decoding.automaton import ByteAutomaton, State
from bioner_edge.decoding.gbnf import GrammarError
from bioner_edge.decoding.loop import Answer, Choice
from bioner_edge.decoding.token_masks import TokenMask
from bioner_edge.document import Document
from bioner_edge.errors import ModelError, UsageError
from bioner_edge.formats.contract import Format

__all__ = ["LLAMA_GBNF", "Grammar", "LlamaGrammar", "decode"]

_CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])  # llama_token_data
_SHORTLIST = 64  # candidates tested together where the best one was refused


class LlamaGrammar:
    """A grammar in llama.cpp's engine, at the start of an answer. Raises GrammarError where llama.cpp refuses it."""

    def __init__(self, backend: LlamaCpp, text: str) -> None:
        self._sampler = None
        # llama.cpp takes an empty text for no grammar, and a NUL for its end.
        if text and "\0" not in text:
            self._sampler = lib.llama_sampler_init_grammar(backend._vocab, text.encode(), b"root")
        if not self._sampler:
            raise GrammarError("grammar: llama.cpp refuses it; take --constraint gbnf, which reads grammars by itself")

    def allows(self, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of the tokens may come next; end tokens only where the answer may end."""
        data = np.zeros(len(ids), _CANDIDATE)
        data["id"] = ids
        array = lib.llama_token_data_array(data.ctypes.data_as(lib.llama_token_data_p), len(ids), -1, False)
        lib.llama_sampler_apply(self._sampler, ctypes.byref(array))
        allowed: NDArray[np.bool_] = np.isfinite(data["logit"])
        return allowed

    def accept(self, token: int) -> None:
        """Append a token, which must be allowed: for any other, llama.cpp throws an uncaught exception and the process
        ends."""
        lib.llama_sampler_accept(self._sampler, token)

    def reset(self) -> None:
        """Return to the start of an answer."""
        lib.llama_sampler_reset(self._sampler)

    def close(self) -> None:
        """Free the sampler."""
        if self._sampler:
            lib.llama_sampler_free(self._sampler)
            self._sampler = None

    def __enter__(self) -> LlamaGrammar:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class Grammar:
    """A grammar's text for llama.cpp, and our automaton of it."""

    text: str
    mask: TokenMask


def _grammar(form: Format, labels: Sequence[str], document: Document, vocabulary: LateVocabulary) -> Grammar:
    return Grammar(form.gbnf(labels), grammar_mask(form, labels, document, vocabulary))


def decode(
    backend: Backend,
    sequence: CachedSequence,
    prompt: Sequence[int],
    grammar: Grammar,
    *,
    budget: int,
    removed_mass: bool = False,
) -> Answer:
    """Like `decoding.loop.decode`, constrained by llama.cpp.

    The automaton only tracks the state, for the end of a budget and for UTF-8. A choice's probability is the model's
    own, over the whole vocabulary: p(chosen | allowed), which is never less, would require testing every token. Forced
    tokens are choices too, so scores are lower than under other constraints. `removed_mass` is unknown.

    Raises UsageError for a back end other than llama.cpp, GrammarError (a subclass) for a grammar that llama.cpp
    refuses.
    """
    if not isinstance(backend, LlamaCpp):
        raise UsageError("llama-gbnf needs a GGUF model on llama.cpp")
    mask = grammar.mask
    automaton, pieces = mask.automaton, mask.vocabulary.pieces
    state: State = automaton.start
    written = bytearray()
    choices: list[Choice] = []
    pending, limit = list(prompt), len(prompt) + budget
    calls = fed = tokens = 0
    closed = False
    with LlamaGrammar(backend, grammar.text) as engine:
        while True:
            best = None
            if fed + len(pending) < limit:
                logits = backend.eval(sequence, pending)
                calls, fed = calls + 1, fed + len(pending)
                best = _best(logits, engine, mask, state)
            if best is None:  # the budget is spent, or only a NUL may follow
                written += automaton.closing(state)
                closed = True
                break
            piece = pieces[best] or b""
            choices.append(Choice(len(written), len(written) + len(piece), _probability(logits, best), None))
            if best in backend.end_tokens:
                break
            engine.accept(best)
            state = mask.advance(state, piece)
            written += piece
            tokens += 1
            pending = [best]
    read = len(prompt) if calls else 0
    return Answer(bytes(written), tuple(choices), closed, calls, fed, read, tokens, tokens)


def _best(logits: Logits, engine: LlamaGrammar, mask: TokenMask, state: State) -> int | None:
    """The allowed token with the highest logit; None where there is none."""
    for ids in _by_rank(logits):
        for token in ids[engine.allows(ids)].tolist():
            piece = mask.vocabulary.pieces[token]
            ends = piece is None and token in mask.vocabulary.end_tokens
            if ends or (piece and _follows(mask.automaton, state, piece)):
                return int(token)
    return None


def _by_rank(logits: Logits) -> Iterator[NDArray[np.int64]]:
    """The best token, then the best few, then all tokens, best first."""
    top = int(logits.argmax())
    if not np.isfinite(logits[top]):  # argmax returns a NaN if there is one
        raise ModelError("the model gives NaN or infinite logits; its weights are damaged, convert it again")
    yield np.array([top])
    few = np.sort(np.argpartition(logits, -_SHORTLIST)[-_SHORTLIST:]) if len(logits) > _SHORTLIST else None
    if few is not None:
        yield few[np.argsort(-logits[few], kind="stable")]
    yield np.argsort(-logits, kind="stable")


def _follows(automaton: ByteAutomaton, state: State, piece: bytes) -> bool:
    for byte in piece:
        state = automaton.step(state, byte)
        if state is None:
            return False
    return True


def _probability(logits: Logits, token: int) -> float:
    """The softmax of one token; the cap keeps float32 in range where better ones were refused."""
    return float(1 / np.exp(np.minimum(logits - logits[token], np.float32(80))).sum(dtype=np.float64))


LLAMA_GBNF = Constraint("llama-gbnf", _grammar, salvage, decode, llama_only=True)
