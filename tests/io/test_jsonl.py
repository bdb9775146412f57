from __future__ import annotations

import io
import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioner_edge.document import Document, Entity, Span
from bioner_edge.errors import InputError
from bioner_edge.io import jsonl
from bioner_edge.io.contract import Source
from bioner_edge.io.notice import Notice
from bioner_edge.io.rows import annotation_rows, labels_of

CHARACTERS = st.characters(exclude_categories=["Cs"])
TEXT = "Naloxone reverses it"

PAIRS = "offsets must be integers, and fragments pairs of integers"


def read(data: bytes) -> tuple[list[Document], list[Notice]]:
    notices: list[Notice] = []
    return list(jsonl.read(Source(io.BytesIO(data), "in.jsonl"), notices.append)), notices


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
        (b'{"text": "\\ud800 x"}', "lone surrogate U+D800 at offset 0; repair the text at its source"),
        (b'{"text": "ab\\udfff"}', "lone surrogate U+DFFF at offset 2; repair the text at its source"),
        (b"[" * 200_000, "not a document: brackets nested too deep"),
        (b'{"a":' * 200_000, "not a document: brackets nested too deep"),
        (b'{"text": "a", "id": ' + b"9" * 5000 + b"}", "not a document: a number of thousands of digits"),
        (b'{"id": "1", "note": 7}', 'a line must be an object with a "text"; this one has "id", "note"'),
        (b'{"data": {"note": "x"}}', 'a line must be an object with a "text"; this one has "data"'),
        (b"{}", 'a line must be an object with a "text"'),
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
        ({"start": 0, "end": 8, "label": None}, '"label" must be a non-empty string'),
        ({"start": 0, "end": 8, "label": ""}, '"label" must be a non-empty string'),
        ({"start": 0, "end": 8, "label": "\ud800"}, '"label" must be a non-empty string'),
        ({"start": "0", "end": 8, "label": "C"}, PAIRS),
        ({"start": 0, "end": 8.0, "label": "C"}, PAIRS),
        ({"start": False, "end": 8, "label": "C"}, PAIRS),
        ({"start": 0, "end": 8, "label": "C", "fragments": [[0]]}, PAIRS),
        ({"start": 0, "end": 8, "label": "C", "fragments": 3}, PAIRS),
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
    assert notices[0].message.startswith("entity 0: fragments must be in text order and must not overlap")


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"entities": {"start": 0}}, '"entities" must be a list'),
        ({"title_end": 21}, '"title_end" must be an offset in the text of 20 characters'),
        ({"title_end": True}, '"title_end" must be an offset in the text of 20 characters'),
        ({"id": ["a"]}, '"id" must be a string or an integer; in.jsonl:1 is used instead'),
        ({"id": "\udc80"}, '"id" must be a string or an integer; in.jsonl:1 is used instead'),
    ],
)
def test_a_bad_field_is_named_and_the_text_is_read(field: dict[str, Any], message: str) -> None:
    found, notices = read(line(**field))
    assert [(d.text, d.entities, d.title_end) for d in found] == [(TEXT, (), None)]
    assert notices == [Notice("in.jsonl", 1, message)]


NALOXONE, IT = Entity.at("Chemical", 0, 8), Entity.at("Pronoun", 18, 20)
BOTH = [(0, 8, "Chemical"), (18, 20, "Pronoun")]


def rows(*keys: str, **more: Any) -> list[dict[str, Any]]:
    """The rows of `BOTH` with the keys for start, end and label."""
    return [{**more, **dict(zip(keys, row, strict=True))} for row in BOTH]


@pytest.mark.parametrize(
    "record",
    [
        {"entities": rows("start", "end", "label")},
        {"entities": [list(row) for row in BOTH]},
        {"entities": rows("start_offset", "end_offset", "label", id=3), "relations": []},
        {"entities": rows("start", "end", "entity_group", word="not checked")},
        {"entities": rows("start_char", "end_char", "type", start=7, end=9)},
        {"spans": rows("start", "end", "label", token_start=0, token_end=0), "answer": "accept", "_task_hash": 1},
        {"ents": rows("start", "end", "label"), "tokens": [{"id": 0, "start": 0, "end": 8}], "sents": []},
        {"label": [list(row) for row in BOTH], "Comments": []},
        {"label": rows("start", "end", "label")},
        {"labels": [list(row) for row in BOTH]},
        {"label": [{"start": s, "end": e, "text": TEXT[s:e], "labels": [name]} for s, e, name in BOTH]},
        {"denotations": [{"id": "T1", "span": {"begin": s, "end": e}, "obj": name} for s, e, name in BOTH]},
        {"spans": rows("start", "end", "label"), "label": "POSITIVE"},
        {"spans": rows("start", "end", "label"), "labels": ["POSITIVE"], "entities": []},
        {"ents": rows("start", "end", "label"), "spans": None},
        {"annotations": rows("start", "end", "label")},
        {
            "entities": [
                {"start_pos": s, "end_pos": e, "text": TEXT[s:e], "labels": [{"value": name, "confidence": 0.9}]}
                for s, e, name in BOTH
            ],
            "labels": [],
        },
    ],
)
def test_the_keys_of_other_tools(record: dict[str, Any]) -> None:
    assert read(line(**record)) == ([Document("1", TEXT, (NALOXONE, IT))], [])
    jsonl.refuse_unannotated(io.BytesIO(line(**record)), "in")
    assert [labels_of(row) for row in annotation_rows(record)] == [["Chemical"], ["Pronoun"]]


