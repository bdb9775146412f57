"""What a stream holds is known by its content, or refused; nothing is held, and nothing is lost by looking."""

from __future__ import annotations

import bz2
import gzip
import io
import itertools
import json
import lzma
import os
import sqlite3
import tarfile
import threading
import zipfile
from pathlib import Path
from typing import BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioner_edge.document import Document
from bioner_edge.errors import InputError
from bioner_edge.io import sniff
from bioner_edge.io.head import Head
from bioner_edge.io.notice import Notice
from bioner_edge.io.reading import detect, documents, read_file
from bioner_edge.io.registry import FILE_FORMATS

RECORD = b'{"id": "1", "text": "Naloxone helped."}\n'
BLOCK = b"7|t|Aspirin\n7|a|It helped.\n7\t0\t7\tAspirin\tChemical\tD1\n"


class Piece(io.RawIOBase):
    """A pipe that gives what it has in pieces of a few bytes."""

    def __init__(self, data: bytes, size: int = 3) -> None:
        self._rest = io.BytesIO(data)
        self._size = size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        part = self._rest.read(min(self._size, len(buffer)))
        buffer[: len(part)] = part
        return len(part)


def piped(data: bytes, size: int = 3) -> BinaryIO:
    return io.BufferedReader(Piece(data, size), 16)


def told(data: bytes) -> str:
    """The format of a stream, or why it is refused; the same of a file and of a pipe."""
    found = []
    for stream in (io.BytesIO(data), piped(data)):
        try:
            found.append(sniff.recognize(Head(stream)).name)
        except sniff.Unreadable as error:
            found.append(str(error))
    assert found[0] == found[1]
    return found[0]


