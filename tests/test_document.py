from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioner_edge.document import Document, Entity, Span, entity_json

TEXT = "liver and kidney failure"
FAILURE = Entity("Disease", (Span(0, 5), Span(17, 24)), score=0.123456, removed_mass=0.5)


@pytest.mark.parametrize(("start", "end"), [(0, 0), (3, 3), (4, 3), (-1, 2), (-2, -1)])
def test_a_span_is_a_non_empty_interval(start: int, end: int) -> None:
    with pytest.raises(ValueError, match="0 <= start < end"):
        Span(start, end)


def test_spans_sort_by_start_then_end() -> None:
    assert sorted([Span(2, 3), Span(0, 9), Span(0, 4)]) == [Span(0, 4), Span(0, 9), Span(2, 3)]


@pytest.mark.parametrize("fragments", [(), (Span(3, 5), Span(0, 2)), (Span(0, 3), Span(2, 5))])
def test_fragments_are_in_order_and_apart(fragments: tuple[Span, ...]) -> None:
    with pytest.raises(ValueError, match="fragment"):
        Entity("Disease", fragments)


def test_touching_fragments_are_apart() -> None:
    assert Entity("Disease", (Span(0, 2), Span(2, 5))).end == 5


def test_the_surface_of_a_discontinuous_mention() -> None:
    assert (FAILURE.start, FAILURE.end, FAILURE.mention(TEXT)) == (0, 24, "liver failure")


def test_what_makes_two_entities_the_same_is_not_the_score() -> None:
    assert FAILURE.key == Entity("Disease", FAILURE.fragments).key
    assert FAILURE.key != Entity("Chemical", FAILURE.fragments).key


def test_json_of_an_entity() -> None:
    assert entity_json(FAILURE, TEXT) == {
        "start": 0,
        "end": 24,
        "label": "Disease",
        "text": "liver failure",
        "fragments": [[0, 5], [17, 24]],
        "score": 0.1235,
        "removed_mass": 0.5,
    }
    assert entity_json(Entity.at("Organ", 0, 5), TEXT) == {"start": 0, "end": 5, "label": "Organ", "text": "liver"}


def test_json_of_a_document_leaves_out_an_unknown_title() -> None:
    document = Document("1", TEXT, (Entity.at("Organ", 0, 5),))
    assert list(document.to_json()) == ["id", "text", "entities"]
    assert Document("1", TEXT, title_end=0).to_json()["title_end"] == 0


def test_entities_are_replaced_not_changed() -> None:
    document = Document("1", TEXT, (FAILURE,))
    assert document.without_entities().entities == ()
    assert document.with_entities(iter([FAILURE, FAILURE])).entities == (FAILURE, FAILURE)
    assert document.entities == (FAILURE,)


@given(st.integers(0, 50), st.integers(1, 50), st.integers(0, 50))
def test_shifting_there_and_back(start: int, length: int, by: int) -> None:
    entity = Entity("Disease", (Span(start, start + length), Span(start + length + 1, start + length + 2)), 0.5)
    assert entity.shifted(by).shifted(-by) == entity
    assert entity.shifted(by).mention(" " * by + "x" * 200) == entity.mention("x" * 200)
