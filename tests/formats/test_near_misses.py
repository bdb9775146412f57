"""Answers that are nearly right: each is refused by the constraint, and read with a problem of the right kind."""

from __future__ import annotations

import pytest
from automata import accepts_all

from bioner_edge.decoding.gbnf import GrammarAutomaton
from bioner_edge.document import Document, Entity
from bioner_edge.formats import FORMATS

TEXT = "Naloxone reverses the antihypertensive effect of clonidine. Hypertension fell after clonidine."
DOCUMENT = Document(
    "d",
    TEXT,
    (
        Entity.at("Chemical", 0, 8),
        Entity.at("Chemical", 49, 58),
        Entity.at("Disease", 60, 72),
        Entity.at("Chemical", 84, 93),
    ),
)
LABELS = ["Chemical", "Disease"]

# format; what is replaced in the answer to the first call, and by what; the problem's kind, its line and column
MISSES = [
    *(
        (name, old, new, kind, where)
        for name in ("conv_term", "single_term")
        for old, new, kind, where in (
            ("Naloxone", "Naloxon", "ungrounded", (1, 1)),  # a letter missing
            ("Naloxone", "naloxone", "ungrounded", (1, 1)),
            ("clonidine", "loni", "ungrounded", (1, 12)),  # inside a token
            ('clonidine"', "clonidine", "syntax", (1, 25)),  # an unclosed quote
            (", ", ",", "syntax", (1, 12)),
            ('["', '[ "', "syntax", (1, 2)),
            ('"]', '", ]', "syntax", (1, 27)),
            ('"Naloxone"', '""', "syntax", (1, 3)),
            ("Naloxone", "Nalox\\u006fne", "syntax", (1, 8)),  # an escape where none is needed
            ("]", "", "syntax", (1, 25)),
        )
    ),
    ("multi_term", "Naloxone", "Naloxon", "ungrounded", (1, 14)),
    ("multi_term", '"Disease"', '"Gene"', "syntax", (1, 42)),  # an undeclared type
    ("multi_term", ', "Disease": ["Hypertension"]', "", "syntax", (1, 39)),  # a type missing
    ("multi_term", 'Hypertension"', "Hypertension", "syntax", (1, 68)),
    *(
        (name, old, new, kind, where)
        for name in ("single_code", "multi_code")
        for old, new, kind, where in (
            ("Naloxone", "Naloxon", "ungrounded", (1, 1)),
            ('Chemical("clon', 'Gene("clon', "syntax", (1, 24)),
            ('Naloxone"', "Naloxone", "syntax", (1, 33)),
            ('("Naloxone")', "('Naloxone')", "syntax", (1, 11)),
            ('")', '"', "syntax", (1, 21)),
        )
    ),
    ("multi_triple", "Naloxone", "Naloxon", "ungrounded", (1, 1)),
    ("multi_triple", '"is a"', '"has a"', "syntax", (1, 16)),
    ("multi_triple", '"Disease"', '"Gene"', "syntax", (1, 96)),
    ("single_tag", "reverses", "revers", "ungrounded", (1, 20)),
    ("single_tag", "##. Hyper", ". Hyper", "syntax", (1, 54)),  # the first stays open
    ("single_tag", "Naloxone##", "Naloxone#", "syntax", (1, 11)),
    ("multi_tag", "reverses", "revers", "ungrounded", (1, 37)),
    ("multi_tag", "</Disease>", "</Chemical>", "syntax", (1, 124)),
    ("multi_tag", "<Disease>Hypertension</Disease>", "<Gene>Hypertension</Gene>", "syntax", (1, 103)),
    ("single_span", "8", "9", None, None),  # an offset off by one is a span, but not one of tokens
    ("single_span", "[0, 8]", "[8, 8]", "ungrounded", (1, 1)),
    ("single_span", "93", "95", "ungrounded", (1, 18)),
    ("single_span", "8", "08", "syntax", (1, 7)),
    ("single_span", "8]", "8", "syntax", (1, 7)),
    ("multi_span", "72", "73", None, None),
    ("multi_span", "60, 72", "60, 720", "ungrounded", (1, 55)),
    ("multi_span", '"Disease"', '"Gene"', "syntax", (1, 45)),
    ("multi_bio", "reverses\tO", "revers\tO", "ungrounded", (2, 1)),
    ("multi_bio", "reverses\tO", "reverses\tI-Disease", "syntax", (2, 10)),  # an I- tag after O, or after another type
    ("multi_bio", "the\tO", "the\tI-Chemical", "syntax", (3, 5)),
    ("multi_bio", "B-Disease", "B-Gene", "syntax", (9, 14)),
    ("multi_bio", "fell\tO\n", "", "ungrounded", (10, 1)),
    ("multi_bio", "fell\tO", "fell O", "syntax", (10, 7)),
    ("multi_bio", "\n.\tO", "", "ungrounded", (12, 21)),
    ("multi_brat", "0 8\t", "0 9\t", "ungrounded", (1, 1)),  # an offset off by one
    ("multi_brat", "Naloxone", "Naloxon", "ungrounded", (1, 1)),
    ("multi_brat", "Disease", "Gene", "syntax", (3, 4)),
    ("multi_brat", "49 58", "58 49", "ungrounded", (1, 25)),
    ("multi_brat", "0 8\t", "0 8 ", "syntax", (1, 16)),
    ("multi_brat", "T2", "2", "syntax", (2, 1)),
]


