from __future__ import annotations

import io
import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioner_edge.corpora import Notice, jsonl
from bioner_edge.span import Document, Entity, Span

CHARACTERS = st.characters(exclude_categories=["Cs"])
TEXT = "Naloxone reverses it"


def read(data: bytes) -> tuple[list[Document], list[Notice]]:
    notices: list[Notice] = []
    return list(jsonl.read(io.BytesIO(data), "in.jsonl", notices.append)), notices


def line(**record: Any) -> bytes:
    return json.dumps({"id": "1", "text": TEXT} | record).encode() + b"\n"


@st.composite
def documents(draw: st.DrawFn) -> Document:
    text = draw(st.text(CHARACTERS))
    entities = []
    for edges in draw(st.lists(st.sets(st.integers(0, len(text)), min_size=2, max_size=6), max_size=4)) if text else []:
        flat = sorted(edges)[: len(edges) // 2 * 2]
        fragments = tuple(Span(a, b) for a, b in zip(flat[::2], flat[1::2], strict=True))
        score = draw(st.none() | st.integers(0, 10_000).map(lambda n: n / 10_000))
        entities.append(Entity(draw(st.text(CHARACTERS, min_size=1)), fragments, score, score))
    title_end = draw(st.none() | st.integers(0, len(text)))
    return Document(draw(st.text(CHARACTERS)), text, tuple(entities), title_end)


@given(st.lists(documents(), max_size=3))
def test_round_trip(written: list[Document]) -> None:
    stream = io.StringIO(newline="\n")
    for document in written:
        jsonl.write(document, stream)
    assert stream.getvalue().count("\n") == len(written)
    assert read(stream.getvalue().encode()) == (written, [])


def test_what_a_line_looks_like() -> None:
    stream = io.StringIO()
    jsonl.write(Document("1", "β-blocker", (Entity.at("Chemical", 0, 9),)), stream)
    entity = '{"start": 0, "end": 9, "label": "Chemical", "text": "β-blocker"}'
    assert stream.getvalue() == f'{{"id": "1", "text": "β-blocker", "entities": [{entity}]}}\n'


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("final", [True, False])
def test_line_ends_bom_and_a_missing_last_newline(newline: bytes, bom: bytes, final: bool) -> None:
    data = bom + b'{"text": "one"}' + newline * 3 + b'{"text": "two"}' + newline * final
    found, notices = read(data)
    assert [(d.id, d.text) for d in found] == [("in.jsonl:1", "one"), ("in.jsonl:4", "two")]
    assert notices == []


def test_unicode_line_breaks_and_nul_inside_a_text_end_no_line() -> None:
    text = "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg\x00h"
    assert [d.text for d in read(json.dumps({"text": text}).encode())[0]] == [text]
    raw = text.replace("\x0b", "").replace("\x0c", "").replace("\x1c", "").replace("\x00", "")  # JSON forbids them raw
    assert [d.text for d in read(f'{{"text": "{raw}"}}'.encode())[0]] == [raw]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (b'{"text": "caf\xe9"}', "not UTF-8: byte 0xe9 at byte offset 13; convert the file to UTF-8"),
        (b'{"text": "\xed\xa0\x80"}', "not UTF-8: byte 0xed at byte offset 10; convert the file to UTF-8"),
        (b'{"text": ', "not JSON: Expecting value at column 10"),
        (b"free text", "not JSON: Expecting value at column 1"),
        (b'{"text": "\\ud800 x"}', "lone surrogate U+D800 at offset 0; repair the text where it was made"),
        (b'{"text": "ab\\udfff"}', "lone surrogate U+DFFF at offset 2; repair the text where it was made"),
        (b"[" * 200_000, "not a document: brackets nested too deep"),
        (b'{"a":' * 200_000, "not a document: brackets nested too deep"),
        (b'{"text": "a", "id": ' + b"9" * 5000 + b"}", "not a document: a number of thousands of digits"),
        (b'{"id": "1"}', 'a line must be an object with a "text"'),
        (b'{"text": null}', 'a line must be an object with a "text"'),
        (b'["text"]', 'a line must be an object with a "text"'),
        (b"\x00", "not JSON: Expecting value at column 1"),
    ],
)
def test_a_bad_line_is_named_and_the_rest_is_read(bad: bytes, message: str) -> None:
    found, notices = read(b'{"text": "one"}\n' + bad + b'\n{"text": "two"}\n')
    assert [d.text for d in found] == ["one", "two"]
    assert notices == [Notice("in.jsonl", 2, message, text_lost=True)]


