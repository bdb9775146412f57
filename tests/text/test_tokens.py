from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioner_edge.io.reading import read_file
from bioner_edge.text.tokens import boundaries, tokens

# One character of each kind that the definition tells apart.
WORD = "aZäßβжא٣7½²_\u0301\u0327\u064b"  # letters, digits, combining marks, underscore
ALONE = "-–.,()/%+😀€\u200b\u00ad" + "症状ひカ々ー" + "ยาใ" + "ຢາ" + "ថ្នាំ" + "ဆေး"
WHITE = " \t\n\r\x0b\x0c\x1c\x85\xa0\u2003\u2028\u3000"


def cut(text: str) -> list[str]:
    return [text[t.start : t.end] for t in tokens(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" \n\u2028 ", []),
        ("L-DOPA (5 mg/kg)", ["L", "-", "DOPA", "(", "5", "mg", "/", "kg", ")"]),
        ("TNF_alpha IL-1β", ["TNF_alpha", "IL", "-", "1β"]),
        ("Ménière's disease", ["Ménière", "'", "s", "disease"]),
        ("Me\u0301nie\u0300re", ["Me\u0301nie\u0300re"]),
        ("頭痛とアスピリン", list("頭痛とアスピリン")),
        ("アスピリン100mgを服用", [*"アスピリン", "100mg", *"を服用"]),
        ("ยา aspirin", ["ย", "า", "aspirin"]),
        ("น้ำ", ["น", "้", "ำ"]),
        ("5\u0e34", ["5", "\u0e34"]),
        ("ﾊﾟﾗｾﾀﾓｰﾙ", list("ﾊﾟﾗｾﾀﾓｰﾙ")),
        ("Na+/K+", ["Na", "+", "/", "K", "+"]),
        ("CO₂ 10⁻³", ["CO₂", "10", "⁻", "³"]),
        ("👩‍⚕️", ["👩", "\u200d", "⚕", "\ufe0f"]),
    ],
)
def test_examples(text: str, expected: list[str]) -> None:
    assert cut(text) == expected


@given(st.text(st.sampled_from(WORD + ALONE + WHITE)))
def test_a_token_is_a_run_of_word_characters_or_one_other(text: str) -> None:
    expected, run = [], ""
    for char in text:
        if char in WORD:
            run += char
            continue
        expected += [run] * bool(run) + [char] * (char not in WHITE)
        run = ""
    assert cut(text) == expected + [run] * bool(run)


@given(st.text())
def test_every_character_that_is_not_white_is_in_one_token(text: str) -> None:
    covered = [i for t in tokens(text) for i in range(t.start, t.end)]
    assert covered == [i for i, char in enumerate(text) if not char.isspace()]


@given(st.text())
def test_boundaries_are_the_edges_of_the_tokens(text: str) -> None:
    starts, ends = boundaries(text)
    assert starts == {t.start for t in tokens(text)}
    assert ends == {t.end for t in tokens(text)}


@pytest.mark.parametrize(("name", "inside"), [("bc5cdr/dev.PubTator.txt", 10), ("biored/Train.PubTator", 64)])
def test_how_many_gold_mentions_start_or_end_inside_a_token(corpora: Path, name: str, inside: int) -> None:
    found = 0
    for document in read_file(corpora / name, pytest.fail):
        starts, ends = boundaries(document.text)
        found += sum(e.start not in starts or e.end not in ends for e in document.entities)
    assert found == inside
