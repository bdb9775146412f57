from __future__ import annotations

import textwrap
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioner_edge.io.reading import read_file
from bioner_edge.text.sentences import sentences, unwrap

NOTE = """HISTORY:
Pt. denies chest pain. BP 120/80, HR 72.

Medications:
- aspirin 81 mg q.d.
- metformin 500 mg b.i.d.

Follow up with Dr. Smith in 2 weeks.
"""


def cut(text: str, **options: int) -> list[str]:
    return [text[s.start : s.end] for s in sentences(text, **options)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" \n ", []),
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ("It fell (P < 0.05). \u201cYes.\u201d No.", ["It fell (P < 0.05).", "\u201cYes.\u201d", "No."]),
        ("A dose of 2.5 mg. beta blockers", ["A dose of 2.5 mg. beta blockers"]),
        ("Was seen [1]. (See Fig. 2.) Next.", ["Was seen [1].", "(See Fig. 2.)", "Next."]),
        ("熱がある。咳もある！「はい。」と答えた。", ["熱がある。", "咳もある！", "「はい。」と答えた。"]),
        ("Title\r\n\r\nBody", ["Title", "Body"]),
    ],
)
def test_examples(text: str, expected: list[str]) -> None:
    assert cut(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "Smith et al. Reported it",
        "drugs, e.g. Aspirin",
        "aspirin vs. Warfarin",
        "by Dr. Hale",
        "see Fig. 3",
        "E. Coli",
        "(approx. 20 mg)",
        "given i.v. Once",
        "Staphylococcus sp. Nova",
        "in the U.S. Army",
        "rich in vit. D3",
        "Bacteroides ssp. Nov",
        "two pts. (12%) died",
        "Hx. Of asthma",
        "take 2 tabs. Daily",
        "30 mg q.o.d. Or less",
        "after 6 wks. In all",
        "Aspergillus var. B",
        "E. coli",
        "given p.r.n. At night",
    ],
)
def test_abbreviations_end_no_sentence(text: str) -> None:
    assert cut(text) == [text]
    for end in ("\n", "\r\n", " \n", "\n  "):  # nor where they end a line
        wrapped = text.replace(". ", f".{end}")
        assert cut(wrapped) == [wrapped]


@pytest.mark.parametrize("text", ["The answer came late. The rest", "Seen in clinic. BP fell", "in the liver. (Fig)"])
def test_words_that_are_no_abbreviations_end_one(text: str) -> None:
    assert len(cut(text)) == 2 == len(cut(text.replace(". ", ".\n")))


PARAGRAPH = (
    "Patients received amphotericin B (0.7 mg/kg i.v. daily); serum creatinine, blood urea nitrogen and potassium: "
    "all were measured twice. E. coli was isolated from 12 of 30 pts. vs. 3 of 29 controls in the same ward. "
    "Hypertension followed."
)


@pytest.mark.parametrize("width", range(32, 80))
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_wrapped_paragraph_has_the_sentences_that_it_has(width: int, end: str) -> None:
    """Whatever stands at the end of a full line: a semicolon, a colon, an abbreviation."""
    wrapped = textwrap.fill(PARAGRAPH, width, break_on_hyphens=False)
    assert [" ".join(s.split()) for s in cut(wrapped.replace("\n", end))] == cut(PARAGRAPH)


def test_a_line_that_is_not_full_ends_as_before() -> None:
    text = (
        "Findings:\nfever and cough of three days;\nno chest pain at all, as far as could be told,\nno rash.\nbp 120/80"
    )
    assert len(cut(text)) == 4


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("acute\nrenal failure", "acute renal failure"),
        ("acute\r\nrenal", "acute  renal"),
        ("acute \n  renal", "acute    renal"),
        ("one\n\ntwo\r\n\r\nthree\n \nfour", "one\n\ntwo\r\n\r\nthree\n \nfour"),
        ("Plan:\n- rest\n\u2022 fluids\n  * aspirin", "Plan:\n- rest\n\u2022 fluids\n  * aspirin"),
        ("It fell.\nIt rose.", "It fell. It rose."),
        ("5\n-6", "5 -6"),
        ("\na\n", "\na\n"),
    ],
)
def test_a_line_break_inside_a_paragraph_is_a_blank(text: str, read: str) -> None:
    assert unwrap(text) == read


@given(st.text(st.sampled_from("aB1 .;-\n\r\t*\u2028")) | st.text())
def test_what_is_unwrapped_keeps_its_length_and_its_characters(text: str) -> None:
    read = unwrap(text)
    assert len(read) == len(text)
    assert all(a == b or (a in "\r\n" and b == " ") for a, b in zip(text, read, strict=True))
    assert [s.split() for s in cut(text)] == [s.split() for s in map(unwrap, cut(text))]


def test_an_empty_line_ends_a_sentence_even_after_an_abbreviation() -> None:
    assert cut("ibuprofen b.i.d.\n\nPlan") == ["ibuprofen b.i.d.", "Plan"]
    assert cut("vitamin B.\r\n \r\nPlan") == ["vitamin B.", "Plan"]


def test_a_clinical_note() -> None:
    assert cut(NOTE) == [
        "HISTORY:",
        "Pt. denies chest pain.",
        "BP 120/80, HR 72.",
        "Medications:",
        "- aspirin 81 mg q.d.",
        "- metformin 500 mg b.i.d.",
        "Follow up with Dr. Smith in 2 weeks.",
    ]


def test_a_title_ends_where_it_is_said_to() -> None:
    assert cut("Naloxone in rats we report", cut=16) == ["Naloxone in rats", "we report"]
    assert cut("One. Two.", cut=4) == ["One.", "Two."]
    assert cut("One", cut=0) == cut("One", cut=3) == ["One"]


@given(st.text(st.sampled_from("aB1 .!?:;。」\"')([\n\r\t-•\u2003")) | st.text(), st.none() | st.integers(0, 20))
def test_every_character_that_is_not_white_is_in_one_sentence(text: str, at: int | None) -> None:
    found = sentences(text, cut=at)
    covered = [i for s in found for i in range(s.start, s.end) if not text[i].isspace()]
    assert covered == [i for i, char in enumerate(text) if not char.isspace()]
    assert all(not text[s.start].isspace() and not text[s.end - 1].isspace() for s in found)


@pytest.mark.thorough(only=(r"-\n", r" \n", r"\r", ". (", "! "))  # much like others, and slow
@pytest.mark.parametrize(
    "piece",
    [
        "Word and word. ",
        "a",
        ".",
        " ",
        "\n",
        " \n",
        "\r",
        '."',
        "(",
        '. "',
        ". (",
        "。",
        "! ",
        ":\n",
        "-\n",
        "\t\u2003",
    ],
)
def test_a_million_characters_take_linear_time(piece: str) -> None:
    text = "Start." + piece * (1_000_000 // len(piece)) + "End"
    started = time.process_time()
    assert sentences(text)
    assert len(unwrap(text)) == len(text)
    assert time.process_time() - started < 10  # under a second where nothing else runs; quadratic time takes hours


def test_no_mention_of_bc5cdr_is_cut(corpora: Path) -> None:
    for document in read_file(corpora / "bc5cdr/train.PubTator.txt", pytest.fail):
        inside = sentences(document.text, cut=document.title_end)
        for entity in document.entities:
            assert any(s.start <= entity.start and entity.end <= s.end for s in inside), (document.id, entity)