@pytest.mark.parametrize(
    ("entity", "message"),
    [
        ({"start": 0, "end": 8}, 'needs "start", "end" and "label"'),
        ("Naloxone", 'needs "start", "end" and "label"'),
        ({"start": 0, "end": 8, "label": None}, '"label" must be a string, and not empty'),
        ({"start": 0, "end": 8, "label": ""}, '"label" must be a string, and not empty'),
        ({"start": 0, "end": 8, "label": "\ud800"}, '"label" must be a string, and not empty'),
        ({"start": "0", "end": 8, "label": "C"}, "offsets must be integers, fragments pairs of them"),
        ({"start": 0, "end": 8.0, "label": "C"}, "offsets must be integers, fragments pairs of them"),
        ({"start": False, "end": 8, "label": "C"}, "offsets must be integers, fragments pairs of them"),
        ({"start": 0, "end": 8, "label": "C", "fragments": [[0]]}, "offsets must be integers, fragments pairs of them"),
        ({"start": 0, "end": 8, "label": "C", "fragments": 3}, "offsets must be integers, fragments pairs of them"),
        ({"start": 0, "end": 21, "label": "C"}, "an offset is outside the text of 20 characters"),
        ({"start": -8, "end": 8, "label": "C"}, "an offset is outside the text of 20 characters"),
        ({"start": 10**4000, "end": 10**4001, "label": "C"}, "an offset is outside the text of 20 characters"),
        ({"start": 8, "end": 8, "label": "C"}, "a span needs 0 <= start < end, not [8, 8)"),
        (
            {"start": 0, "end": 9, "label": "C", "fragments": [[0, 4], [5, 8]]},
            '"start" and "end" are not those of the fragments, [0, 8)',
        ),
        ({"start": 0, "end": 8, "label": "C", "text": "aspirin"}, "the mention does not match the text at [0, 8)"),
        ({"start": 0, "end": 8, "label": "C", "score": "high"}, '"score" must lie in [0, 1]'),
        ({"start": 0, "end": 8, "label": "C", "score": float("nan")}, '"score" must lie in [0, 1]'),
        ({"start": 0, "end": 8, "label": "C", "removed_mass": 1.5}, '"removed_mass" must lie in [0, 1]'),
    ],
)
def test_a_bad_entity_is_named_and_the_rest_is_read(entity: Any, message: str) -> None:
    good = {"start": 9, "end": 17, "label": "Verb"}
    found, notices = read(line(entities=[entity, good]))
    assert [d.entities for d in found] == [(Entity.at("Verb", 9, 17),)]
    assert notices == [Notice("in.jsonl", 1, f"entity 0: {message}")]


def test_crossing_fragments_are_refused() -> None:
    row = {"start": 0, "end": 8, "label": "C", "fragments": [[0, 6], [4, 8]]}
    found, notices = read(line(entities=[row]))
    assert found[0].entities == ()
    assert notices[0].message.startswith("entity 0: fragments must be in text order and apart")


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"entities": {"start": 0}}, '"entities" must be a list'),
        ({"title_end": 21}, '"title_end" must be an offset in the text of 20 characters'),
        ({"title_end": True}, '"title_end" must be an offset in the text of 20 characters'),
        ({"id": ["a"]}, '"id" must be a string or an integer; in.jsonl:1 stands for it'),
        ({"id": "\udc80"}, '"id" must be a string or an integer; in.jsonl:1 stands for it'),
    ],
)
def test_a_bad_field_is_named_and_the_text_is_read(field: dict[str, Any], message: str) -> None:
    found, notices = read(line(**field))
    assert [(d.text, d.entities, d.title_end) for d in found] == [(TEXT, (), None)]
    assert notices == [Notice("in.jsonl", 1, message)]


def test_ids_may_be_numbers_and_may_repeat() -> None:
    found, notices = read(line(id=7) + line(id=7) + line(id=None))
    assert [d.id for d in found] == ["7", "7", "in.jsonl:3"]
    assert notices == []


@given(st.binary() | st.text().map(str.encode) | st.from_type(type(None)).map(lambda _: b'{"text": 1}'))
def test_any_bytes_are_read_or_reported(data: bytes) -> None:
    found, notices = read(data)
    lines = [row for row in data.split(b"\n") if row.strip()]
    assert len(found) + len([n for n in notices if n.text_lost]) <= len(lines)


def test_reading_is_one_line_at_a_time() -> None:
    taken = itertools.count()

    def endless() -> Iterator[bytes]:
        while True:
            next(taken)
            yield line()

    reader = jsonl.read(endless(), "-", pytest.fail)  # type: ignore[arg-type]
    assert len(list(itertools.islice(reader, 3))) == 3
    assert next(taken) == 3