def read(data: bytes, path: Path | None = None, file_format: str | None = None) -> tuple[list[Document], list[Notice]]:
    notices: list[Notice] = []
    known = FILE_FORMATS[file_format] if file_format else None
    return list(documents(io.BytesIO(data), "in", notices.append, path=path, file_format=known)), notices


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (RECORD, "jsonl"),
        (b"\n\n  " + RECORD, "jsonl"),
        (b"\xef\xbb\xbf" + RECORD, "jsonl"),
        (b"\r\n" + RECORD.replace(b"\n", b"\r\n"), "jsonl"),
        (b'{"text": "cut\n' + RECORD, "jsonl"),
        (b'{"data": "Naloxone", "label": []}', "jsonl"),
        (b'{"text": "' + b"x" * (2 << 20) + b'"}\n', "jsonl"),
        (b"{}\n" + RECORD, "jsonl"),
        (b"{ }\n\n{}\r\n" + RECORD, "jsonl"),
        (b'["not", "a", "record"]\n' + RECORD, "jsonl"),
        (b"[]\n" + RECORD, "jsonl"),
        (BLOCK, "pubtator"),
        (b"\n" + BLOCK, "pubtator"),
        (b"\xef\xbb\xbf" + BLOCK.replace(b"\n", b"\r\n"), "pubtator"),
        (BLOCK.replace(b"\n", b"\r"), "pubtator"),
        (b"PMC1|t|Title\n\nPMC1|a|\n", "pubtator"),
        (b"7|t|Only titles\n8|t|here\n", "pubtator"),
        (b"7|t|Only a title", "pubtator"),
        (b"7|t|A title\n7\t0\t7\tA title\tThing\n", "pubtator"),
        (b"7|a|An abstract\n7\t1\t3\tAn\tThing\n", "pubtator"),
        (b"7|t|A title\n\n8|a|An abstract\n", "pubtator"),
        (b"7|t|Aspirin\n7\tCID\tD001241\tD006973\n7|a|It helped.\n", "pubtator"),
        (b"7|t|Aspirin\n7\tCID\tD001241\tD006973\n", "pubtator"),
        (b"PMC1|t|Only titles\nPMC2|t|here\n", "pubtator"),
        (b"", "text"),
        (b" \n", "text"),
        (b"Naloxone helped.\n", "text"),
        (b"options a|t|b\nand more", "text"),
        (b"options a|t|b\n", "text"),
        (b"options a|t|b\nc|a|d\n", "text"),
        (b"options\tCID\tx\n", "text"),
        (b"[1]\n{Name} was seen", "text"),
        (b"Results:\n" + RECORD, "text"),
        (b"See the form.\n" + BLOCK, "text"),
        (b"{Name} was seen.", "text"),
        (b'{"Aspirin" was given}', "text"),
        (b"[1] Smith et al.\n[2] Jones", "text"),
        (b"[**2151-7-16**] admitted", "text"),
        (b"< 5 mg/dl of it", "text"),
        (b"<5 mg/dl</b>", "text"),
        (b"<PATIENT> was seen by <DOCTOR>.", "text"),
        (b"<PATIENT>Jane</PATIENT> was seen.", "text"),
        (b"<p53 was low", "text"),
        (b"<5 mg of it", "text"),
        (b"p<0.001 and x>3", "text"),
        (b"<Chemical> stands before a mention, </Chemical> behind it", "text"),
        (b"<Chemical>Naloxone</Chemical> reverses <Drug>clonidine</Drug>", "text"),
        (b"<Drug>Naloxone</Drug> reverses <Drug>clonidine</Drug>\n", "text"),
        (b"<Chemical>Naloxone</Chemical> reverses it & helps", "text"),
        (b"<PATIENT> was seen. " * 600, "text"),
        (b"<PATIENT> was seen. " * 60_000, "text"),
        (b"<NAME> has A&B; and asthma", "text"),
        (b"<!-- who reads this? -->", "text"),
        (b"<- see above ->", "text"),
        (b"# Notes\n<p>of a kind</p>", "text"),
        (b"Note, dictated by a doctor\nSeen today, and well", "text"),
        (b"Naive B-cell\nMemory B-cell\n", "text"),
        (b"T1 and T2 were seen\n", "text"),
        (b"PMID and so on", "text"),
        (b"caf\xe9", "text"),
        (b"Asthma\x00 eased by aspirin.", "text"),
        ("喘息".encode() * 3000, "text"),
    ],
)
def test_what_is_read(data: bytes, expected: str) -> None:
    assert told(data) == expected


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b'<?xml version="1.0"?><collection><document/></collection>', "BioC XML"),
        (b'<?xml version="1.0"?>\n<!DOCTYPE collection SYSTEM "BioC.dtd">\n<collection>', "BioC XML"),
        (b"<collection><source>x</source></collection>", "BioC XML"),
        (b"\xef\xbb\xbf\n<?xml version='1.0'?><a/>", "XML"),
        (b"<!DOCTYPE PubmedArticleSet>", "XML"),
        (b"<PubmedArticleSet>\n<PubmedArticle><PMID>1</PMID></PubmedArticle></PubmedArticleSet>", "XML"),
        (b"<note>Aspirin</note>", "XML"),
        (b"<note>Aspirin\n</note>\n<!-- so it is -->\n", "XML"),
        (b"<note>5&nbsp;mg</note>", "XML"),
        (b"<note/>", "XML"),
        (b"<!-- x --><root><a>b</a></root>", "XML"),
        (b"<!-- x --><!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>", "XML"),
        (b"<?style x?><note>Aspirin</note>", "XML"),
        (b"<root>\n<text>" + b"Aspirin helps. " * 600 + b"</text>\n</root>\n", "XML"),
        (b"<root>\n<text>" + b"<i>Aspirin</i> helps. " * 90_000, "XML"),
        (b"<DOC>\n<NO>1</NO>\n</DOC>\n<DOC>\n<NO>2</NO>\n</DOC>\n", "XML"),
        (b"{}\n{}\n", "JSON without a document"),
        (b"<html><body><p>Naloxone</p></body></html>", "HTML"),
        (b"<!doctype html>\n<title>x</title>", "HTML"),
        (b"<!-- made by hand -->\n<DIV class='note'>Naloxone</DIV>", "HTML"),
        (b'[{"text": "Naloxone"}]', "a JSON array, which is not JSON Lines"),
        (b'[\n  {"id": 5,\n "data": {}}]', "a JSON array, which is not JSON Lines"),
        (b'["Naloxone", {"entities": []}]\n', "a JSON array, which is not JSON Lines"),
        (b"[ ]\n", "JSON without a document"),
        (b'{\n  "text": "Naloxone"\n}', "JSON that is not JSON Lines (an object per line)"),
        (b'{"documents": [\n{"id": 1}]}', "JSON that is not JSON Lines (an object per line)"),
        (b'id,text\n1,"Naloxone, again"\n', "a CSV table"),
        (b'"id";"text"\n"1";"Naloxone"\n', "a CSV table"),
        (b'id,text\n1,"Naloxone\nreverses it"\n', "a CSV table"),
        (b"pmid\ttitle\n1\tNaloxone\n", "a TSV table"),
        (b"Naloxone\tB-Chemical\nreverses\tO\n", "CoNLL columns"),
        (b"-DOCSTART- -X- O O\n\nNaloxone NN B-NP B-Chemical\n", "CoNLL columns"),
        (b"Naloxone NN B-Chemical\nhelps VB O\n", "CoNLL columns"),
        (b"T1\tChemical 0 8\tNaloxone\n", "annotations of brat without their text"),
        (b"T1\tDisease 0 5;8 9\tRenal e\n", "annotations of brat without their text"),
        (b"\nPMID- 90000001\nOWN - NLM\n", "a MEDLINE export"),
        (b"TY  - JOUR\nTI  - x\n", "an RIS export"),
    ],
)
def test_markup_is_named_and_text_if_one_says_so(data: bytes, what: str) -> None:
    assert told(data) == (
        f"holds {what}; convert it to text, JSON Lines or PubTator, or give --from text to read it as it stands"
    )
    for path in (None, Path("note.txt"), Path("note")):
        found, (notice,) = read(data, path)
        assert found == [] and notice.text_lost and f"in: holds {what}; " in str(notice)
    (document,), notices = read(data, Path("note.txt"), "text")
    assert (document.text.encode(), notices) == (data, [])


