"""Predictions of anybody beside their gold: what is paired, what is named, what counts as wrong."""

from __future__ import annotations

import io
import json
from collections import Counter
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioner_edge.benchmarks.scoring.alignment import Alignment, Prediction, align, keys, read_predictions, same_text
from bioner_edge.document import Document, Entity, Span
from bioner_edge.errors import InputError
from bioner_edge.extraction import Extraction
from bioner_edge.io import brat, jsonl, pubtator
from bioner_edge.io.contract import WriteSettings
from bioner_edge.io.folder import Folder
from bioner_edge.io.notice import Notice

TEXT = "Naloxone and asthma."
DRUG, DISEASE = Entity.at("Drug", 0, 8), Entity.at("Disease", 13, 19)
GOLD = [Document("7", TEXT, (DRUG, DISEASE)), Document("8", "None here.")]


def written(path: Path, *records: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    return str(path)


def record(identifier: str, text: str, *rows: tuple[int, int, str, str], **more: Any) -> dict[str, Any]:
    entities = [{"start": a, "end": b, "label": label, "text": mention} for a, b, label, mention in rows]
    return {"id": identifier, "text": text, "entities": entities, **more}


def read(*paths: str) -> tuple[list[Prediction], list[str]]:
    notices: list[Notice] = []
    return list(read_predictions(paths, notices.append)), list(map(str, notices))


def of(*documents: Document) -> list[Prediction]:
    return [Prediction(document) for document in documents]


@pytest.mark.parametrize("kind", ["jsonl", "pubtator", "brat"])
def test_three_kinds_of_files_say_the_same(tmp_path: Path, kind: str) -> None:
    documents = [Document("7", TEXT, (DRUG, DISEASE), title_end=12), Document("8", "None here.")]
    path = tmp_path / f"found.{kind}"
    if kind == "brat":
        assert brat.FILE_FORMAT.folder_writer
        writer = brat.FILE_FORMAT.folder_writer(WriteSettings())
        with closing(Folder(path, writer.suffixes)) as folder:
            for document in documents:
                folder.write(folder.name(document), writer.render(Extraction(document, document.entities)))
    else:
        with path.open("w", encoding="utf-8") as stream:
            for document in documents:
                {"jsonl": jsonl.write, "pubtator": pubtator.write}[kind](document, stream)
    predictions, notices = read(str(path))
    aligned = align(predictions, GOLD)
    assert [(p.key, p.text, tuple(p.predicted), tuple(p.gold)) for p in aligned.pairs] == [
        ("7", TEXT, (DRUG, DISEASE), (DRUG, DISEASE)),
        ("8", "None here.", (), ()),
    ]
    assert not notices and not (aligned.missing or aligned.changed or aligned.failed or aligned.beside)


def test_the_order_is_that_of_the_gold() -> None:
    aligned = align(of(*GOLD[::-1]), GOLD)
    assert [(p.key, len(p.predicted)) for p in aligned.pairs] == [("7", 2), ("8", 0)]


def test_ids_that_come_again_are_paired_by_their_turn() -> None:
    gold = [Document("a", "one", (Entity.at("X", 0, 3),)), Document("b", "b"), Document("a", "two"), Document("a", "3")]
    assert [key for key, _ in keys(gold)] == ["a", "b", "a#2", "a#3"]
    aligned = align(of(Document("a", "one"), Document("a", "two", (Entity.at("X", 0, 3),)), Document("b", "b")), gold)
    assert [(p.key, len(p.predicted), len(p.gold)) for p in aligned.pairs] == [
        ("a", 0, 1), ("b", 0, 0), ("a#2", 1, 0), ("a#3", 0, 0)
    ]  # fmt: skip
    assert (aligned.missing, aligned.changed) == (["a#3"], [])


@given(st.lists(st.sampled_from(["a", "a#2", "a#3", "a#2#2", "b"]), max_size=12))
def test_no_two_documents_have_one_key(ids: list[str]) -> None:
    found = [key for key, _ in keys(Document(i, "") for i in ids)]
    assert len(set(found)) == len(ids)
    assert all(found[ids.index(i)] == i for i in ids if "#" not in i)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("a b", "a b", True),
        ("a\nb", "a b", True),
        ("a\u00a0b\t", "a b\n", True),
        ("a b", "a  b", False),  # one for one
        ("a b", "a b ", False),
        ("a b", "a-b", False),
        ("a-b", "a b", False),
        ("a b", "A b", False),
    ],
)
def test_what_is_the_same_text(one: str, other: str, same: bool) -> None:
    assert same_text(one, other) is same and same_text(other, one) is same


