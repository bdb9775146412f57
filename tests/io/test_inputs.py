"""Which files stand behind names: what is read, what is refused, what is passed over, and what of it is said."""

from __future__ import annotations

import io
import os
import sys
import threading
from pathlib import Path

import pytest

from bioner_edge.errors import InputError
from bioner_edge.io.inputs import Inputs
from bioner_edge.io.registry import Notice

APPLE_DOUBLE = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        \x00\x02"
UNKNOWN = "(.txt, .text, .md, .jsonl, .ndjson, .pubtator, .ann, .a1, .a2)"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def put(*names: str, data: bytes = b"Naloxone.") -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(data)


def found(*names: str, file_type: str | None = None) -> tuple[list[str], list[str]]:
    """(ids of the documents, what was said)."""
    notices: list[Notice] = []
    inputs = Inputs(names, notices.append, file_type)
    return [d.id for d in inputs], [str(n) for n in notices]


def refused(*names: str, annotated: bool = False) -> str:
    with pytest.raises(InputError) as error:
        Inputs(names, pytest.fail, annotated=annotated)
    return str(error.value)


HIDDEN = (".hidden.txt", "._1.txt", "._1.ann", "__MACOSX/1.txt", "__MACOSX/a/._1.txt", ".ipynb_checkpoints/1.txt")


@pytest.mark.parametrize("file_type", [None, "text", "brat"])
def test_hidden_files_of_a_folder_are_passed_over(file_type: str | None) -> None:
    put("n/1.txt", "n/a/2.txt", *(f"n/{name}" for name in HIDDEN), "n/a/.git/3.txt", data=b"Naloxone.")
    ids = ["1", "a/2"] if file_type == "brat" else ["1.txt", "a/2.txt"]
    assert found("n", file_type=file_type) == (ids, [])


@pytest.mark.parametrize("pattern", ["n/**/*.txt", "n/**", "n/*/../*.txt", "*/[!x]*.txt", "n/*/1.txt", "n/?_1.txt"])
def test_hidden_files_are_passed_over_by_patterns(pattern: str) -> None:
    put("n/1.txt", "n/a/1.txt", *(f"n/{name}" for name in HIDDEN), "n/a_1.txt")
    ids, told = found(pattern)
    assert told == [] and ids and not any("MACOSX" in i or "/." in i or i.startswith(".") for i in ids)
    assert len(ids) == {"n/**/*.txt": 3, "n/**": 3, "n/*/../*.txt": 2, "*/[!x]*.txt": 2}.get(pattern, 1)


def test_what_the_shell_makes_of_a_pattern() -> None:
    put("n/1.txt", "n/__MACOSX/._1.txt")
    assert found("n/1.txt", "n/__MACOSX") == (["1.txt"], [])
    assert refused("n/__MACOSX").startswith("n/__MACOSX: no documents in this folder (*.txt, *.text, *.md, *.jsonl,")


def test_a_hidden_file_or_folder_that_is_named_is_read() -> None:
    put(".notes/1.txt", ".note.txt", ".cache/2.txt")
    assert found(".notes", ".note.txt", ".cache/*.txt") == (["1.txt", ".note.txt", "2.txt"], [])
    put("._1.txt", data=APPLE_DOUBLE)
    assert found("._1.txt") == (
        [],
        ["._1.txt: is what macOS keeps beside a file (AppleDouble); delete it"],
    )


def test_what_is_left_out_of_a_folder_is_counted() -> None:
    put("n/1.txt", "n/2.pdf", "n/3.PDF", "n/a/4.csv", "n/README", "n/1.a2")
    told = "n: 4 files are left out, of no known suffix: .pdf 2, .csv 1, no suffix 1"
    (ids, notices) = found("n")
    assert (ids, sorted(notices[0].split(", ")), len(notices)) == (["1"], sorted(told.split(", ")), 1)
    put("m/1.txt", *(f"m/1.x{n}" for n in range(9)))
    assert found("m")[1][0].endswith(", …")
    put("l/1.txt", "l/1.xml")
    assert found("l")[1] == ["l: 1 file is left out, of no known suffix: .xml 1"]


