"""Which files stand behind names: what is read, what is refused, what is passed over, and what of it is said."""

from __future__ import annotations

import glob
import io
import os
import sys
import threading
from pathlib import Path

import pytest

from bioner_edge.errors import InputError
from bioner_edge.io.inputs import Inputs
from bioner_edge.io.notice import Notice
from bioner_edge.io.walk import match

APPLE_DOUBLE = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        \x00\x02"
UNKNOWN = "(.txt, .text, .md, .jsonl, .ndjson, .pubtator, .ann, .a1, .a2)"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def put(*names: str, data: bytes = b"Naloxone.") -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(data)


def found(*names: str, file_format: str | None = None) -> tuple[list[str], list[str]]:
    """(ids of the documents, what was said)."""
    notices: list[Notice] = []
    inputs = Inputs(names, notices.append, file_format)
    return [d.id for d in inputs], [str(n) for n in notices]


def refused(*names: str, annotated: bool = False) -> str:
    with pytest.raises(InputError) as error:
        Inputs(names, pytest.fail, annotated=annotated)
    return str(error.value)


HIDDEN = (".hidden.txt", "._1.txt", "._1.ann", "__MACOSX/1.txt", "__MACOSX/a/._1.txt", ".ipynb_checkpoints/1.txt")


@pytest.mark.parametrize("file_format", [None, "text", "brat"])
def test_hidden_files_of_a_folder_are_passed_over(file_format: str | None) -> None:
    put("n/1.txt", "n/a/2.txt", *(f"n/{name}" for name in HIDDEN), "n/a/.git/3.txt", data=b"Naloxone.")
    ids = ["1", "a/2"] if file_format == "brat" else ["1.txt", "a/2.txt"]
    assert found("n", file_format=file_format) == (ids, [])


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
        ["._1.txt: is macOS metadata of a file (AppleDouble); delete it"],
    )


def test_what_is_left_out_of_a_folder_is_counted() -> None:
    put("n/1.txt", "n/2.pdf", "n/3.PDF", "n/a/4.csv", "n/README", "n/1.a2")
    assert found("n") == (
        ["1"],
        [
            "n: 3 files are left out, of unknown suffix: .pdf 2, .csv 1",
            "n: 1 file is left out, without a suffix and not a document: README is about the others",
        ],
    )
    put("m/1.txt", *(f"m/1.x{n}" for n in range(9)))
    assert found("m")[1][0].endswith(", …")
    put("l/1.txt", "l/1.xml")
    assert found("l")[1] == ["l: 1 file is left out, of unknown suffix: .xml 1"]


def test_what_is_left_out_by_a_pattern_is_counted() -> None:
    put("1.txt", "2.csv", "3")
    assert found("*") == (["1.txt", "3"], ["*: 1 file is left out, of unknown suffix: .csv 1"])
    assert refused("*.csv").startswith(f"2.csv: the suffix .csv is not known {UNKNOWN}; ")


def test_a_named_file_of_no_known_suffix_is_refused_before_anything_is_read() -> None:
    put("1.txt", "2.rst")
    told = f"2.rst: the suffix .rst is not known {UNKNOWN}; give --from text to read it as plain text"
    assert refused("1.txt", "2.rst") == told
    assert found("1.txt", "2.rst", file_format="text") == (["1.txt", "2.rst"], [])


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
    assert found("-", file_format="text") == (["stdin"], [])


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


# Folders


def test_links_to_folders_are_followed() -> None:
    put("elsewhere/a/1.txt", "n/2.txt")
    Path("n/b").symlink_to("../elsewhere", target_is_directory=True)
    assert found("n") == (["2.txt", "b/a/1.txt"], [])
    assert found("n/**/*.txt") == (["2.txt", "1.txt"], [])


def test_links_in_a_circle_end() -> None:
    put("n/a/1.txt")
    Path("n/a/up").symlink_to("..", target_is_directory=True)
    Path("n/again").symlink_to("a", target_is_directory=True)
    Path("n/self").symlink_to("self")
    told = ["self: cannot be read: Too many levels of symbolic links"]
    assert found("n") == (["a/1.txt"], told) and found("n/**/*.txt") == (["1.txt"], [])


