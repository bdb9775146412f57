from __future__ import annotations

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioner_edge.document import Document
from bioner_edge.errors import InputError, UsageError
from bioner_edge.io import plain
from bioner_edge.io.contract import Source
from bioner_edge.io.notice import Notice
from bioner_edge.io.reading import read_file
from bioner_edge.io.registry import FILE_FORMATS, by_suffix, find_reader, find_writer


def read(data: bytes) -> tuple[list[Document], list[Notice]]:
    notices: list[Notice] = []
    return list(plain.read(Source(io.BytesIO(data), "note.txt"), notices.append)), notices


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_every_character_is_kept(written: str) -> None:
    assert read(written.encode()) == ([Document("note.txt", written)], [])


def test_offsets_are_those_of_the_file_whatever_its_line_ends() -> None:
    written = "\ufeffOne\r\nTwo\rThree\x00\u2028Four\x85"
    assert read(written.encode())[0][0].text == written


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is empty"),
        (b"caf\xe9", "not UTF-8: byte 0xe9 at byte offset 3; convert the file to UTF-8"),
        ("Hi".encode("utf-16"), "not UTF-8: byte 0xff at byte offset 0; convert the file to UTF-8"),
        (b"\xed\xb0\x80", "not UTF-8: byte 0xed at byte offset 0; convert the file to UTF-8"),
    ],
)
def test_what_cannot_be_read_is_reported(data: bytes, message: str) -> None:
    assert read(data) == ([], [Notice("note.txt", None, message, text_lost=True)])


def test_a_notice_says_where() -> None:
    assert str(Notice("a.jsonl", 3, "is bad")) == "a.jsonl:3: is bad"
    assert str(Notice("a.txt", None, "is bad")) == "a.txt: is bad"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("note.txt", "text"),
        ("NOTE.TXT", "text"),
        ("README.md", "text"),
        ("a.jsonl", "jsonl"),
        ("a.ndjson", "jsonl"),
        ("Train.PubTator", "pubtator"),
        ("dev.PubTator.txt", "pubtator"),
        ("a.xml", None),
        ("a", None),
        (".txt", None),
    ],
)
def test_the_extension_tells_the_format(name: str, expected: str | None) -> None:
    found = by_suffix(name)
    assert (found and found.name) == expected


def test_unknown_formats_are_named_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"^unknown input format 'docx'; known: text, jsonl, pubtator, brat, bc2gm$"):
        find_reader("docx")
    with pytest.raises(UsageError, match=r"^unknown output format 'text'; known: jsonl, pubtator, brat$"):
        find_writer("text")
    assert [known.name for known in map(find_reader, ("text", "jsonl", "pubtator", "brat", "bc2gm"))] == list(
        FILE_FORMATS
    )
    assert all(find_writer(name).is_written for name in ("jsonl", "pubtator", "brat"))


def test_a_file_that_cannot_be_opened_or_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.txt: cannot be read: No such file or directory$"):
        list(read_file(tmp_path / "absent.txt", pytest.fail))
    (tmp_path / "folder.txt").mkdir()
    with pytest.raises(InputError, match=r"folder\.txt: cannot be read: Is a directory$"):
        list(read_file(tmp_path / "folder.txt", pytest.fail))
    (tmp_path / "notes.doc").write_text("fever")
    with pytest.raises(
        InputError, match=r"notes\.doc: the suffix \.doc is not known .*; give --from text to read it as plain text$"
    ):
        list(read_file(tmp_path / "notes.doc", pytest.fail))
    path = tmp_path / "notes.doc"
    assert list(read_file(path, pytest.fail, name="n", file_format="text")) == [Document("n", "fever")]