def test_markdown_may_begin_with_html() -> None:
    (document,), notices = read(b"<p align=center>Naloxone</p>\n", Path("note.md"))
    assert document.text.startswith("<p") and notices == []


def zipped(*names: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(name, "Naloxone " * 99)
    return stream.getvalue()


def tar() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        info = tarfile.TarInfo("note.txt")
        info.size = 8
        archive.addfile(info, io.BytesIO(b"Naloxone"))
    return stream.getvalue()


def database() -> bytes:
    connection = sqlite3.connect(":memory:")
    connection.execute("create table notes (text)")
    return connection.serialize()


BINARY = {
    "a PDF": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n",
    "a Word document (DOCX)": zipped("[Content_Types].xml", "_rels/.rels", "word/document.xml"),
    "an Excel workbook (XLSX)": zipped("[Content_Types].xml", "xl/workbook.xml"),
    "an OpenDocument file": b"PK\x03\x04\x14\x00mimetypeapplication/vnd.oasis.opendocument.text",
    "a ZIP archive": zipped("note.txt"),
    "an old Office document (DOC, XLS, PPT or MSG)": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\x00" * 16,
    "RTF": b"{\\rtf1\\ansi Naloxone}",
    "compressed with gzip": gzip.compress(RECORD, mtime=0),
    "compressed with bzip2": bz2.compress(RECORD),
    "compressed with xz": lzma.compress(RECORD),
    "compressed with zstd": b"\x28\xb5\x2f\xfd\x04\x00\x41\x00\x00Naloxone",
    "a tar archive": tar(),
    "an SQLite database": database(),
    "a Parquet table": b"PAR1\x15\x04\x15\x00\x15\x02",
    "a Python pickle": b"\x80\x04\x95\x0c\x00\x00\x00\x00\x00\x00\x00\x8c\x08Naloxone\x94.",
    "an image (PNG)": b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR",
    "an image (JPEG)": b"\xff\xd8\xff\xe0\x00\x10JFIF\x00",
    "an image (TIFF)": b"II*\x00\x08\x00\x00\x00",
    "an image (DICOM)": b"\x00" * 128 + b"DICM\x02\x00",
    "a program": b"\x7fELF\x02\x01\x01\x00",
    "macOS metadata of a file (AppleDouble)": b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        \x00\x02",
    "UTF-16": "Naloxone".encode("utf-16"),
    "UTF-32": b"\xff\xfe\x00\x00N\x00\x00\x00",
}


@pytest.mark.parametrize("name", ["note.txt", "note.md", "note", "note.jsonl", "note.pubtator", None])
@pytest.mark.parametrize(("what", "data"), BINARY.items(), ids=BINARY.keys())
def test_binary_data_are_named_whatever_they_are_called(what: str, data: bytes, name: str | None) -> None:
    path = Path(name) if name else None
    for file_format in (None, "text", "jsonl"):
        found, (notice,) = read(data, path, file_format)
        assert found == [] and notice.text_lost
        assert str(notice).startswith(f"in: is {what}; ") and "\n" not in str(notice)


@pytest.mark.parametrize("order", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_mark(order: str) -> None:
    assert told("Naloxone reverses clonidine.\n".encode(order)).startswith("is UTF-16; convert it: iconv -f")


@pytest.mark.parametrize(
    "data", [b"\x00\x01\x02\x03" * 99, b"abc\x00\xff\xfe\x10", b"\x01Naloxone\x00\x00\x00\x00\x02"]
)
def test_other_data_with_nul_are_binary(data: bytes) -> None:
    assert told(data) == f"is binary data (NUL at byte offset {data.index(0)}); save its text first"


def test_characters_are_text_if_one_says_so() -> None:
    assert read(b"\x00\x01", None, "text") == ([Document("in", "\x00\x01")], [])
    assert read(b"\x00\xff", None, "text")[1][0].message.startswith("is binary data")


def test_a_text_may_begin_like_data_and_hold_nul() -> None:
    for text in (
        "MZ twins with asthma",
        "PAR1 was raised",
        "GIF8 is no gene",
        "BM aspirate",
        "RIFF",
        "II",
        "Asthma\x00 eased. " * 9,
    ):
        assert read(text.encode()) == ([Document("in", text)], [])


def test_what_is_not_utf_8_stays_named_as_that() -> None:
    assert read(b"caf\xe9 au lait") == (
        [],
        [Notice("in", None, "not UTF-8: byte 0xe9 at byte offset 3; convert the file to UTF-8", text_lost=True)],
    )


def test_a_text_that_holds_another_format_is_read_as_that_and_it_is_said() -> None:
    for data, title, kind in ((BLOCK, "PubTator", "pubtator"), (RECORD, "JSON Lines", "jsonl")):
        found, notices = read(data, Path("note.txt"))
        assert (found, []) == read(data, None, kind)
        message = f"read as {title}, which it holds; --from text reads it as it stands"
        assert notices == [Notice("in", None, message, remark=True)]
        assert read(data) == (found, []) and read(data, Path("note")) == (found, [])
        assert read(data, Path("note.txt"), "text") == ([Document("in", data.decode())], [])


def test_the_content_does_not_overrule_a_name_that_tells() -> None:
    assert read(BLOCK, Path("note.jsonl"))[0] == [] and len(read(BLOCK, Path("note.jsonl"))[1]) == 3


@given(st.binary() | st.text(st.sampled_from('{}[]<>"|ta:,\t\n\r 07T1\x00é')).map(str.encode), st.integers(1, 9))
def test_looking_loses_no_byte(data: bytes, size: int) -> None:
    for stream in (io.BytesIO(data), piped(data, size)):
        head = Head(stream)
        try:
            sniff.recognize(head)
        except sniff.Unreadable:
            continue
        finally:
            assert head.stream().read() == data


def test_a_stream_is_taken_from_where_it_stands() -> None:
    stream = io.BytesIO(b"read before\n" + RECORD)
    stream.readline()
    assert [d.text for d in documents(stream, "in", pytest.fail)] == ["Naloxone helped."]


def test_a_long_pipe_is_never_held() -> None:
    taken = 0

    class Endless(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
            nonlocal taken
            taken += 1
            buffer[: len(RECORD)] = RECORD
            return len(RECORD)

    found = documents(io.BufferedReader(Endless()), "in", pytest.fail)
    assert len(list(itertools.islice(found, 100))) == 100
    assert taken <= 101


@pytest.mark.parametrize("file_format", [None, "jsonl"])
def test_who_writes_into_a_pipe_may_wait_for_the_answer(file_format: str | None) -> None:
    ours, theirs = os.pipe()
    answered = threading.Event()

    def write() -> None:
        for _ in range(3):
            answered.clear()
            os.write(theirs, RECORD)
            if not answered.wait(20):
                break
        os.close(theirs)

    writer = threading.Thread(target=write)
    writer.start()
    with os.fdopen(ours, "rb") as stream:
        texts = []
        for document in documents(stream, "in", pytest.fail, file_format=FILE_FORMATS.get(file_format or "")):
            texts.append(document.text)
            answered.set()
    writer.join()
    assert texts == ["Naloxone helped."] * 3


def test_a_file_by_its_content(tmp_path: Path) -> None:
    for name, data, expected in (
        ("a.txt", BLOCK, "pubtator"),
        ("b.txt", RECORD, "jsonl"),
        ("c.txt", b"Naloxone", "text"),
        ("d", RECORD, "jsonl"),
        ("e.txt", b"<html>", "text"),
        ("f.xml", RECORD, None),
        ("g.md", BLOCK, "text"),
    ):
        (tmp_path / name).write_bytes(data)
        found = detect(tmp_path / name)
        assert (found and found.name) == expected


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.tsv", BLOCK, "the suffix .tsv is not known ({}); it holds PubTator: give --from pubtator"),
        ("a.json", RECORD, "the suffix .json is not known ({}); it holds JSON Lines: give --from jsonl"),
        ("a.doc", b"fever", "the suffix .doc is not known ({}); give --from text to read it as plain text"),
        (
            "a.pdf",
            BINARY["a PDF"],
            "the suffix .pdf is not known ({}); the file is a PDF; save its text first",
        ),
        ("a.txt.gz", gzip.compress(RECORD, mtime=0), ".gz files are not read; unpack it first"),
        ("a.xml", b"<?xml version='1.0'?>", "the suffix .xml is not known ({}); the file holds XML; convert it"),
    ],
)
def test_a_suffix_that_is_not_known(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError) as refused:
        list(read_file(tmp_path / name, pytest.fail))
    known = ".txt, .text, .md, .jsonl, .ndjson, .pubtator, .ann, .a1, .a2"
    assert str(refused.value).startswith(f"{tmp_path / name}: {message.format(known)}")


def test_read_file_takes_a_string_and_warns(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(RECORD + b"nonsense\n" + json.dumps({"text": "x", "entities": [7]}).encode())
    with pytest.warns(UserWarning) as warned:
        assert [d.text for d in read_file(str(path))] == ["Naloxone helped.", "x"]
    assert [str(w.message) for w in warned] == [
        f"{path}:2: not JSON: Expecting value at column 1",
        f'{path}:3: entity 0: needs "start", "end" and "label"',
    ]