def test_a_link_to_nothing_is_named() -> None:
    put("n/1.txt")
    Path("n/2.txt").symlink_to("nowhere.txt")
    for name in ("n", "n/*"):
        assert found(name) == (["1.txt"], ["2.txt: cannot be read: No such file or directory"])


def test_a_folder_that_cannot_be_looked_into_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    put("n/1.txt", "n/private/2.txt", "m/private/3.txt")
    listed = os.listdir

    def refusing(path: os.PathLike[str] | str = ".") -> object:
        if str(path).endswith("private"):
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "listdir", refusing)
    told = "n/private: cannot be read: Permission denied"
    for name in ("n", "n/**/*.txt", "n/**"):
        notices: list[Notice] = []
        inputs = Inputs([name], notices.append)
        assert [d.id for d in inputs] == ["1.txt"]
        assert notices == [Notice("n/private", None, "cannot be read: Permission denied", text_lost=True)]
    assert found("n/*/*.txt", "n/1.txt") == (["1.txt"], [told])
    assert found("m") == ([], [told.replace("n/", "m/")])


def test_a_folder_is_read_by_the_rule_of_a_pattern() -> None:
    """Whatever has no suffix is known by its content; what nobody named and is no document is left out."""
    put("n/1001")
    put("n/empty", data=b"")
    put("n/lines", data=b'{"id": "7", "text": "x"}\n')
    put("n/page", data=b"<html><body>Naloxone</body></html>")
    put("n/scan", data=b"\x00" * 128 + b"DICM\x02\x00")
    told = "3 files are left out, without a suffix and not a document"
    told += ": empty is empty, page holds HTML, scan is an image (DICOM)"
    for name in ("n", "n/*"):
        assert found(name) == (["1001", "7"], [f"{name}: {told}"])
    assert found("n/empty", "n/1001") == (["1001"], ["empty: the file is empty"])


def test_a_pipe_in_a_folder_is_left_out() -> None:
    put("n/1.txt")
    os.mkfifo("n/2.txt")
    for name in ("n", "n/*"):
        assert found(name) == (["1.txt"], [f"{name}: 1 file is left out, not regular: 2.txt"])


@pytest.mark.parametrize("name", ["pipe", "pipe.jsonl"])
def test_a_pipe_without_annotations_is_read_as_standard_input_is(name: str) -> None:
    os.mkfifo(name)
    writer = threading.Thread(target=lambda: Path(name).write_bytes(FOREIGN))
    writer.start()
    told: list[Notice] = []
    assert len(list(Inputs([name], told.append, annotated=True))) == 1
    writer.join()
    (notice,) = told
    assert not notice.text_lost and str(notice).startswith(f"{name}: no document has annotations under a key that is ")


PATTERNS = [
    "**",
    "n/**",
    "n/**/*",
    "**/b/*.txt",
    "n/*/**/*.txt",
    "n/?/[12].txt",
    "./n/1.txt",
    "n/./*",
    "n//*.txt",
    "n/.*",
    "n/**/../*.txt",
    "*/*/1.txt",
    "n/[!1]*",
    "n/**/c/**",
    "x",
    "n/*/x/*",
    "**/**/*.txt",
    "n/a",
    "n/b/.c/*",
    "/n/*",
]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_match_what_those_of_python_do(tmp_path: Path, pattern: str) -> None:
    put("n/1.txt", "n/2.txt", "n/a/1.txt", "n/b/c/1.txt", "n/b/c/3.txt", "n/b/.c/4.txt", "n/.5.txt", "5.txt")
    for where in ("", f"{tmp_path}/"):
        paths = {Path(p) for p in glob.glob(where + pattern, recursive=True) if Path(p).is_file()}
        matched, errors = match(where + pattern)
        assert len(matched) == len({path.resolve() for path in matched}) and errors == []
        assert {path.resolve() for path in matched} == {path.resolve() for path in paths}
        assert set(matched) <= paths
