"""What every format promises, on every format that is listed."""

from __future__ import annotations

import os
import random
from collections.abc import Hashable, Iterable
from functools import cache
from pathlib import Path

import pytest
from automata import accepts_all
from hypothesis import given, settings
from hypothesis import strategies as st

from bioner_edge.decoding.automaton import ByteAutomaton
from bioner_edge.decoding.gbnf import GrammarAutomaton
from bioner_edge.document import Document, Entity, Span
from bioner_edge.errors import UsageError
from bioner_edge.formats import FORMATS, TEXT, Format, Problem, get
from bioner_edge.io.reading import read_file
from bioner_edge.text.tokens import boundaries, tokens

pytestmark = pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS.keys())

LABELS = ["Chemical", "Anatomical site", "症状"]
PIECES = [
    *("<", ">", "</", "\\", "/", "<Chemical>", "</Chemical>", "@@", "##", '"', "[", "]", "{", ", ", "T1\t", "O", "\\n"),
    *(
        "\t",
        "\r\n",
        "\n",
        "\0",
        "\x1b[0m",
        "\u2028",
        "\u0301",
        "🙂\u200d🧬",
        "שָׁלוֹם",
        "患者",
        "β",
        "e\u0301",
        " ",
        "-",
        "x1",
        "aspirin",
    ),
    *("<|im_end|>", "\ufeff", TEXT, "\U0010ffff", "\ud7ff"),
]
TEXTS = st.lists(st.sampled_from(PIECES) | st.text(st.characters(exclude_categories=["Cs"]), max_size=3), max_size=14)


@st.composite
def documents(draw: st.DrawFn) -> Document:
    """Any text, with entities that nest, cross, are cut off inside a token, or come in two fragments."""
    text = "".join(draw(TEXTS))
    entities = []
    for label in draw(st.lists(st.sampled_from([*LABELS, "not asked"]), max_size=6)) if text else []:
        starts, ends = map(sorted, boundaries(text))
        inside = draw(st.integers(0, 9)) == 0 or not starts
        start = draw(st.sampled_from(range(len(text)) if inside else starts))
        end = draw(st.sampled_from([e for e in (range(len(text) + 1) if inside else ends) if e > start]))
        fragments = [Span(start, end)]
        if end - start > 2 and draw(st.integers(0, 9)) == 0:
            fragments = [Span(start, start + 1), Span(end - 1, end)]
        entities.append(Entity(label, tuple(fragments)))
    return Document("d", text, tuple(entities))


TERMS = {get(name) for name in FORMATS if name.endswith(("_term", "_code", "_triple"))}


def read_back(form: Format, document: Document, labels: list[str], read: Iterable[Entity]) -> bool:
    """Whether what was read is what the format can express; a term marks its other occurrences too."""
    lost = {entity.key for entity, reason in form.inexpressible(document, labels) if reason}
    expressible = {e.key: e for e in document.entities if e.label in labels and e.key not in lost}
    found = {e.key: e for e in read}
    surfaces = {(e.label, e.mention(document.text)) for e in document.entities if len(e.fragments) == 1}
    beside = [e for key, e in found.items() if key not in expressible]
    return (
        expressible.keys() <= found.keys()
        and all((e.label, e.mention(document.text)) in surfaces for e in beside)
        and (form in TERMS or not beside)
    )


@cache
def grammar(form: Format, labels: tuple[str, ...]) -> GrammarAutomaton:
    return GrammarAutomaton(form.gbnf(labels))