def test_white_space_may_be_another() -> None:
    aligned = align(of(Document("7", TEXT.replace(" ", "\n"), (DRUG,))), GOLD[:1])
    assert (aligned.changed, len(aligned.pairs[0].predicted)) == ([], 1)
    assert aligned.pairs[0].text == TEXT


def test_what_has_no_prediction_or_one_of_another_text_is_missed_and_named() -> None:
    gold = [*GOLD, Document("9", TEXT, (DRUG,))]
    found = [
        *of(Document("7", TEXT + "!", (DRUG, DISEASE)), Document("99", TEXT)),
        Prediction(Document("9", TEXT, (DRUG,)), error="no room", problems=("cut",)),
    ]
    aligned = align(found, gold)
    assert (aligned.missing, aligned.changed, aligned.failed, aligned.beside) == (["8"], ["7"], ["9"], 1)
    assert [(p.key, list(p.predicted), len(p.gold)) for p in aligned.pairs] == [
        ("7", [], 2),
        ("8", [], 0),
        ("9", [], 1),
    ]
    assert aligned.used == []


def test_labels_are_renamed_and_so_are_those_that_are_astray() -> None:
    found = [Prediction(Document("7", TEXT, (DRUG, DISEASE)), astray=("Drug", "Disease"))]
    (pair,) = align(found, GOLD[:1], {"Drug": "Chemical"}).pairs
    assert [e.label for e in pair.predicted] == ["Chemical", "Disease"] and list(pair.astray) == ["Chemical", "Disease"]
    assert [e.label for e in pair.gold] == ["Drug", "Disease"]  # the gold's own names stay


def test_entities_of_json_lines_that_are_not_at_their_offsets(tmp_path: Path) -> None:
    rows = [(0, 8, "Drug", "Naloxone"), (0, 8, "Drug", "naloxone"), (13, 99, "Disease", "asthma")]
    path = written(tmp_path / "p.jsonl", record("7", TEXT, *rows, (3, 3, "Disease", "")))
    (prediction,), notices = read(path)
    assert prediction.document.entities == (DRUG,)
    assert Counter(prediction.astray) == {"Drug": 1, "Disease": 2}
    assert len(notices) == 3 and notices[0].startswith("p.jsonl:1: entity 1: the mention does not match")


def test_an_entity_without_a_label_is_astray_too(tmp_path: Path) -> None:
    line = {"id": "7", "text": TEXT, "entities": [{"start": 0, "end": 8}, 5, {"start": 0, "end": 8, "label": 3}]}
    (prediction,), _ = read(written(tmp_path / "p.jsonl", line))
    assert prediction.astray == ("", "", "")


def test_rows_of_pubtator_that_are_not_at_their_offsets(tmp_path: Path) -> None:
    path = tmp_path / "p.PubTator.txt"
    good = f"7|t|{TEXT}\n7\t0\t8\tNaloxone\tDrug\tD009270\n"
    bad = "7\t13\t19\tAsthma\tDisease\r\n7\t1\t99\tasthma\tDisease\n7\t-1\t8\tNaloxone\tDrug\tD1\nnonsense\n"
    path.write_text(f"{good}{bad}\n8|t|None here.\n\n9|t|{TEXT}\n9\t0\t9\tNaloxone\tDrug\n", "utf-8")
    predictions, notices = read(str(path))
    assert [(p.document.id, p.astray) for p in predictions] == [
        ("7", ("Disease", "Disease", "Drug")), ("8", ()), ("9", ("Drug",))
    ]  # fmt: skip
    assert len(notices) == 5


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_any_line_ends_are_those_of_the_reader(tmp_path: Path, end: str) -> None:
    rows = [f"7|t|{TEXT}", "7\t0\t8\tNaloxone\tDrug", "7\t13\t19\tAsthma\tDisease", "7\t1\t99\tasthma\tDisease", ""]
    (tmp_path / "p.pubtator").write_bytes(end.join(rows).encode())
    (prediction,), notices = read(str(tmp_path / "p.pubtator"))
    assert (prediction.document.entities, prediction.astray) == ((DRUG,), ("Disease", "Disease"))
    assert [notice.split(": ")[0] for notice in notices] == ["p.pubtator:3", "p.pubtator:4"]
    (tmp_path / "8.txt").write_text(TEXT, "utf-8")
    standoff = ["T1\tDrug 0 8\tNaloxone", "T2\tDisease 0 6\tasthma", "T3\tDrug 0 99\tx", ""]
    (tmp_path / "8.ann").write_bytes(end.join(standoff).encode())
    (prediction,), _ = read(str(tmp_path / "8.txt"))
    assert (prediction.document.entities, prediction.astray) == ((DRUG,), ("Disease", "Drug"))