def test_a_text_under_data() -> None:
    record = {"id": 1, "data": TEXT, "label": [list(row) for row in BOTH]}
    assert read(json.dumps(record).encode()) == ([Document("1", TEXT, (NALOXONE, IT))], [])


def task(*annotations: Any) -> bytes:
    return json.dumps({"id": 1, "data": {"text": TEXT}, "annotations": annotations}).encode()


def test_a_task_of_label_studio() -> None:
    region = [
        {"type": "labels", "value": {"start": s, "end": e, "text": TEXT[s:e], "labels": [name]}} for s, e, name in BOTH
    ]
    other = {"type": "choices", "value": {"choices": ["x"]}}
    one, cancelled = {"result": [*region, other]}, {"result": region[:1], "was_cancelled": True}
    assert read(task(cancelled, one)) == ([Document("1", TEXT, (NALOXONE, IT))], [])
    found, (notice,) = read(task({"result": region[1:]}, one))
    assert found[0].entities == (IT,) and notice.message == "2 annotations of one text; only the first is read"
    assert read(task()) == ([Document("1", TEXT)], [])


def test_a_mention_with_two_labels_is_two_entities() -> None:
    row = {"start": 0, "end": 8, "labels": ["Chemical", "Drug"]}
    found, notices = read(line(label=[row]))
    assert [e.label for e in found[0].entities] == ["Chemical", "Drug"] and notices == []


def test_two_keys_with_annotations() -> None:
    found, notices = read(line(spans=[[0, 8, "A"]], ents=[[0, 8, "B"]], entities=[], label=[[0, 8, "C"]]))
    assert [e.label for e in found[0].entities] == ["A"]
    told = 'is ignored: the annotations are read from "spans"'
    assert [n.message for n in notices] == [f'"ents" {told}', f'"label" {told}']


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([0, 8], "needs [start, end, label]"),
        ([0, 8, "A", "B"], "needs [start, end, label]"),
        ([0, 8, ""], '"label" must be a non-empty string'),
        ({"start": 0, "end": 8, "labels": []}, '"label" must be a non-empty string'),
        ({"start": 0, "end": 8, "labels": ["A", 7]}, '"label" must be a non-empty string'),
        ({"offset": 0, "length": 8, "label": "A"}, 'needs "start", "end" and "label"'),
        ({"value": {"start": 0, "end": 8, "text": "naloxone", "labels": ["A"]}}, "the mention does not match the text"),
    ],
)
def test_a_bad_row_of_another_tool_is_named(row: Any, message: str) -> None:
    found, (notice,) = read(line(label=[row, [0, 8, "Chemical"]]))
    assert found[0].entities == (NALOXONE,) and notice.message.startswith(f"entity 0: {message}")


@pytest.mark.parametrize("answer", ["reject", "ignore"])
def test_annotations_that_were_not_accepted_are_read_and_counted(answer: str) -> None:
    spans = rows("start", "end", "label")
    bad = line(spans=spans, answer=answer)
    found, notices = read(line(spans=spans, answer="accept") + bad + line(spans=[], answer=answer) + bad)
    assert [len(d.entities) for d in found] == [2, 2, 0, 2]
    told = '2 of the lines have "answer": "reject" or "ignore", the first is line 2; their annotations are read'
    message = f"{told} all the same: remove the lines that should not count"
    assert notices == [Notice("in.jsonl", None, message, remark=True)]


@pytest.mark.parametrize(
    "record", [{"ner": [[0, 0, "A"]]}, {"label": "POSITIVE"}, {"labels": ["a"]}, {"annotation": []}, {}]
)
def test_a_file_without_a_key_that_is_read_is_refused(record: dict[str, Any]) -> None:
    data = line(**record)
    named = ", ".join(f'"{key}"' for key in ["id", "text", *record])
    keys = "entities, spans, ents, label, labels, annotations, denotations"
    told = f"in: no document has annotations under a key that is read ({keys}); the keys are {named}"
    for refusing in (
        lambda: jsonl.refuse_unannotated(io.BytesIO(b"\n" + data * 2), "in"),
        lambda: list(jsonl.read(Source(io.BytesIO(data), "in", annotated=True), pytest.fail)),
    ):
        with pytest.raises(InputError) as refused:
            refusing()
        assert str(refused.value) == told
    annotated = data + line(entities=[])
    assert len(list(jsonl.read(Source(io.BytesIO(annotated), "in", annotated=True), pytest.fail))) == 2
    jsonl.refuse_unannotated(io.BytesIO(annotated), "in")


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

    reader = jsonl.read(Source(endless(), "-"), pytest.fail)  # type: ignore[arg-type]
    assert len(list(itertools.islice(reader, 3))) == 3
    assert next(taken) == 3
