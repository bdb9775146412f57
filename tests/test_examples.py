"""The shipped examples: their gold is right, and the readers have nothing to say of them."""

from __future__ import annotations

from pathlib import Path

import pytest

import bioner_edge.io.reading
from bioner_edge.document import Document
from bioner_edge.io.reading import read_file
from bioner_edge.text.tokens import boundaries

EXAMPLES = Path(bioner_edge.corpora.__file__).parents[1] / "examples"


def documents(name: str) -> list[Document]:
    return list(read_file(EXAMPLES / name, pytest.fail, name=name))


@pytest.mark.parametrize(("name", "count"), [("abstracts.pubtator", 3), ("note.gold.jsonl", 1)])
def test_every_mention_lies_on_boundaries(name: str, count: int) -> None:
    found = documents(name)
    assert len(found) == count
    for document in found:
        starts, ends = boundaries(document.text)
        assert {e.label for e in document.entities} == {"Chemical", "Disease"}
        assert all(e.start in starts and e.end in ends for e in document.entities)
        edges = [edge for e in document.entities for edge in (e.start, e.end)]
        assert edges == sorted(edges)  # in text order, and none overlaps another


@pytest.mark.parametrize("name", ["abstracts.pubtator", "note.gold.jsonl"])
def test_no_annotated_surface_is_left_unmarked_elsewhere(name: str) -> None:
    for document in documents(name):
        marked = {i for e in document.entities for i in range(e.start, e.end)}
        for surface in {e.mention(document.text) for e in document.entities}:
            at = document.text.find(surface)
            while at >= 0:
                assert marked.issuperset(range(at, at + len(surface))), (document.id, surface, at)
                at = document.text.find(surface, at + 1)


def test_abstracts_have_titles_and_fictional_ids() -> None:
    found = documents("abstracts.pubtator")
    assert [d.id for d in found] == ["90000001", "90000002", "90000003"]
    assert all(d.title_end and d.text[d.title_end] == " " for d in found)


def test_the_note_and_its_gold_are_one_text() -> None:
    (note,), (gold,) = documents("note.txt"), documents("note.gold.jsonl")
    assert (note.id, note.text) == (gold.id, gold.text)