def test_a_row_that_is_not_utf_8_is_astray(tmp_path: Path) -> None:
    (tmp_path / "p.pubtator").write_bytes(f"7|t|{TEXT}\n7\t0\t8\t".encode() + b"Nalox\xf6ne\tDrug\n")
    (prediction,), _ = read(str(tmp_path / "p.pubtator"))
    assert prediction.astray == ("Drug",)


def test_rows_of_brat_that_are_not_at_their_offsets(tmp_path: Path) -> None:
    for name in ("7", "8"):
        (tmp_path / f"{name}.txt").write_text(TEXT, "utf-8")
    good = "T1\tDrug 0 8\tNaloxone\n"
    (tmp_path / "7.ann").write_text(f"{good}T2\tDisease 0 6\tasthma\nT3\tDrug 0 99\tx\nE1 what\n", "utf-8")
    (tmp_path / "8.ann").write_text(good, "utf-8")
    (tmp_path / "9.txt").write_text(TEXT, "utf-8")
    predictions, notices = read(str(tmp_path))
    assert [(p.document.id, p.astray, len(p.document.entities)) for p in predictions] == [
        ("7", ("Disease", "Drug"), 1), ("8", (), 1)
    ]  # fmt: skip
    assert notices[-1] == "9.txt: no prediction in it: neither JSON Lines nor PubTator, and no .ann beside it"
    assert len(notices) == 4


def test_what_extract_tells_of_its_answers(tmp_path: Path) -> None:
    problems = [{"kind": "syntax", "message": "m"}, {"kind": "cut", "message": "m"}, "odd"]
    path = written(
        tmp_path / "p.jsonl",
        record("1", TEXT),
        record("2", TEXT, problems=problems, broken_answers=2, salvaged=5),
        record("3", TEXT, problems=problems[:1]),
        record("4", TEXT, error="too long"),
        record("5", TEXT, broken_answers=0, salvaged=0, error=None, problems=None),
    )
    predictions, notices = read(path)
    told = [(p.problems, p.broken_answers, p.salvaged, p.error) for p in predictions]
    assert told == [
        ((), 0, 0, None),
        (("syntax", "cut", "unknown"), 2, 5, None),
        (("syntax",), None, None, None),
        ((), 0, 0, "too long"),
        ((), 0, 0, None),
    ]
    assert not notices


def test_lines_that_are_no_documents_are_told_and_the_rest_keeps_its_own_facts(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    first, last = record("1", TEXT, problems=[{"kind": "cut"}]), record("2", TEXT, (0, 8, "Drug", "wrong"))
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(first).encode() + b"\n\n{\n" + json.dumps(last).encode())
    predictions, notices = read(str(path))
    assert [(p.document.id, p.problems, p.astray) for p in predictions] == [("1", ("cut",), ()), ("2", (), ("Drug",))]
    assert [notice.split(": ")[0] for notice in notices] == ["p.jsonl:3", "p.jsonl:4"]


def test_standard_input_is_json_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    line = json.dumps(record("7", TEXT, (0, 8, "Drug", "Naloxone"))).encode()
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(line)))
    (prediction,), _ = read("-")
    assert prediction.document.entities == (DRUG,)


def test_files_that_are_not_there_or_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file or folder"):
        read(str(tmp_path / "none.jsonl"))
    (tmp_path / "loop.jsonl").symlink_to(tmp_path / "p.jsonl")
    written(tmp_path / "p.jsonl", record("7", TEXT))
    notices: list[Notice] = []
    predictions = read_predictions([str(tmp_path / "loop.jsonl")], notices.append)
    (tmp_path / "p.jsonl").unlink()
    with pytest.raises(InputError):
        list(predictions)


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["one", "two"])), max_size=6),
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["one", "two"])), max_size=6),
)
def test_every_document_of_both_sides_is_accounted_for(
    found: list[tuple[str, str]], gold: list[tuple[str, str]]
) -> None:
    aligned: Alignment = align(of(*(Document(i, text) for i, text in found)), [Document(i, text) for i, text in gold])
    assert len(aligned.pairs) == len(gold)
    assert len(aligned.used) + len(aligned.changed) + len(aligned.missing) == len(gold)
    assert len(aligned.used) + len(aligned.changed) + aligned.beside == len(found)


def test_a_discontinuous_mention(tmp_path: Path) -> None:
    entity = Entity("Disease", (Span(0, 3), Span(9, 12)))
    (tmp_path / "p.jsonl").write_text(json.dumps(Document("7", TEXT, (entity,)).to_json()))
    (prediction,), _ = read(str(tmp_path / "p.jsonl"))
    assert prediction.document.entities == (entity,) and prediction.astray == ()
