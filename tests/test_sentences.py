from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioner_edge.corpora import read_file
from bioner_edge.sentences import sentences

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
    ],
)
def test_abbreviations_end_no_sentence(text: str) -> None:
    assert cut(text) == [text]


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
    assert time.process_time() - started < 10  # under a second where nothing else runs; quadratic time takes hours


def test_no_mention_of_bc5cdr_is_cut(corpora: Path) -> None:
    for document in read_file(corpora / "bc5cdr/train.PubTator.txt", pytest.fail):
        inside = sentences(document.text, cut=document.title_end)
        for entity in document.entities:
            assert any(s.start <= entity.start and entity.end <= s.end for s in inside), (document.id, entity)