@pytest.mark.parametrize(("name", "old", "new", "kind", "where"), MISSES)
def test_a_near_miss(name: str, old: str, new: str, kind: str | None, where: tuple[int, int] | None) -> None:
    form = FORMATS[name]
    labels = form.questions(LABELS)[0]
    answer = form.render(DOCUMENT, labels)
    missed = answer.replace(old, new, 1) if name != "single_span" or old != "93" else answer.replace(old, new)
    if name == "multi_bio" and old == "\n.\tO":
        missed = answer.removesuffix(old)
    assert missed != answer
    assert not accepts_all(form.constraint(DOCUMENT, labels), missed.encode())
    assert accepts_all(GrammarAutomaton(form.gbnf(labels)), missed.encode()) == (kind != "syntax")
    for read in (form.parse, form.salvage):
        problems = read(missed, DOCUMENT, labels).problems
        assert [p.kind for p in problems][:1] == ([kind] if kind else [])
        if kind:
            assert (problems[0].line, problems[0].column) == where, str(problems[0])


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_left_of_a_broken_answer(name: str) -> None:
    """Salvage finds the mentions that stand whole in an answer with something wrong around them."""
    form = FORMATS[name]
    labels = form.questions(LABELS)[0]
    answer = form.render(DOCUMENT, labels)
    wanted = {e.key for e in form.parse(answer, DOCUMENT, labels).entities}
    fenced = f"Here it is:\n{answer}\nI hope that this helps."
    read = form.salvage(fenced, DOCUMENT, labels)
    assert read.problems
    assert wanted <= {e.key for e in read.entities}
    assert len(read.places) == len(read.entities)
    assert all(0 <= p.start < p.end <= len(fenced) for p in read.places)
    assert not form.parse(fenced, DOCUMENT, labels).entities


@pytest.mark.parametrize("name", FORMATS)
def test_hostile_answers_end(name: str) -> None:
    form = FORMATS[name]
    labels = form.questions(LABELS)[0]
    for answer in (
        "9" * 5000,
        "[[" + "9" * 5000 + ", 1]]",
        "T1\tChemical 0 " + "9" * 5000 + "\tx",
        '"' * 3000,
        "[" * 3000,
    ):
        assert form.parse(answer, DOCUMENT, labels).problems
        assert form.salvage(answer, DOCUMENT, labels).problems