def test_what_is_left_out_by_a_pattern_is_counted() -> None:
    put("1.txt", "2.csv", "3")
    assert found("*") == (["1.txt", "3"], ["*: 1 file is left out, of no known suffix: .csv 1"])
    assert refused("*.csv").startswith(f"2.csv: the suffix .csv is not known {UNKNOWN}; ")


def test_a_named_file_of_no_known_suffix_is_refused_before_anything_is_read() -> None:
    put("1.txt", "2.rst")
    told = f"2.rst: the suffix .rst is not known {UNKNOWN}; give --from text to read it as plain text"
    assert refused("1.txt", "2.rst") == told
    assert found("1.txt", "2.rst", file_type="text") == (["1.txt", "2.rst"], [])


def test_a_name_without_a_suffix_is_known_by_its_content() -> None:
    put("note", "v1.2/note.")
    put("lines", data=b'{"id": "7", "text": "x"}\n')
    put("page", data=b"<html><body>Naloxone</body></html>")
    ids, (told,) = found("note", "v1.2/note.", "lines", "page")
    assert ids == ["note", "note.", "7"] and told.startswith("page: holds HTML; ")


def test_a_named_pipe_is_known_by_its_content() -> None:
    os.mkfifo("pipe")
    data = b"7|t|Aspirin\n7|a|It helped.\n"
    writer = threading.Thread(target=lambda: Path("pipe").write_bytes(data))
    writer.start()
    assert found("pipe") == (["7"], [])
    writer.join()


@pytest.mark.parametrize(
    ("data", "ids"),
    [(b"Naloxone.", ["stdin"]), (b'\n{"text": "x"}\n', ["stdin:2"]), (b"7|t|A\n7|a|B\n8|t|C\n", ["7", "8"])],
)
def test_standard_input_is_known_by_its_content(monkeypatch: pytest.MonkeyPatch, data: bytes, ids: list[str]) -> None:
    for _ in range(2):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        assert found() == (ids, [])
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert found("-", file_type="text") == (["stdin"], [])


def test_what_was_read_is_counted_in_bytes() -> None:
    put("1.txt")
    put("2.txt", data=b'{"id": "7", "text": "x"}\n')
    inputs = Inputs(["1.txt", "2.txt"], lambda notice: None)
    assert len(list(inputs)) == 2 and inputs.done_bytes == inputs.total_bytes


FOREIGN = b'{"id": "1", "text": "Naloxone", "ner": [[0, 0, "Chemical"]], "tokens": []}\n'
TOLD = (
    "under a key that is read (entities, spans, ents, label, labels, annotations, denotations); "
    'the keys are "id", "text", "ner", '
)


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt", "a"])
def test_json_lines_without_annotations_that_are_read_are_refused(name: str) -> None:
    put(name, data=FOREIGN * 2)
    assert refused(name, annotated=True) == f'{name}: no document has annotations {TOLD}"tokens"'
    assert len(found(name)[0]) == 2  # it is not asked of plain extraction
    put(name, data=FOREIGN + b'nonsense\n{"text": "x", "spans": []}\n')
    assert len(list(Inputs([name], lambda notice: None, annotated=True))) == 2


def test_those_of_a_stream_are_told_when_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read of it is written by then: it would be lost where that were an error."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(FOREIGN)))
    told: list[str] = []
    assert len(list(Inputs(["-"], lambda notice: told.append(str(notice)), annotated=True))) == FOREIGN.count(b"\n")
    (message,) = told
    assert message.startswith("stdin: no document has annotations under a key that is read ")


def test_other_files_need_no_key() -> None:
    put("a.txt", "b.md")
    put("c.jsonl", data=b"")
    put("d.jsonl", data=b"nonsense")
    assert len(list(Inputs(["a.txt", "b.md", "c.jsonl", "d.jsonl"], lambda notice: None, annotated=True))) == 2
