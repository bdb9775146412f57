"""llama.cpp's own grammar sampler as a constraint: it is greedy, it stays in the grammar, and it agrees with ours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from automata import accepts_all

from bioner_edge import formats, prompts
from bioner_edge.backends.contract import CachedSequence, ContextFull, Logits
from bioner_edge.backends.llama_cpp import LlamaCpp
from bioner_edge.backends.scripted import Scripted
from bioner_edge.benchmarks.baselines import llama_sampler
from bioner_edge.benchmarks.baselines.llama_sampler import LLAMA_GBNF, Grammar, LlamaGrammar, decode
from bioner_edge.decoding import loop
from bioner_edge.decoding.gbnf import GrammarAutomaton, GrammarError
from bioner_edge.decoding.loop import Answer
from bioner_edge.decoding.token_masks import TokenMask, Vocabulary
from bioner_edge.errors import ModelError, UsageError
from bioner_edge.extract import Extractor
from bioner_edge.models import registry

LABELS = ["Chemical", "Disease"]
TAGS = formats.get("multi_tag").gbnf(LABELS)
NO_TAG = "root ::= [^<\\\\]*"  # which never forces a byte
PROMPT = b"<Chemical>Naloxone</Chemical> reverses"


class Recorded(LlamaCpp):
    """A model that remembers what it read and said; or says what is put into its mouth, `liked`, best first."""

    liked: Sequence[int] = ()

    def __init__(self, path: Path) -> None:
        super().__init__(path, context=512, threads=1, cache="f32")
        self.said: list[Logits] = []
        self.read: list[int] = []

    def eval(self, sequence: CachedSequence, ids: Sequence[int]) -> Logits:
        said = super().eval(sequence, ids).copy()
        if self.liked:
            said[:] = 0
            said[list(self.liked)] = np.arange(len(self.liked), 0, -1)
        self.read += ids
        self.said.append(said)
        return said


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Iterator[Recorded]:
    with Recorded(tiny_model) as loaded:
        yield loaded


@pytest.fixture
def backend(model: Recorded) -> Recorded:
    model.said, model.read, model.liked = [], [], ()
    return model


@pytest.fixture(scope="module")
def vocabulary(model: Recorded) -> Vocabulary:
    return Vocabulary(model)


def answer(backend: LlamaCpp, vocabulary: Vocabulary, grammar: str, budget: int = 40) -> Answer:
    """The answer of llama.cpp's sampler, whose bookkeeping is checked."""
    mask = TokenMask(GrammarAutomaton(grammar), vocabulary)
    prompt = backend.tokenize(PROMPT, False)
    sequence = backend.new_sequence()
    try:
        found = decode(backend, sequence, prompt, Grammar(grammar, mask), budget=budget)
    finally:
        backend.release(sequence)
    assert accepts_all(mask.automaton, found.data)
    assert found.fed <= len(prompt) + budget and found.calls - len(found.choices) in (0, 1)
    at = 0
    for choice in found.choices:
        assert choice.start == at and 0 < choice.probability <= 1 and choice.removed_mass is None
        at = choice.end
    assert found.closed or (at == len(found.data) and found.choices[-1].start == at)
    return found


def token(backend: LlamaCpp, piece: bytes) -> int:
    return next(t for t in range(backend.vocabulary_size) if backend.piece(t) == piece)


@pytest.mark.parametrize("grammar", [TAGS, NO_TAG, 'root ::= "[" ([0-9]+ ", ")* [0-9]+ "]"'])
def test_each_token_is_the_best_that_our_automaton_allows(
    backend: Recorded, vocabulary: Vocabulary, grammar: str
) -> None:
    found = answer(backend, vocabulary, grammar)
    mask = TokenMask(GrammarAutomaton(grammar), vocabulary)
    state, pieces = mask.automaton.start, vocabulary.pieces
    for choice, said in zip(found.choices, backend.said, strict=True):
        written = found.data[choice.start : choice.end]
        allowed = [t for t in mask.allowed(state) if b"\0" not in (pieces[t] or b"")]  # which llama.cpp never writes
        if mask.automaton.accepts(state):
            allowed += sorted(backend.end_tokens)
        best = max(allowed, key=lambda t: said[t])
        assert (pieces[best] or b"") == written
        powers = np.exp(said.astype(np.float64) - said[best])
        assert choice.probability == pytest.approx(1 / powers.sum(), rel=1e-4)
        state = mask.advance(state, written)


