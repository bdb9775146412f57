"""The tokens that a vocabulary has for what an automaton allows: all of them and no others."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bioner_edge.backends.llama_cpp import LlamaCpp
from bioner_edge.backends.scripted import Scripted
from bioner_edge.decoding.automaton import Anything, ByteAutomaton
from bioner_edge.decoding.gbnf import GrammarAutomaton
from bioner_edge.decoding.token_masks import TokenMask, Vocabulary
from bioner_edge.document import Document, Entity
from bioner_edge.errors import ModelError
from bioner_edge.formats import FORMATS

LABELS = ["Chemical", "Disease"]
TEXT = "lung < <x\\ é患者 lungs-<<🙂\r\nend"
WORDS = (
    b"lung",
    b"lun",
    b"<Chem",
    b"<Chemical>",
    b"</",
    b"><",
    b">lung",
    b"ical>lung</",
    b" <",
    b" ",
    b"\\\\",
    b"\xa9\xe6",
    b"\xc3\xa9",
)
WORDS = tuple(
    dict.fromkeys(
        (
            *WORDS,
            b"\n",
            b"<<",
            b"<Disease>lung",
            b"[",
            b'"lung',
            b"\xf0\x9f\x99\x82\r\n",
            b"end",
            b"lung",
            b"[[",
            b"12",
            b"0, ",
            b"], [",
            b'", "',
            b'lung", "',
            b'")',
            b'"), ',
        )
    )
)


def model(words: tuple[bytes, ...] = ()) -> Scripted:
    backend = Scripted(lambda ids: np.zeros(257 + len(words), np.float32), tuple(w for w in words if len(w) > 1))
    return backend


def by_trying(automaton: ByteAutomaton, vocabulary: Vocabulary, state: Any) -> list[int]:
    found = []
    for token, piece in enumerate(vocabulary.pieces):
        at = state if piece else None
        for byte in piece or b"":
            at = None if at is None else automaton.step(at, byte)
        if at is not None:
            found.append(token)
    return found


def automata() -> dict[str, ByteAutomaton]:
    document = Document("d", TEXT)
    found: dict[str, ByteAutomaton] = {"anything": Anything()}
    for name, form in FORMATS.items():
        (labels, *_) = form.questions(LABELS)
        found |= {name: form.constraint(document, labels), f"{name}-gbnf": GrammarAutomaton(form.gbnf(labels))}
    return found


@pytest.mark.parametrize("automaton", automata().values(), ids=automata().keys())
def test_allowed_is_what_trying_every_token_finds(automaton: ByteAutomaton) -> None:
    vocabulary = Vocabulary(model(WORDS))
    mask, rng, state = TokenMask(automaton, vocabulary), random.Random(5), automaton.start
    longest = 0
    for _ in range(400):
        allowed = sorted(mask.allowed(state).tolist())
        assert allowed == by_trying(automaton, vocabulary, state)
        if not allowed or (automaton.accepts(state) and rng.random() < 0.2):  # once more, by another way
            state = automaton.start
            continue
        token = rng.choice([t for t in allowed if t > 255] or allowed)
        longest = max(longest, len(vocabulary.spell([token])))
        state = mask.advance(state, vocabulary.spell([token]))
    assert longest > 1


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS.keys())
def test_llama_cpp_allows_the_same_tokens(tiny_model: Path, oracle: Callable[[str], Any], form: Any) -> None:
    with LlamaCpp(tiny_model, context=256) as backend:
        vocabulary = Vocabulary(backend)
    document = Document(
        "d", "Naloxone <3 for renal failure", (Entity.at("Chemical", 0, 8), Entity.at("Disease", 16, 29))
    )
    text = {t for t, piece in enumerate(vocabulary.pieces) if piece and piece.isascii() and b"\0" not in piece}
    for labels in form.questions(LABELS):
        mask = TokenMask(GrammarAutomaton(form.gbnf(labels)), vocabulary)
        engine, state = oracle(form.gbnf(labels)), mask.automaton.start
        for byte in form.render(document, labels).encode():
            assert text & set(mask.allowed(state).tolist()) == engine.allowed(sorted(text))
            state = mask.advance(state, bytes((byte,)))
            assert engine.step(byte)


def test_the_same_array_is_given_again() -> None:
    mask = TokenMask(Anything(), Vocabulary(model()))
    assert mask.allowed(0) is mask.allowed(0)
    assert sorted(mask.allowed(0).tolist()) == list(range(256))
    assert mask.vocabulary.end_ids.tolist() == [256]


class _Without(Scripted):
    """A vocabulary that lacks some bytes."""

    lacking = b""

    def piece(self, token: int) -> bytes | None:
        return None if token < 256 and token in self.lacking else super().piece(token)


def test_a_vocabulary_that_cannot_spell_a_byte_is_refused() -> None:
    backend = _Without(lambda ids: np.zeros(258, np.float32), [b"\xf0\x9f"])
    backend.lacking = b"\xc0\xc1\xf5\xff"  # these are in no text
    Vocabulary(backend)
    backend.lacking = b"A\xf0"
    with pytest.raises(ModelError, match=r"^the model's vocabulary cannot spell the bytes b'A\\xf0'; it cannot copy"):
        Vocabulary(backend)


class _Blank(Scripted):
    """A tokenizer that puts a blank before every text."""

    def tokenize(self, text: bytes, special: bool) -> list[int]:
        return super().tokenize(b" " + text, special)


def test_a_tokenizer_that_changes_the_text_is_refused() -> None:
    with pytest.raises(ModelError, match="the model's tokenizer changes its input"):
        Vocabulary(_Blank(lambda ids: np.zeros(257, np.float32)))
