"""Chunks leave nothing out, keep their order, and keep to the limit, whatever the text."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioner_edge.document import Span
from bioner_edge.text.chunks import chunks
from bioner_edge.text.sentences import sentences
from bioner_edge.text.tokens import boundaries

PIECES = [
    "Word ",
    "a",
    "pH 7.4",
    ". ",
    ".",
    "? The",
    "\n\n",
    "\r\n",
    " " * 9,
    "\u2003",
    "患者は高血圧。",
    "x" * 30,
    "é",
    "🙂",
    "-",
    "\0",
]
TEXTS = st.lists(st.sampled_from(PIECES) | st.text(st.characters(exclude_categories=["Cs"]), max_size=4), max_size=40)


def in_bytes(text: str) -> int:
    return len(text.encode())


def in_words(text: str) -> int:
    """As a real vocabulary counts: some four characters a token, more for what is rare."""
    return sum(1 + len(word.encode()) // 4 for word in text.split(" "))


def check(text: str, found: list[Span], count: Callable[[str], int], limit: int) -> None:
    at = 0
    for chunk in found:
        assert at <= chunk.start and not text[at : chunk.start].strip()
        assert 0 < count(text[chunk.start : chunk.end]) <= limit
        at = chunk.end
    assert not text[at:].strip()


@pytest.mark.parametrize("count", [in_bytes, in_words])
@pytest.mark.parametrize("unit", ["sentence", "document"])
@given(pieces=TEXTS, limit=st.integers(8, 60), title=st.integers(0, 30))
def test_nothing_is_left_out(unit: str, count: Callable[[str], int], pieces: list[str], limit: int, title: int) -> None:
    text = "".join(pieces)
    found = list(chunks(text, count, limit, unit=unit, title_end=title))
    check(text, found, count, limit)
    if unit == "sentence":
        assert not any(chunk.start < title < chunk.end for chunk in found)
        if all(count(text[s.start : s.end]) <= limit and s.end - s.start <= 8 * limit for s in sentences(text)):
            assert found == sentences(text, cut=title)
    else:
        apart = list(chunks(text, count, limit, unit="sentence", title_end=title))
        edges = {c.start for c in apart}, {c.end for c in apart}
        assert all(c.start in edges[0] and c.end in edges[1] for c in found)  # whole sentences, as many as fit
        assert all(count(text[a.start : b.end]) > limit for a, b in pairwise(found))


@given(st.lists(st.sampled_from(["word", "a", "mid-word", "x" * 14, ",", "患者", "🙂"]), min_size=20, max_size=60))
def test_a_long_sentence_is_cut_between_words(words: list[str]) -> None:
    text = " ".join(words)
    starts, ends = boundaries(text)
    found = list(chunks(text, in_bytes, 40))
    assert len(found) > 1 or in_bytes(text) <= 40
    for chunk in found:
        assert chunk.start in starts
        assert chunk.start + len(text[chunk.start : chunk.end].rstrip()) in ends


def test_few_tokens_for_many_characters_are_cut_between_words_too() -> None:
    text = "sesquipedalian " * 40
    found = list(chunks(text, lambda piece: len(piece.split()), 10))
    check(text, found, lambda piece: len(piece.split()), 10)
    assert {len(text[c.start : c.end].split()[-1]) for c in found} == {14}


@pytest.mark.parametrize("text", ["", " ", "\n\r\n\t", "\u2003"])
@pytest.mark.parametrize("unit", ["sentence", "document"])
def test_white_space_has_no_chunks(text: str, unit: str) -> None:
    assert list(chunks(text, in_bytes, 10, unit=unit)) == []


def test_sentences_are_joined_while_they_fit() -> None:
    text = "One is here. Two is here. Three is here."
    joined = [text[c.start : c.end] for c in chunks(text, in_bytes, 26, unit="document")]
    assert joined == ["One is here. Two is here.", "Three is here."]
    assert [text[c.start : c.end] for c in chunks(text, in_bytes, 26)] == [
        "One is here.",
        "Two is here.",
        "Three is here.",
    ]


@pytest.mark.thorough(only=("x-document", r"\u*-document", r"\n-document", ".-document", "- -*"))
@pytest.mark.parametrize("unit", ["sentence", "document"])
@pytest.mark.parametrize("piece", ["word ", "x", "患", "\n", "A sentence. ", ".", "- "])
def test_a_million_characters(piece: str, unit: str) -> None:
    """What is counted, and with it the time, stays within a small multiple of the text's length."""
    text = piece * (1_000_000 // len(piece))
    counted = 0

    def count(part: str) -> int:
        nonlocal counted
        counted += len(part)
        return len(part) // 4 + 1

    found = list(chunks(text, count, 100, unit=unit))
    check(text, found, lambda part: len(part) // 4 + 1, 100)
    assert counted < 40 * len(text)