@pytest.mark.parametrize("budget", [0, 1, 7, 60])
@pytest.mark.parametrize("grammar", [TAGS, 'root ::= "(" root ")" | "[" [^\\]]{3,} "]"'])
def test_a_budget_that_runs_out_closes_the_answer(
    backend: Recorded, vocabulary: Vocabulary, grammar: str, budget: int
) -> None:
    backend.liked = [token(backend, b"(")]
    found = answer(backend, vocabulary, grammar, budget)
    assert found.closed and found.calls == budget
    assert found.data.startswith(b"(" * budget)


@pytest.mark.parametrize("refused", [0, 1, 62, 63, 64, 100])
def test_a_favourite_that_is_refused(backend: Recorded, vocabulary: Vocabulary, refused: int) -> None:
    """The best 64 are tested together, then all: the best that is allowed is found wherever it stands."""
    wrong = [t for t in range(backend.vocabulary_size) if (backend.piece(t) or b"7") not in (b"7", b"3")][:refused]
    backend.liked = [*wrong, token(backend, b"7"), token(backend, b"3")]
    assert answer(backend, vocabulary, "root ::= [37]").data == b"7"
    assert len(wrong) == refused


def test_ends_where_the_grammar_accepts_and_the_model_likes_to(backend: Recorded, vocabulary: Vocabulary) -> None:
    (end,) = backend.end_tokens
    backend.liked = [end, token(backend, b"b"), token(backend, b"a")]
    found = answer(backend, vocabulary, 'root ::= "a" "b"+')
    assert found.data == b"ab" and not found.closed and found.calls == 3


def test_a_control_token_is_not_its_name(backend: Recorded, vocabulary: Vocabulary) -> None:
    """llama.cpp's sampler takes the token <|user|> for the text "<|user|>"; an answer holds text alone."""
    (control,) = backend.tokenize(b"<|user|>", True)
    grammar = 'root ::= "<|user|>"'
    with LlamaGrammar(backend, grammar) as engine:
        assert engine.allows(np.array([control])).all()
    backend.liked = [control]
    assert answer(backend, vocabulary, grammar).data == b"<|user|>"
    assert control not in backend.read and len(backend.said) > 2


@pytest.mark.parametrize("liked", [b"\xed\xa0\x80", b"\xf5\x80", b"\xc0\x80", b"\xff", b"\xe2\x82", b"\xe2"])
def test_only_utf8_is_written(backend: Recorded, vocabulary: Vocabulary, liked: bytes) -> None:
    """Surrogates, overlong forms and halves of characters, ends inside one among them."""
    backend.liked = [*(token(backend, bytes((b,))) for b in liked), *backend.end_tokens]
    answer(backend, vocabulary, "root ::= [^a]*").data.decode()


def test_nul_is_never_written(backend: Recorded, vocabulary: Vocabulary) -> None:
    """Where nothing else may follow, only closing writes it."""
    nul = token(backend, b"\0")
    backend.liked = [nul, token(backend, b"x")]
    assert answer(backend, vocabulary, r"root ::= [\x00x]").data == b"x"
    assert answer(backend, vocabulary, r"root ::= [\x00]").closed and nul not in backend.read


@pytest.mark.parametrize("grammar", ["", 'root ::= "a', 'x ::= "a"', 'root ::= root "a" | "b"', 'root ::= "a\0"'])
def test_a_grammar_that_llama_cpp_refuses(backend: Recorded, grammar: str) -> None:
    with pytest.raises(GrammarError, match=r"^grammar: llama\.cpp refuses it; take --constraint gbnf"):
        LlamaGrammar(backend, grammar)


