"""multi_tag, literally: what is written, what is refused and where, what is saved of a free answer."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from automata import accepts_all

from bioner_edge.decoding.gbnf import GrammarAutomaton
from bioner_edge.document import Document, Entity, Span
from bioner_edge.errors import UsageError
from bioner_edge.formats import TEXT, Parsed
from bioner_edge.formats.multi_tag import (
    constraint,
    gbnf,
    inexpressible,
    instruction,
    parse,
    questions,
    render,
    salvage,
)

LABELS = ["Chemical", "Disease"]
TEXT_ = "Naloxone reverses the effect of clonidine."
GRAMMAR = GrammarAutomaton(gbnf(LABELS))


def C(start: int, end: int) -> Entity:
    return Entity.at("Chemical", start, end)


def D(start: int, end: int) -> Entity:
    return Entity.at("Disease", start, end)


RENDERED: list[tuple[str, list[Entity], str]] = [
    ("", [], ""),
    (" \n", [], " \n"),
    (
        TEXT_,
        [C(0, 8), C(32, 41)],
        "<Chemical>Naloxone</Chemical> reverses the effect of <Chemical>clonidine</Chemical>.",
    ),
    ("lung cancer cells", [D(0, 11), D(5, 11)], "<Disease>lung <Disease>cancer</Disease></Disease> cells"),
    ("ab", [D(0, 2), C(0, 2)], "<Chemical><Disease>ab</Disease></Chemical>"),
    ("a-b", [C(0, 1), C(1, 2), D(2, 3)], "<Chemical>a</Chemical><Chemical>-</Chemical><Disease>b</Disease>"),
    ("p < .05 <b> x<y", [C(14, 15)], r"p < .05 \<b> x\<<Chemical>y</Chemical>"),
    ("<<a </ <β <1 <", [C(13, 14)], r"<\<a \</ \<β <1 <Chemical><</Chemical>"),
    ("a\\b \\<", [C(0, 1), C(1, 2)], r"<Chemical>a</Chemical><Chemical>\\</Chemical>b \\<"),
    ("</Chemical>", [C(2, 10)], r"\</<Chemical>Chemical</Chemical>>"),
    ("患者は高血圧", [D(3, 6)], "患者は<Disease>高血圧</Disease>"),
    ("e\u0301té\r\n\0🙂", [C(0, 4)], "<Chemical>e\u0301té</Chemical>\r\n\0🙂"),
]


@pytest.mark.parametrize(("text", "entities", "answer"), RENDERED)
def test_rendered(text: str, entities: list[Entity], answer: str) -> None:
    document = Document("d", text, tuple(entities))
    assert render(document, LABELS) == answer
    assert render(document.with_entities(reversed(entities)), LABELS) == answer
    assert inexpressible(document, LABELS) == []
    parsed = parse(answer, document, LABELS)
    assert set(parsed.entities) == set(entities) and parsed.problems == ()
    assert accepts_all(constraint(document, LABELS), answer.encode()) and accepts_all(GRAMMAR, answer.encode())


def test_what_tags_cannot_hold() -> None:
    split = Entity("Disease", (Span(0, 4), Span(9, 14)))
    gold = [C(0, 14), D(5, 20), C(1, 3), split, C(0, 4), Entity.at("Gene", 5, 8), D(0, 4), D(0, 4)]
    document = Document("d", "lung and colon tumour", tuple(gold))
    reasons = {entity: reason for entity, reason in inexpressible(document, LABELS)}
    assert reasons == {
        D(5, 20): "inside a token",
        C(1, 3): "inside a token",
        split: "discontinuous",
        C(0, 4): "same type twice from one position",
    }
    assert render(document, LABELS) == "<Chemical><Disease>lung</Disease> and colon</Chemical> tumour"
    crossing = document.with_entities([C(0, 8), D(5, 14)])
    assert inexpressible(crossing, LABELS) == [(D(5, 14), "crosses another")]


# answer, kind, line, column, part of the message
REFUSED = [
    ("Naloxon", "ungrounded", 1, 8, "the copy ends at offset 7 of 42"),
    ("Naloxone  reverses", "ungrounded", 1, 10, "expected 'r'"),
    (f"{TEXT_}\n", "ungrounded", 1, 43, "expected the end"),
    (f"<Gene>{TEXT_}</Gene>", "syntax", 1, 1, "<Gene> is not a declared tag; expected one of <Chemical>, <Disease>"),
    (f"<chemical>{TEXT_}", "syntax", 1, 1, "<chemical> is not a declared tag"),
    (f"<Chemical>{TEXT_}", "syntax", 1, 1, "<Chemical> is never closed; expected </Chemical>"),
    ("Naloxone</Chemical>", "syntax", 1, 9, "</Chemical> closes nothing; expected no closing tag"),
    ("<Chemical>Naloxone</Disease>", "syntax", 1, 19, "</Disease> closes nothing; expected </Chemical>"),
    ("<Chemical></Chemical>Naloxone", "syntax", 1, 11, "an empty tag; expected at least one character"),
    ("<Chemical>Naloxone</Chemical", "syntax", 1, 19, "expected a whole tag after '<'"),
    ("< Chemical>Naloxone", "ungrounded", 1, 1, "expected 'N'"),
    ("Nal\\oxone", "syntax", 1, 4, r"expected '\\' or '\<' after a backslash"),
]


@pytest.mark.parametrize(("answer", "kind", "line", "column", "message"), REFUSED)
def test_refused(answer: str, kind: str, line: int, column: int, message: str) -> None:
    document = Document("d", TEXT_)
    (problem,) = parse(answer, document, LABELS).problems
    assert (problem.kind, problem.line, problem.column) == (kind, line, column)
    assert message in problem.message
    assert not accepts_all(constraint(document, LABELS), answer.encode())
    assert accepts_all(GRAMMAR, answer.encode()) == (kind == "ungrounded")


def test_lines_count_in_a_problem() -> None:
    answer = "a\r\nb\u2028c\n" + 70 * "d" + "<Gene>e"
    (problem,) = parse(answer, Document("d", answer.replace("<Gene>", "")), LABELS).problems
    assert (problem.line, problem.column) == (3, 71)


# Near misses: the text, an answer that the constraint refuses though the grammar takes it
NEAR = [
    ("lung cancer", "<Disease>lun</Disease>g cancer"),  # inside a token
    ("lung cancer", "<Disease> lung</Disease> cancer"),
    ("lung cancer", "<Disease>lung </Disease>cancer"),
    ("lung", "<Disease><Disease>lung</Disease></Disease>"),
    ("lung", "<Disease><Chemical><Disease>lung</Disease></Chemical></Disease>"),
    ("lung", "Lung"),
    ("lung", "lung "),
    ("lung", "<Disease>lung</Disease>\n"),
    ("a <b", "a < b"),
    ("lung ", "lung"),
    ("e\u0301", "é"),
]


@pytest.mark.parametrize(("text", "answer"), NEAR)
def test_near_misses(text: str, answer: str) -> None:
    assert not accepts_all(constraint(Document("d", text), LABELS), answer.encode())
    assert accepts_all(GRAMMAR, answer.encode())


@pytest.mark.parametrize(
    "answer", ["<Disease>lung</Disease", "a\\b", "<a", "</", "<β", "<Disease></Disease>", "\\<Disease>x</Disease>"]
)
def test_the_grammar_refuses(answer: str) -> None:
    assert not accepts_all(GRAMMAR, answer.encode())


# The text, a free answer, the mentions saved, the kinds of the problems
SAVED: list[tuple[str, str, list[Entity], Sequence[str]]] = [
    (
        TEXT_,
        "<Gene>Naloxone</Gene> reverses the effect of <Chemical>clonidine</Chemical>.",
        [C(32, 41)],
        ["syntax"] * 2,
    ),
    (TEXT_, f"<Chemical>Naloxone</Chemical>{TEXT_[8:32]}<Chemical>clonidine.", [C(0, 8)], ["syntax"]),
    (TEXT_, "<Chemical>Naloxone</Chemical> rev", [C(0, 8)], ["ungrounded"]),
    (TEXT_, "<Chemical>Naloxone</Chemical> rev<Chem", [C(0, 8)], ["syntax"]),
    (TEXT_, "<Chemical>Naloxone</Chemical>, <Chemical>clonidine</Chemical>", [C(0, 8), C(32, 41)], ["ungrounded"]),
    (TEXT_, "The <Chemical>Naloxone</Chemical>", [C(0, 8)], ["ungrounded"]),
    (TEXT_, "X <Chemical>aspirin</Chemical>", [], ["ungrounded"] * 2),
    (TEXT_, "X <Chemical>lonidine</Chemical>", [], ["ungrounded"] * 2),  # inside a token
    (TEXT_, f"<Chemical></Chemical><Disease>Naloxone</Disease>{TEXT_[8:]}", [D(0, 8)], ["syntax"]),
    (TEXT_, f"<Chemical>Nal<Disease>oxone</Chemical>{TEXT_[8:]}</Disease>", [D(3, 42)], ["syntax"] * 2),
    # Found again further right than the one before it, and inside it where it is nested
    ("yyyyy a zz a", "<Chemical>zz</Chemical> <Chemical>a</Chemical>", [C(8, 10), C(11, 12)], ["ungrounded"]),
    ("a x y a", "y <Chemical>a</Chemical> <Chemical>a</Chemical>", [C(0, 1), C(6, 7)], ["ungrounded"]),
    (
        "a x y z a b",
        "y <Chemical>y <Disease>z</Disease> a</Chemical> <Disease>b</Disease>",
        [C(4, 9), D(6, 7), D(10, 11)],
        ["ungrounded"],
    ),
    ("", "<Chemical>a</Chemical>", [], ["ungrounded"] * 2),
]


@pytest.mark.parametrize(("text", "answer", "saved", "kinds"), SAVED)
def test_saved(text: str, answer: str, saved: list[Entity], kinds: list[str]) -> None:
    read = salvage(answer, Document("d", text), LABELS)
    assert list(read.entities) == saved
    assert [p.kind for p in read.problems] == kinds


def test_places() -> None:
    """A mention is placed where its tags are, with the blanks before them: a tokenizer may glue them together."""

    def placed(answer: str, parsed: Parsed) -> list[str]:
        return [answer[place.start : place.end] for place in parsed.places]

    answer = "x  <Disease>lung <Chemical>a</Chemical></Disease>\n<Chemical>b</Chemical>"
    parsed = parse(answer, Document("d", "x  lung a\nb"), LABELS)
    assert placed(answer, parsed) == [answer[1:49], " <Chemical>a</Chemical>", "<Chemical>b</Chemical>"]
    assert parsed.entities == (D(3, 9), C(8, 9), C(10, 11))


def test_closing_is_shortest() -> None:
    """Against a search of all ways, in every state that can be reached."""
    automaton = constraint(Document("d", "a <-"), ["A", "Bc"])
    waiting: list[object] = [automaton.start]
    known: set[object] = {automaton.start}
    while waiting:
        state = waiting.pop()
        after = {automaton.step(state, byte) for byte in automaton.options(state)}
        waiting += after - known
        known |= after
    distance = {state: 0 for state in known if automaton.accepts(state)}
    changed = True
    while changed:
        changed = False
        for state in known:
            ways = [distance.get(automaton.step(state, byte), 999) + 1 for byte in automaton.options(state)]
            if ways and min(ways) < distance.get(state, 999):
                distance[state] = min(ways)
                changed = True
    assert len(known) > 100
    assert {state: len(automaton.closing(state)) for state in known} == distance


def test_calls_and_instruction() -> None:
    assert questions(LABELS) == [LABELS]
    messages = instruction(["Anatomical site", "Disease"], {"Disease": "no symptoms", "Gene": "not asked"})
    assert messages == [
        {"role": "system", "content": "Tag Anatomical_site, Disease.\nDisease: no symptoms"},
        {"role": "user", "content": TEXT},
    ]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], "at least one label is needed"),
        (["1st"], "label '1st' cannot be a tag: it must start with a letter"),
        (["a<b"], "label 'a<b' cannot be a tag"),
        (["A b", "A\tb"], r"label 'A\\tb' and 'A b' would both be written 'A_b'; rename one"),
    ],
)
def test_labels_that_no_tag_can_hold(labels: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=f"^{message}"):
        questions(labels)


def test_a_type_opens_once_at_a_position_of_each_stack() -> None:
    automaton = constraint(Document("d", "ab"), LABELS)
    both = b"<Disease><Chemical>"
    state: object = automaton.start
    for byte in both:
        state = automaton.step(state, byte)
    assert automaton.forced(state) == b"ab</Chemical></Disease>"
    assert automaton.closing(automaton.start) == b"ab"
