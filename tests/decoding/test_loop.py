"""The decode loop on a model without weights: what is asked, what is fed, what is scored, what can be said."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import permutations
from typing import Any
from zlib import crc32

import numpy as np
import pytest
from automata import accepts_all
from numpy.typing import NDArray

from bioner_edge.backends.contract import Logits
from bioner_edge.backends.scripted import Scripted
from bioner_edge.decoding.automaton import Anything, ByteAutomaton, State
from bioner_edge.decoding.gbnf import GrammarAutomaton
from bioner_edge.decoding.loop import Answer, decode
from bioner_edge.decoding.tagged_copy import TaggedCopy
from bioner_edge.decoding.token_masks import TokenMask, Vocabulary
from bioner_edge.document import Document
from bioner_edge.formats import multi_code
from bioner_edge.formats.multi_tag import constraint, gbnf, parse
from bioner_edge.text.tokens import tokens

LABELS = ["Chemical", "Disease"]
TEXT = "Lung < <x\\ é-lung fever"
PROMPT = [80, 81, 82]
WORDS = (
    b"lung",
    b"Lung",
    b" fe",
    b"fever",
    b" lung",
    b" <",
    b"<Chemical>",
    b"</Chemical>",
    b"Chemical",
    b"<Di",
    b"ver</",
    b"\xc3\xa9",
)


class Recorded(Scripted):
    """Remembers what the model had read and answered at each call."""

    def __init__(self, logits: Callable[[list[int]], Logits], words: tuple[bytes, ...] = ()) -> None:
        self.read: list[list[int]] = []
        self.told: list[Logits] = []
        self.play = logits
        super().__init__(self._record, words)

    def tokenize(self, text: bytes, special: bool) -> list[int]:
        text.decode()  # llama.cpp spoils what is not UTF-8
        return super().tokenize(text, special)

    def _record(self, ids: list[int]) -> Logits:
        self.read.append(list(ids))
        self.told.append(self.play(ids))
        return self.told[-1]


def noise(words: tuple[bytes, ...], seed: int = 0) -> Callable[[list[int]], Logits]:
    """Logits that look random and depend on all that was read."""

    def logits(ids: list[int]) -> Logits:
        rng = np.random.default_rng(crc32(repr((seed, ids)).encode()))
        return rng.normal(0, 3, 257 + len(words)).astype(np.float32)

    return logits


def prefer(words: tuple[bytes, ...], *pieces: bytes | None) -> Callable[[list[int]], Logits]:
    """Logits that rank `pieces` first, in their order; None is the end token."""
    known = [*(bytes((b,)) for b in range(256)), *words, None]

    def logits(ids: list[int]) -> Logits:
        told = np.zeros(len(known), np.float32)
        for rank, piece in enumerate(reversed(pieces), 1):
            told[known.index(piece)] = rank
        return told

    return logits


def answer(backend: Scripted, automaton: ByteAutomaton, budget: int = 10_000, **options: Any) -> Answer:
    mask = TokenMask(automaton, Vocabulary(backend))
    return decode(backend, backend.new_sequence(), PROMPT, mask, budget=budget, **options)


def after(automaton: ByteAutomaton, data: bytes) -> State:
    state: State = automaton.start
    for byte in data:
        state = automaton.step(state, byte)
    return state


def permitted(automaton: ByteAutomaton, backend: Scripted, data: bytes) -> list[int]:
    """What the constraint allows after `data`: each token tried."""
    state, found = after(automaton, data), []
    for token in range(backend.vocabulary_size):
        at, piece = state, backend.piece(token) or b""
        for byte in piece:
            at = None if at is None else automaton.step(at, byte)
        if at is not None and piece:
            found.append(token)
    return [*found, *backend.end_tokens] if automaton.accepts(state) else found


def candidates(automaton: ByteAutomaton, backend: Scripted, data: bytes) -> list[int]:
    """What may be chosen after `data`: what is allowed, but none shorter than the canonical one of what is forced."""
    state = after(automaton, data)
    forced = automaton.forced(state)
    inside = forced[:1] in [bytes((b,)) for b in range(0x80, 0xC0)]  # of a character, which has no canonical tokens
    whole = b"" if inside else forced.decode(errors="ignore").encode()
    least = len(backend.piece(backend.tokenize(whole, False)[0]) or b"") if whole else 1
    allowed = permitted(automaton, backend, data)
    return [t for t in allowed if t in backend.end_tokens or len(backend.piece(t) or b"") >= least]


def softmax(logits: Logits) -> NDArray[np.float64]:
    powers = np.exp(logits.astype(np.float64) - logits.max())
    return powers / powers.sum()


AUTOMATA: dict[str, Callable[[], ByteAutomaton]] = {
    "grounded": lambda: constraint(Document("d", TEXT), LABELS),
    "gbnf": lambda: GrammarAutomaton(gbnf(LABELS)),
    "free": Anything,
}


class Indifferent(TaggedCopy):
    """A copy that knows no neutral way: its tags are choices like any other."""

    def neutral(self, state: State) -> bytes | None:
        return None

    def in_mention(self, state: State) -> bool:
        return False


def indifferent() -> ByteAutomaton:
    automaton = constraint(Document("d", TEXT), LABELS)
    automaton.__class__ = Indifferent
    return automaton


OPEN_TO_ALL: dict[str, Callable[[], ByteAutomaton]] = {
    **AUTOMATA,
    "grounded": indifferent,
    "terms": lambda: multi_code.constraint(Document("d", TEXT), LABELS),
}


@pytest.mark.parametrize("words", [(), WORDS], ids=["bytes", "words"])
@pytest.mark.parametrize("make", OPEN_TO_ALL.values(), ids=OPEN_TO_ALL.keys())
def test_choices_are_the_best_allowed_and_scored(make: Callable[[], ByteAutomaton], words: tuple[bytes, ...]) -> None:
    automaton, backend = make(), Recorded(noise(words), words)
    found = answer(backend, automaton, budget=70)
    assert found.calls == len(found.choices) == len(backend.evaluated)
    assert found.fed == sum(backend.evaluated) and found.prompt == len(PROMPT)
    assert found.chosen == sum(choice.end > choice.start for choice in found.choices)
    for choice, read, told in zip(found.choices, backend.read, backend.told, strict=True):
        written = b"".join(backend.piece(t) or b"" for t in read[len(PROMPT) :])
        assert read[: len(PROMPT)] == PROMPT and written == found.data[: choice.start]
        allowed = candidates(automaton, backend, written)
        best = max(allowed, key=lambda token: told[token])
        assert found.data[choice.start : choice.end] == (backend.piece(best) or b"")
        share = softmax(told)
        assert choice.probability == pytest.approx(share[best] / share[allowed].sum(), rel=1e-5)
        assert choice.removed_mass == pytest.approx(1 - share[permitted(automaton, backend, written)].sum(), abs=1e-5)
        assert len(allowed) > 1
    again = answer(Recorded(noise(words), words), make(), budget=70)
    assert again == found
    bare = answer(Recorded(noise(words), words), make(), budget=70, removed_mass=False)
    assert bare.data == found.data and {c.removed_mass for c in bare.choices} == {None}


def test_what_is_forced_costs_no_call() -> None:
    words = (b"abc", b"ab", b"def", b"cx")
    backend = Recorded(prefer(words, b"x"), words)
    found = answer(backend, GrammarAutomaton('root ::= "abc" ("x" | "y") "def" ("." | "!") "abcdef"'))
    assert found.data in (b"abcxdef.abcdef", b"abcxdef!abcdef") and not found.closed
    assert backend.evaluated == [len(PROMPT) + 1, 2]  # the prompt and "abc"; "x" and "def"; the rest is never read
    assert backend.read[0] == [*PROMPT, 256] and backend.read[1][-2:] == [ord("x"), 258]
    silent = Recorded(noise(()))
    assert answer(silent, GrammarAutomaton('root ::= "only this"')).data == b"only this"
    assert answer(silent, constraint(Document("d", " \r\n "), LABELS)).data == b" \r\n "
    assert silent.evaluated == []


def test_tokens_are_counted() -> None:
    words = (b"abc", b"def", b"gh")
    grammar = 'root ::= "abc" ("x" | "y") "def" ("." | "!") "gh"?'
    wants_no_end = answer(Recorded(prefer(words, b"x", b".", b"gh"), words), GrammarAutomaton(grammar))
    assert wants_no_end.data == b"abcxdef.gh"
    assert (wants_no_end.tokens, wants_no_end.chosen, len(wants_no_end.choices)) == (5, 3, 3)
    wants_the_end = answer(Recorded(prefer(words, b"x", b".", None), words), GrammarAutomaton(grammar))
    assert wants_the_end.data == b"abcxdef."
    assert (wants_the_end.tokens, wants_the_end.chosen, len(wants_the_end.choices)) == (4, 2, 3)
    assert wants_the_end.fed == len(PROMPT) + 4
    unasked = answer(Recorded(noise(words), words), GrammarAutomaton('root ::= "abc" "def"'))
    assert (unasked.prompt, unasked.tokens, unasked.chosen, unasked.fed) == (0, 2, 0, 0)


def test_the_last_forced_token_waits_for_a_longer_one() -> None:
    words = (b"ab", b"abx", b" y", b"b")
    grammar = 'root ::= "ab" ("x" | " " [yz])'
    longer = Recorded(prefer(words, b"abx"), words)
    assert answer(longer, GrammarAutomaton(grammar)).data == b"abx"
    assert longer.evaluated == [len(PROMPT)]  # asked before "ab"
    shorter = Recorded(prefer(words, b"a", b"ab", b" y"), words)
    assert answer(shorter, GrammarAutomaton(grammar)).data == b"ab y"
    assert shorter.read[1][-1] == 256  # "ab" as one token: "a" was no candidate, though the model liked it best


def test_white_space_waits_for_the_word_that_it_is_glued_to() -> None:
    words = (b"ab", b" x", b"\n\n")
    backend = Recorded(prefer(words, b" x"), words)
    found = answer(backend, GrammarAutomaton('root ::= "ab " ("x" | "y")'))
    assert found.data == b"ab x" and backend.read == [[*PROMPT, 256]]
    both = Recorded(prefer(words, b" x"), words)
    found = answer(both, GrammarAutomaton('root ::= "ab  " ("x" | "y")'))
    assert found.data == b"ab  x" and both.read[0] == [*PROMPT, 256, ord(" ")]


def test_removed_mass_is_what_the_constraint_forbids_and_nothing_else() -> None:
    """A model that likes the token "a", which is allowed, but shorter than the canonical one: nothing of it is
    forbidden. Of one that likes "x" nearly all is."""
    words = (b"ab", b"abc", b"automaton")
    for liked, removed in ((b"a", 0.0), (b"x", 1.0)):
        wanted = prefer(words, liked)
        backend = Recorded(lambda ids, wanted=wanted: 20 * wanted(ids), words)  # type: ignore[misc]
        found = answer(backend, GrammarAutomaton('root ::= "ab" ("c" | "d")'))
        assert found.choices[0].removed_mass == pytest.approx(removed, abs=1e-3)
        assert found.choices[0].probability == pytest.approx(0.5)  # over "ab" and "abc"


# Mentions that the model does not mean


def shares(words: tuple[bytes, ...], shared: Callable[[bytes], dict[bytes, float]]) -> Callable[[list[int]], Logits]:
    """A model that gives these shares of its mass after what was written; what they leave goes to the byte NUL."""
    known = [*(bytes((b,)) for b in range(256)), *words]

    def logits(ids: list[int]) -> Logits:
        given = shared(b"".join(known[i] for i in ids[len(PROMPT) :]))
        told = np.full(257 + len(words), -60, np.float32)
        told[0] = np.log(max(1e-9, 1 - sum(given.values())))
        for piece, share in given.items():
            told[known.index(piece)] = np.log(share)
        return told

    return logits


def tagged(text: str, shared: Callable[[bytes], dict[bytes, float]]) -> tuple[Answer, Recorded]:
    backend = Recorded(shares((), shared))
    found = answer(backend, constraint(Document("d", text), ["A"]))
    assert parse(found.text, Document("d", text), ["A"]).problems == () and not found.closed
    return found, backend


@pytest.mark.parametrize(
    ("tag", "copy", "expected"),
    [
        (0.31, 0.00002, "a b"),  # nearly all of what may be is the tag, but it is not what the model means
        (0.31, 0.6, "a b"),
        (0.45, 0.4, "a b"),
        (0.55, 0.00002, "<A>a</A> b"),
        (0.55, 0.4, "<A>a</A> b"),
    ],
)
def test_a_mention_begins_where_the_model_gives_it_most_of_its_mass(tag: float, copy: float, expected: str) -> None:
    def shared(written: bytes) -> dict[bytes, float]:
        rest = {b"": {b"<": tag, b"a": copy}, b"<A>": {b"a": 0.9}, b"<A>a": {b"<": 0.9}, b"<A>a</A>": {b" ": 0.9}}
        return rest.get(written, {b" ": 0.3, b"b": 0.3, b"<": 0.01})

    assert tagged("a b", shared)[0].text == expected


def test_a_character_that_the_model_cannot_copy_is_no_mention() -> None:
    """It opens a tag before the two bytes of a Greek letter, then wants other things: the tag is taken back."""

    def shared(written: bytes) -> dict[bytes, float]:
        if written == b"IL-":
            return {b"<": 0.9}
        if written == b"IL-<A>":
            return {b"\xce": 0.01, b"<": 0.001}
        return {b"<": 0.2}  # at a choice, never enough for a tag

    found, backend = tagged("IL-β rose", shared)
    assert found.text == "IL-β rose"
    assert not any(b"<" in found.data[c.start : c.end] for c in found.choices)
    assert found.tokens == len("IL-β rose".encode()) and found.chosen <= found.tokens
    assert len(backend.evaluated) == found.calls > len(found.choices)
    # What the model reads from there on is the plain text, each token of it once.
    assert backend.read[-1][len(PROMPT) :] == [*found.data[: found.choices[-1].start]]


def test_what_is_only_begun_like_what_the_model_means_is_no_mention() -> None:
    """It means © where the text has the other character that begins with the same byte."""

    def shared(written: bytes) -> dict[bytes, float]:
        return {b"": {b"<": 0.9}, b"<A>": {b"\xc2": 0.99}, b"<A>\xc2": {b"\xa9": 0.99}}.get(
            written, {b" ": 0.9, b"<": 0.05}
        )

    assert tagged("® b", shared)[0].text == "® b"
    meant = {b"<A>\xc2\xa9": {b"<": 0.9}}
    assert tagged("© b", lambda written: meant.get(written) or shared(written))[0].text == "<A>©</A> b"


def test_no_word_is_left_cut_at_a_character_that_the_model_cannot_copy() -> None:
    """Inside a mention that it means the model fails: the whole mention goes, also the one nested in it."""

    def shared(written: bytes) -> dict[bytes, float]:
        rest = {b"": {b"<": 0.9}, b"<A>": {b"a": 0.9}, b"<A>a": {b"-": 0.8, b"<": 0.1}, b"<A>a-": {b"<": 0.01}}
        return rest.get(written, {b" ": 0.9, b"<": 0.05})

    assert tagged("a-β b", shared)[0].text == "a-β b"


@pytest.mark.parametrize("text", ["<", "<<", "a<", "< b", "β", "\\", "<β", "", "a<b", "<β<"])
@pytest.mark.parametrize("liked", [b"<", b"A", b">", b"/"])
def test_a_model_that_fails_at_everything_marks_nothing_and_comes_to_an_end(text: str, liked: bytes) -> None:
    found, _ = tagged(text, lambda written: {liked: 0.3})
    assert parse(found.text, Document("d", text), ["A"]).entities == ()


class _Sentencepiece(Recorded):
    """Reads ▁ as a blank."""

    def tokenize(self, text: bytes, special: bool) -> list[int]:
        return super().tokenize(text.replace("▁".encode(), b" "), special)


def test_what_the_tokenizer_would_change_is_spelled_in_bytes() -> None:
    words = (b"abc", b"def")
    backend = _Sentencepiece(prefer(words, b"x"), words)
    found = answer(backend, GrammarAutomaton('root ::= "abc▁def" ("x" | "y")'))
    assert found.data == "abc▁defx".encode()
    assert backend.read[0] == [*PROMPT, 256, *"▁".encode(), 257]  # and only that: the words stay tokens


@pytest.mark.parametrize("name", ["grounded", "gbnf"])
def test_a_budget_that_runs_out_closes_the_answer(name: str) -> None:
    closed = set()
    for budget in (0, 1, 7, 30, 60, 2000)[: 6 if name == "grounded" else 5]:  # which alone must end by itself
        automaton, backend = AUTOMATA[name](), Recorded(noise(WORDS, 1), WORDS)
        found = answer(backend, automaton, budget)
        assert accepts_all(automaton, found.data)
        assert found.fed <= len(PROMPT) + budget
        closed.add(found.closed)
        if found.closed:
            last = max((c.end for c in found.choices), default=0)
            assert found.data.startswith(backend_wrote(backend)) and last <= len(found.data)
    assert closed == ({True, False} if name == "grounded" else {True})


def backend_wrote(backend: Recorded) -> bytes:
    read = backend.read[-1] if backend.read else PROMPT
    return b"".join(backend.piece(t) or b"" for t in read[len(PROMPT) :])


def test_a_free_answer_is_cut_where_the_budget_ends() -> None:
    found = answer(Recorded(prefer((), b"a")), Anything(), budget=7)
    assert (found.data, found.closed, found.fed) == (b"aaaaaaa", True, len(PROMPT) + 6)
    assert Answer(b"\xff\xe6a", (), False, 0, 0).text == "\ufffd\ufffda"


def test_the_end_comes_only_where_the_answer_may_end() -> None:
    eager = prefer((), None, b"a")
    assert answer(Recorded(eager), GrammarAutomaton('root ::= "a"*')).data == b""
    assert answer(Recorded(eager), GrammarAutomaton('root ::= ("a" | "b") "c" "d"?')).data == b"ac"
    eager = prefer((), None, *(bytes((b,)) for b in sorted(set(TEXT.encode()) - set(b"<"))))
    found = answer(Recorded(eager), constraint(Document("d", TEXT), LABELS))
    assert found.data == b"Lung < \\<x\\\\ \xc3\xa9-lung fever" and not found.closed
    assert all(choice.end > choice.start for choice in found.choices)


def test_labels_that_share_half_a_character() -> None:
    labels = ["症", "病", "病の"]
    document = Document("d", "患者の病")
    for seed in range(6):
        backend = Recorded(noise((), seed))
        found = answer(backend, constraint(document, labels))
        assert parse(found.text, document, labels).problems == () and not found.closed
    wanted = "<病>患</病>".encode()
    copy = shares((), lambda written: {wanted[len(written) :][:1] or b"\xe8": 0.9})
    assert answer(Recorded(copy), constraint(document, labels)).text.startswith("<病>")


def legal(text: str, labels: list[str]) -> set[str]:
    """Every answer for `text`, thought through from its tokens: before each some types open, after it some close."""
    written: list[tuple[str, tuple[str, ...]]] = [("", ())]
    at = 0
    for token in tokens(text):
        longer = []
        for done, stack in written:
            for count in range(len(labels) + 1):
                for opened in permutations(labels, count):
                    inner = (*stack, *opened)
                    tagged = done + text[at : token.start] + "".join(f"<{name}>" for name in opened)
                    tagged += text[token.start : token.end]
                    for shut in range(len(inner) + 1):
                        closes = "".join(f"</{name}>" for name in reversed(inner[len(inner) - shut :]))
                        longer.append((tagged + closes, inner[: len(inner) - shut]))
        written, at = longer, token.end
    return {done + text[at:] for done, stack in written if not stack}


def sayable(text: str, labels: list[str], words: tuple[bytes, ...]) -> Iterator[str]:
    """Every answer that some model gives: each choice is taken the other way in turn."""
    automaton = constraint(Document("d", text), labels)
    silent = Scripted(noise(words), words)
    mask = TokenMask(automaton, Vocabulary(silent))
    scripts: list[list[int]] = [[]]
    known: dict[bytes, list[int]] = {}
    while scripts:
        script = scripts.pop()
        told: list[list[int]] = []

        def logits(ids: list[int], script: list[int] = script, told: list[list[int]] = told) -> Logits:
            wanted = np.zeros(257 + len(words), dtype=np.float32)
            if len(told) < len(script):
                wanted[script[len(told)]] = 99
            else:  # the first of the candidates
                before = mask.vocabulary.spell(ids[len(PROMPT) :])
                wanted[candidates(automaton, silent, before)[0]] = 99
            told.append(list(ids))
            return wanted

        backend = Scripted(logits, words)
        found = decode(backend, backend.new_sequence(), PROMPT, mask, budget=10_000, removed_mass=False)
        yield found.text
        taken = list(script)
        for choice in found.choices[len(script) :]:
            before = found.data[: choice.start]
            allowed = known.get(before) or known.setdefault(before, candidates(automaton, backend, before))
            scripts += [[*taken, token] for token in allowed[1:]]
            taken.append(allowed[0])


@pytest.mark.parametrize(
    ("text", "labels", "words"),
    [
        ("", ["A"], ()),
        ("a", ["A", "Bb"], ()),
        ("a-", ["A", "AB"], ()),
        ("a < b", ["A"], ()),
        ("<<-<", ["A"], ()),
        (" é b ", ["A", "B"], ()),
        ("a b c d", ["A"], ()),
        ("ab c", ["A"], (b"<A>", b"ab", b"b<", b"b</A>", b" c", b"</", b">ab", b"A>")),
        ("<3 c", ["A"], (b"<A", b"<<", b"<3", b"3 ", b"3</A>", b"><")),
    ],
)
def test_all_legal_answers_and_no_others_can_be_said(text: str, labels: list[str], words: tuple[bytes, ...]) -> None:
    assert set(sayable(text, labels, words)) == legal(text, labels)