def test_the_sampler_is_freed(backend: Recorded, vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch) -> None:
    freed: list[Any] = []
    free = llama_sampler.lib.llama_sampler_free
    monkeypatch.setattr(llama_sampler.lib, "llama_sampler_free", lambda sampler: (freed.append(sampler), free(sampler)))
    answer(backend, vocabulary, NO_TAG, 3)
    assert len(freed) == 1
    mask, sequence = TokenMask(GrammarAutomaton(NO_TAG), vocabulary), backend.new_sequence()
    with pytest.raises(ContextFull):
        decode(backend, sequence, 600 * [token(backend, b"a")], Grammar(NO_TAG, mask), budget=9)
    backend.release(sequence)
    assert len(freed) == 2
    engine = LlamaGrammar(backend, NO_TAG)
    engine.close()
    engine.close()
    assert len(freed) == 3 and None not in freed


def test_damaged_weights(backend: Recorded, vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = np.full(backend.vocabulary_size, np.nan, np.float32)
    monkeypatch.setattr(backend, "eval", lambda sequence, ids: nothing)
    with pytest.raises(ModelError, match="NaN or infinite logits"):
        answer(backend, vocabulary, NO_TAG)


def test_another_back_end_is_refused() -> None:
    backend = Scripted(lambda ids: np.zeros(257, np.float32))
    reader = Extractor(backend, format="multi_tag", labels=LABELS, constraint=LLAMA_GBNF)
    with pytest.raises(UsageError, match=r"^llama-gbnf needs a GGUF model on llama\.cpp$"):
        reader("Aspirin.")


# Beside our own decoding, on the bundled model

TEXTS = [
    "Naloxone reverses the antihypertensive effect of clonidine.",
    "Renal failure followed 200 mg of amphotericin B (p < 0.05).",
    "A rash & nausea; no seizures under 5-FU.",
    "Patients with p<0.05 were given <b>aspirin</b>.",
    "Die Übelkeit besserte sich: 患者は頭痛を訴えた。",
]


@pytest.fixture(scope="module")
def bundled() -> Iterator[tuple[LlamaCpp, Vocabulary]]:
    path, _ = registry.find(None)
    with LlamaCpp(path, context=1024, threads=1, cache="f32") as loaded:
        yield loaded, Vocabulary(loaded)


def both(bundled: tuple[LlamaCpp, Vocabulary], grammar: str, text: str) -> tuple[Answer, Answer]:
    """Our greedy answer and llama.cpp's."""
    backend, vocabulary = bundled
    messages = formats.get("multi_tag").instruction(LABELS, {})
    asked = prompts.build(backend.chat_template, messages, backend.template_tokens)
    prompt = backend.tokenize(asked.before.encode(), True) + backend.tokenize(text.encode(), False)
    prompt += backend.tokenize(asked.after.encode(), True)
    mask = TokenMask(GrammarAutomaton(grammar), vocabulary)
    sequence = backend.new_sequence()
    ours = loop.decode(backend, sequence, prompt, mask, budget=150)
    backend.truncate(sequence, 0)
    theirs = decode(backend, sequence, prompt, Grammar(grammar, mask), budget=150)
    backend.release(sequence)
    return ours, theirs


def test_the_same_tags(bundled: tuple[LlamaCpp, Vocabulary]) -> None:
    """A model tuned on canonical tokens writes by itself those that our loop writes where they are forced."""
    for text in TEXTS:
        ours, theirs = both(bundled, TAGS, text)
        assert ours.text == theirs.text and ours.closed == theirs.closed
        assert ours.calls <= theirs.calls == len(theirs.choices)


def test_the_same_tokens_where_nothing_is_forced(bundled: tuple[LlamaCpp, Vocabulary]) -> None:
    for text in TEXTS[:3]:
        ours, theirs = both(bundled, NO_TAG, text)
        assert ours.data == theirs.data and (ours.calls, ours.fed) == (theirs.calls, theirs.fed)
        for mine, other in zip(ours.choices, theirs.choices, strict=True):
            assert (mine.start, mine.end) == (other.start, other.end)
            assert mine.probability >= other.probability * (1 - 1e-5)  # theirs is of the whole vocabulary
            removed = mine.removed_mass or 0.0
            assert other.probability == pytest.approx(mine.probability * (1 - removed), rel=1e-3, abs=1e-6)