@settings(max_examples=settings.default.max_examples * 3 // 2)
@given(document=documents())
def test_what_is_rendered_is_read_and_allowed(form: Format, document: Document) -> None:
    for labels in form.questions(LABELS):
        answer = form.render(document, labels)
        parsed = form.parse(answer, document, labels)
        assert parsed.problems == ()
        assert read_back(form, document, labels, parsed.entities)
        assert len({e.key for e in parsed.entities}) == len(parsed.entities) == len(parsed.places)
        assert all(0 <= place.start < place.end <= len(answer) for place in parsed.places)
        assert form.salvage(answer, document, labels) == parsed
        assert form.render(document.with_entities(parsed.entities), labels) == answer
        assert accepts_all(form.constraint(document, labels), answer.encode())
        assert accepts_all(grammar(form, tuple(labels)), answer.encode())


@settings(max_examples=settings.default.max_examples * 3 // 2)
@given(document=documents(), data=st.data())
def test_near_misses(form: Format, document: Document, data: st.DataObject) -> None:
    """What the constraint takes reads without a problem, what the grammar takes without one of syntax."""
    for labels in form.questions(LABELS):
        answer = form.render(document, labels)
        at = data.draw(st.integers(0, len(answer)))
        until = min(len(answer), at + data.draw(st.integers(0, 2)))
        missed = answer[:at] + data.draw(st.sampled_from(["", *PIECES])) + answer[until:]
        read = form.salvage(missed, document, labels)
        syntax = [p for p in read.problems if p.kind == "syntax"]
        assert not (accepts_all(form.constraint(document, labels), missed.encode()) and read.problems)
        assert not (accepts_all(grammar(form, tuple(labels)), missed.encode()) and syntax)
        strict = form.parse(missed, document, labels)
        assert bool(strict.problems) == bool(read.problems)
        for problem in (*read.problems, *strict.problems):
            assert "\n" not in str(problem)


def walk(automaton: ByteAutomaton, rng: random.Random, limit: int) -> bytes:
    """A random answer, marks preferred; what an automaton promises is checked in every state on the way."""
    state, written = automaton.start, bytearray()
    while len(written) < limit:
        options = sorted(automaton.options(state))
        assert options == [b for b in range(256) if automaton.step(state, b) is not None]
        assert options or automaton.accepts(state)
        forced = automaton.forced(state)
        assert forced == ByteAutomaton.forced(automaton, state)
        assert forced == b"" or (len(options) == 1 and not automaton.accepts(state))
        finished = run(automaton, state, automaton.closing(state))
        assert automaton.accepts(finished)
        if not options or (automaton.accepts(state) and rng.random() < 0.2):
            return bytes(written)
        marks = [b for b in options if not chr(b).isalnum() and b < 0x80]
        byte = rng.choice(marks) if marks and rng.random() < 0.6 else rng.choice(options)
        state = automaton.step(state, byte)
        assert hash(state) is not None
        written.append(byte)
    return bytes(written + automaton.closing(state))


def longest(document: Document, labels: list[str]) -> int:
    """A length in bytes that no grounded answer exceeds: every pair of boundaries, as every type, with every mark."""
    starts, ends = boundaries(document.text)
    names = sum(len(label.encode()) + 16 for label in labels)
    item = 16 * (len(document.text.encode()) + len(starts)) + 2 * names + 64
    return (len(starts) * len(ends) * len(labels) + len(starts) + 2) * item + names


def run(automaton: ByteAutomaton, state: Hashable, data: bytes) -> Hashable:
    for byte in data:
        state = automaton.step(state, byte)
        assert state is not None
    return state


@settings(max_examples=settings.default.max_examples // 4)
@given(document=documents(), seed=st.integers(0, 1 << 32))
def test_random_answers_under_the_constraint(form: Format, document: Document, seed: int) -> None:
    for labels in form.questions(LABELS):
        most = longest(document, labels)
        data = walk(form.constraint(document, labels), random.Random(seed), most + 1)
        assert len(data) <= most
        parsed = form.parse(data.decode(), document, labels)
        assert parsed.problems == ()
        starts, ends = boundaries(document.text)
        assert all(f.start in starts and f.end in ends for e in parsed.entities for f in e.fragments)
        assert accepts_all(grammar(form, tuple(labels)), data)


WALKED = [
    "",
    'Naloxone, "β-blocker" and <b>: 症状 5 @@ \\ #.',
    "患者 with e\u0301 e\u0301; a a a\ta\r\na",
    "IL-2 was given. IL-2R was not (IL-2).",
]


@pytest.mark.thorough(but=("100-*",))
@pytest.mark.parametrize("walks", [100, 1000])
def test_random_walks(form: Format, walks: int) -> None:
    """Any allowed byte at each step, or the end: each answer is whole, short enough and without a problem, and so is
    what `closing` makes of any state on the way."""
    rng = random.Random(7)
    questions = form.questions(LABELS)
    for n in range(walks):
        document, labels = Document("d", WALKED[n % len(WALKED)]), questions[n % len(questions)]
        automaton, most = form.constraint(document, labels), longest(document, labels)
        state, written = automaton.start, bytearray()
        close_at = rng.randrange(60)
        while options := [*automaton.options(state), *([-1] if automaton.accepts(state) else [])]:
            if len(written) == close_at and n % 2:
                closed = bytes(written) + automaton.closing(state)
                assert accepts_all(automaton, closed)
                assert not form.parse(closed.decode(), document, labels).problems
            if (byte := rng.choice(options)) < 0:
                break
            state = automaton.step(state, byte)
            written.append(byte)
            assert len(written) <= most
        assert automaton.accepts(state)
        assert not form.parse(written.decode(), document, labels).problems


@settings(max_examples=settings.default.max_examples // 3)
@given(document=documents(), seed=st.integers(0, 1 << 32))
def test_random_answers_under_the_grammar(form: Format, document: Document, seed: int) -> None:
    for labels in form.questions(LABELS):
        data = walk(grammar(form, tuple(labels)), random.Random(seed), 60)
        assert "syntax" not in {p.kind for p in form.salvage(data.decode(), document, labels).problems}


@pytest.mark.parametrize(
    "labels",
    [
        *(["Chemical"], ["Anatomical site", "Gene/Protein", "Médicament", "症状", "IL-2 (human)", 'x"y', "T'", "a&b"]),
        [f"type {n}" for n in range(50)],
        *(
            [],
            [""],
            [" "],
            ["A", "A"],
            ["A b", "A_b"],
            ["1st"],
            ["<x>"],
            ["a\\b"],
            ["a\0b"],
            ["a>b"],
            ["\ud800"],
            ["/a"],
        ),
    ],
)
def test_labels(form: Format, labels: list[str]) -> None:
    """They are written and read back, or refused by every function alike."""
    text = "aspirin for a headache"
    document = Document("d", text, tuple(Entity.at(label, 0, 7) for label in labels[:3]))
    try:
        questions = form.questions(labels)
    except UsageError:
        for attempt in (
            lambda: form.instruction(labels, {}),
            lambda: form.render(document, labels),
            lambda: form.inexpressible(document, labels),
            lambda: form.parse(text, document, labels),
            lambda: form.salvage(text, document, labels),
            lambda: form.gbnf(labels),
            lambda: form.constraint(document, labels),
        ):
            with pytest.raises(UsageError, match=r"^[^\n]+$"):
                attempt()
        return
    assert sorted({label for call in questions for label in call}) == sorted(set(labels))
    for call in questions:
        answer = form.render(document, call)
        assert read_back(form, document, call, form.parse(answer, document, call).entities)
        assert accepts_all(form.constraint(document, call), answer.encode())
        assert accepts_all(GrammarAutomaton(form.gbnf(call)), answer.encode())
        messages = form.instruction(call, {label: "see the manual" for label in call[:1]})
        assert sum(m["content"].count(TEXT) for m in messages) == 1
        assert "see the manual" in "".join(m["content"] for m in messages)


def test_documents_of_the_corpora(form: Format, corpora: Path) -> None:
    """Sampled, for time: some are rendered and read back, every eighth of these stepped through both constraints; all
    of them are by `bioner-edge formats check`."""
    seen, every = 0, 12 if os.environ.get("BIONER_THOROUGH") == "1" else 120
    for seen, document in enumerate(_all(corpora), 1):
        if seen % every == 0:
            _check(form, document, stepped=seen % (8 * every) == 0)
    assert seen > 20_000


def test_japanese_documents(form: Format, corpora: Path) -> None:
    found = [d for d in _all(corpora / "keepha-ja") if d.entities]
    for number, document in enumerate(found):
        if number % 10 == 0 or os.environ.get("BIONER_THOROUGH") == "1":
            _check(form, document, stepped=True)
    discontinuous = [d for d in found if any(len(e.fragments) > 1 for e in d.entities)]
    assert found and discontinuous
    if form is FORMATS["multi_brat"]:
        for document in discontinuous:
            labels = sorted({e.label for e in document.entities})
            parsed = form.parse(form.render(document, labels), document, labels)
            assert {e.key for e in parsed.entities} == {e.key for e in document.entities}


def _check(form: Format, document: Document, *, stepped: bool) -> None:
    asked = sorted({e.label for e in document.entities}) or LABELS
    for labels in form.questions(asked):
        answer = form.render(document, labels)
        parsed = form.parse(answer, document, labels)
        assert parsed.problems == (), document.id
        assert read_back(form, document, labels, parsed.entities), document.id
        if stepped:
            for automaton in (form.constraint(document, labels), grammar(form, tuple(labels))):
                assert _takes(automaton, answer.encode()), document.id


@cache
def _all(folder: Path) -> list[Document]:
    """Read once for all formats."""
    found: list[Document] = []
    reported: list[object] = []
    for path in sorted(folder.rglob("*.PubTator*")):
        found += read_file(path, reported.append, file_format="pubtator")
    for path in sorted([*folder.rglob("*.ann"), *folder.rglob("*.a1")]):
        found += read_file(path, reported.append, file_format="brat")
    for path in sorted(folder.rglob("train.in")):
        found += read_file(path, reported.append, file_format="bc2gm")
    return found


def _takes(automaton: ByteAutomaton, data: bytes) -> bool:
    """As accepts_all, with the steps kept: a grammar passes through few states."""
    step = cache(automaton.step)
    state = automaton.start
    for byte in data:
        state = step(state, byte)
        if state is None:
            return False
    return automaton.accepts(state)


def test_a_problem_says_where(form: Format) -> None:
    document = Document("d", "one\ntwo")
    (labels, *_) = form.questions(LABELS)
    for answer in ("", "one\nt", "\x00", form.render(document, labels) + "more"):
        for problem in form.parse(answer, document, labels).problems:
            assert problem.kind in ("syntax", "ungrounded")
            assert 1 <= problem.line <= answer.count("\n") + 1
            assert 1 <= problem.column <= len(answer.split("\n")[problem.line - 1]) + 1


def test_unknown_names_are_refused(form: Format) -> None:
    assert get(next(name for name, known in FORMATS.items() if known is form)) is form
    with pytest.raises(UsageError, match=r"unknown format 'xml'; known: .*multi_tag"):
        get("xml")
    assert tokens("") == [] and Problem.at("cut", "ab", 2, "m").column == 3
