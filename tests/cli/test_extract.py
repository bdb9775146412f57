"""The command line: what it says, what it exits with, what it leaves behind."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bioner_edge.document import Document
from bioner_edge.formats import FORMATS
from bioner_edge.io.reading import read_file
from bioner_edge.models import registry

PUBTATOR = "7|t|Aspirin and asthma\n7|a|We saw asthma.\n7\t0\t7\tAspirin\tChemical\n\n"
SEVEN = "Aspirin and asthma We saw asthma."
LINE = json.dumps({"id": "d", "text": "Aspirin eased asthma.", "entities": [{"start": 0, "end": 7, "label": "Gene"}]})
Run = Callable[..., tuple[int, str, list[str]]]


@pytest.fixture
def run(cli: Run, tiny_default: None, unguarded: None) -> Run:
    """`cli`, with the tiny model as the default, which is loaded in this process."""
    return cli


def extract(run: Run, *arguments: str, stdin: bytes = b"") -> tuple[int, list[dict[str, Any]], list[str]]:
    code, out, err = run("extract", "--threads", "1", *arguments, stdin=stdin)
    return code, [json.loads(line) for line in out.split("\n")[:-1]], err


def put(**files: str | bytes) -> None:
    """Write files into the working folder; `__` in a name is a dot, `_of_` a folder's slash."""
    for name, content in files.items():
        path = Path(name.replace("_of_", "/").replace("__", "."))
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


SUFFIXES = "(.txt, .text, .md, .jsonl, .ndjson, .pubtator, .ann, .a1, .a2)"
BRAT = ("txt", "ann", "a1", "a2")
NO_ROW = "not a brat annotation; an entity is: T1, tab, Label START END[;START END…], tab, mention"
BRAT_TOLD = [f"a.ann:1: {NO_ROW}", f"a.a1:1: {NO_ROW}"]

# (arguments, files, exit code, ids of the documents written, standard error)
CASES: dict[str, tuple[list[str], dict[str, str | bytes], int, list[str], list[str]]] = {
    "a text": (["a.txt"], {"a__txt": "Aspirin."}, 0, ["a.txt"], []),
    "JSON Lines": (["a.jsonl"], {"a__jsonl": LINE + "\n"}, 0, ["d"], []),
    "PubTator by its name": (["a.PubTator.txt"], {"a__PubTator__txt": PUBTATOR}, 0, ["7"], []),
    "PubTator by --from": (["a.txt", "--from", "pubtator"], {"a__txt": PUBTATOR}, 0, ["7"], []),
    "a folder": (
        ["."],
        {"a__txt": "x", "b_of_c__jsonl": LINE, "b_of_d__pdf": "%"},
        0,
        ["a.txt", "d"],
        [".: 1 file is left out, of unknown suffix: .pdf 1"],
    ),
    "PubTator by its content": (
        ["a.txt"],
        {"a__txt": PUBTATOR},
        0,
        ["7"],
        ["a.txt: read as PubTator, which it holds; --from text reads it as it stands"],
    ),
    "PubTator as text": (["a.txt", "--from", "text"], {"a__txt": PUBTATOR}, 0, ["a.txt"], []),
    "an unknown suffix": (
        ["a.txt", "b.rst"],
        {"a__txt": "x", "b__rst": "y"},
        2,
        [],
        [f"b.rst: the suffix .rst is not known {SUFFIXES}; give --from text to read it as plain text"],
    ),
    "an unknown suffix as text": (["b.rst", "--from", "text"], {"b__rst": "y"}, 0, ["b.rst"], []),
    "a PDF by the name of a text": (
        ["a.txt", "b.txt"],
        {"a__txt": b"%PDF-1.7\n", "b__txt": "x"},
        1,
        ["b.txt"],
        ["a.txt: is a PDF; save its text first, as pdftotext does"],
    ),
    "markup by the name of a text": (
        ["a.txt"],
        {"a__txt": "<html>x</html>"},
        2,
        [],
        [
            "a.txt: holds HTML; convert it to text, JSON Lines or PubTator, "
            "or give --from text to read it as it stands",
            "no document could be read; nothing was written",
        ],
    ),
    "a continued abstract with a tab": (
        ["a.pubtator"],
        {"a__pubtator": "7|t|Asthma\n7|a|One.\nTwo\twith a tab.\n"},
        1,
        ["7"],
        ["a.pubtator:3: neither 'ID|t|title', 'ID|a|abstract' nor a tab-separated annotation"],
    ),
    "annotations under a key that is not read": (
        ["a.jsonl", "--keep-annotations", "--out", "o.jsonl"],
        {"a__jsonl": '{"text": "x", "ner": []}\n'},
        2,
        [],
        [
            "a.jsonl: no document has annotations under a key that is read "
            '(entities, spans, ents, label, labels, annotations, denotations); the keys are "text", "ner"'
        ],
    ),
    "an output by the name of a table": (
        ["a.txt", "--out", "o.csv"],
        {"a__txt": "x"},
        2,
        [],
        [
            "o.csv: .csv is not the suffix of an output format (.jsonl, .ndjson, .pubtator); "
            "rename it, or give the format with --to"
        ],
    ),
    "an output by the name of annotations": (
        ["a.txt", "--out", "o.ann"],
        {"a__txt": "x"},
        2,
        [],
        ["o.ann: brat is written as a folder of pairs; give --to brat and a folder as --out"],
    ),
    "a glob": (["*/*.txt"], {"a_of_b__txt": "x", "c_of_d__txt": "y", "e__txt": "z"}, 0, ["b.txt", "d.txt"], []),
    "one name in two folders": (["a", "b"], {"a_of_x__txt": "x", "b_of_x__txt": "y"}, 0, ["a/x.txt", "b/x.txt"], []),
    "brat": (["a"], {"a_of_b__txt": "x", "a_of_b__ann": "", "a_of_c__txt": "y"}, 0, ["b", "c.txt"], []),
    "brat as text": (["a", "--from", "text"], {"a_of_b__txt": "x", "a_of_b__ann": ""}, 0, ["b.txt"], []),
    "brat by any name": (["a.ann", "a.txt", "a.a1", "a.a2"], {f"a__{x}": "x" for x in BRAT}, 0, ["a"], BRAT_TOLD),
    "a text with --from brat": (["a.txt", "--from", "brat"], {"a__txt": "x"}, 0, ["a"], []),
    "annotations without a text": (
        ["."],
        {"a__ann": "", "b__txt": "x"},
        1,
        ["b.txt"],
        ["a.ann: annotations without their text: there is no a.txt beside it"],
    ),
    "brat from standard input": (
        ["-", "--from", "brat"],
        {},
        2,
        [],
        ["brat has its annotations in files beside the text: give a file or a folder"],
    ),
    "sentences of BC2GM": (
        ["a.in", "--from", "bc2gm"],
        {"a__in": "P1 Asthma.\n", "GENE__eval": "P1|0 5|x\n"},
        0,
        ["P1"],
        ["GENE.eval:1: the mention does not match the text at [0, 6)"],
    ),
    "white space": (["a.txt"], {"a__txt": " \n"}, 0, ["a.txt"], []),
    "an empty file among others": (
        ["a.txt", "b.txt"],
        {"a__txt": "", "b__txt": "Asthma."},
        1,
        ["b.txt"],
        ["a.txt: the file is empty"],
    ),
    "an empty file": (
        ["a.txt"],
        {"a__txt": ""},
        2,
        [],
        ["a.txt: the file is empty", "no document could be read; nothing was written"],
    ),
    "a file without documents": (
        ["a.jsonl"],
        {"a__jsonl": "\n"},
        2,
        [],
        ["no documents in the input; nothing was written"],
    ),
    "not UTF-8": (
        ["a.txt", "b.txt"],
        {"a__txt": b"na\xefve", "b__txt": "x"},
        1,
        ["b.txt"],
        ["a.txt: not UTF-8: byte 0xef at byte offset 2; convert the file to UTF-8"],
    ),
    "a lone surrogate": (
        ["a.jsonl"],
        {"a__jsonl": LINE + '\n{"text": "a\\ud800"}\n'},
        1,
        ["d"],
        ["a.jsonl:2: lone surrogate U+D800 at offset 1; repair the text at its source"],
    ),
    "a PubTator line that does not parse": (
        ["a.pubtator"],
        {"a__pubtator": PUBTATOR + "8|t|Second\n8|a|Text.\nnonsense\n9|t|Third\n9|a|Text.\n"},
        1,
        ["7", "8", "9"],
        ["a.pubtator:7: neither 'ID|t|title', 'ID|a|abstract' nor a tab-separated annotation"],
    ),
    "an annotation that does not fit": (
        ["a.pubtator"],
        {"a__pubtator": "7|t|Asthma\n7|a|x\n7\t0\t9\tAsthma\tDisease\n"},
        0,
        ["7"],
        ["a.pubtator:3: offsets [0, 9) are not inside the text of 8 characters"],
    ),
    "a folder without documents": (
        ["a"],
        {"a_of_b__pdf": ""},
        2,
        [],
        [
            "a: no documents in this folder "
            "(*.txt, *.text, *.md, *.jsonl, *.ndjson, *.pubtator, *.ann, *.a1); is it the right one?"
        ],
    ),
    "no such file": (["a.txt"], {}, 2, [], ["a.txt: no such file or folder, and no file matches it as a pattern"]),
    "a name that is empty": ([""], {}, 2, [], ["'': no such file or folder, and no file matches it as a pattern"]),
    "unknown format": (["--format", "tags"], {}, 2, [], [f"unknown format 'tags'; known: {', '.join(FORMATS)}"]),
    "unknown constraint": (
        ["--constraint", "hard"],
        {},
        2,
        [],
        ["unknown constraint 'hard'; known: free, gbnf, grounded"],
    ),
    "unknown input format": (
        ["--from", "bioc"],
        {},
        2,
        [],
        ["unknown input format 'bioc'; known: text, jsonl, pubtator, brat, bc2gm"],
    ),
    "unknown output format": (
        ["--to", "csv"],
        {},
        2,
        [],
        ["unknown output format 'csv'; known: jsonl, pubtator, brat"],
    ),
    "a label that was not tuned": (
        ["a.txt", "--labels", "Disease, Gene"],
        {"a__txt": "x"},
        0,
        ["a.txt"],
        ["warning: tiny-F32.gguf was not tuned for the labels Gene; it knows Chemical, Disease"],
    ),
    "a label twice": (["--labels", "A,A"], {}, 2, [], ["--labels 'A,A': must be distinct names, separated by commas"]),
    "a label that no tag can hold": (
        ["--labels", "<"],
        {},
        2,
        [],
        [
            "label '<' cannot be a tag: it must start with a letter and contain no '<', '>', backslash or control "
            "character",
        ],
    ),
    "guidelines": (["a.txt", "--guidelines", "g"], {"a__txt": "x", "g": 'Disease = "an illness"'}, 0, ["a.txt"], []),
    "no guidelines": (["--guidelines", "g"], {}, 2, [], ["--guidelines g: No such file or directory"]),
    "guidelines that are no texts": (
        ["--guidelines", "g"],
        {"g": "Disease = 7"},
        2,
        [],
        ['--guidelines g: every line must be label = "text"'],
    ),
    "no such model file": (["--model", "a.gguf"], {}, 2, [], ["a.gguf: no such model file"]),
    "an existing output": (
        ["a.txt", "--out", "o.jsonl"],
        {"a__txt": "x", "o__jsonl": "kept"},
        2,
        [],
        ["o.jsonl: exists; give --overwrite to replace it"],
    ),
    "an output without a folder": (
        ["a.txt", "--out", "no/o.jsonl"],
        {"a__txt": "x"},
        2,
        [],
        ["no: no such folder; create it first"],
    ),
    "a folder as output": (
        ["a.txt", "--overwrite", "--out", "b"],
        {"a__txt": "x", "b_of_c": ""},
        2,
        [],
        ["b: is not a regular file; name a file, or leave out --out for standard output"],
    ),
    "an output among the inputs": (
        [".", "--overwrite", "--out", "b.jsonl"],
        {"a__txt": "x", "b__jsonl": ""},
        2,
        [],
        ["b.jsonl: is among the inputs; choose another --out"],
    ),
    "brat without a folder": (
        ["a.txt", "--to", "brat", "--show"],
        {"a__txt": "x"},
        2,
        [],
        ["--to brat needs --out FOLDER: brat is a folder of pairs, a text and its annotations"],
    ),
    "brat into a file": (
        ["a.txt", "--to", "brat", "--out", "o", "--overwrite"],
        {"a__txt": "x", "o": ""},
        2,
        [],
        ["o: is not a folder; brat is a folder of pairs, a text and its annotations"],
    ),
    "brat into a folder that is not empty": (
        ["a.txt", "--to", "brat", "--out", "o"],
        {"a__txt": "x", "o_of_a": ""},
        2,
        [],
        ["o: is not empty; give --overwrite to replace the files in it that have the same names"],
    ),
    "brat without a folder above": (
        ["a.txt", "--to", "brat", "--out", "no/o"],
        {"a__txt": "x"},
        2,
        [],
        ["no: no such folder; create it first"],
    ),
    "brat into a folder of inputs": (
        [".", "--to", "brat", "--out", "o", "--overwrite"],
        {"a__txt": "x", "o_of_b__txt": "x"},
        2,
        [],
        ["o: is among the inputs; choose another --out"],
    ),
    "annotations that brat has no place for": (
        ["a.txt", "--keep-annotations", "--to", "brat", "--out", "o"],
        {"a__txt": "x"},
        2,
        [],
        ["--keep-annotations needs --to jsonl: brat has no field for gold annotations"],
    ),
    "annotations that PubTator has no place for": (
        ["a.txt", "--keep-annotations", "--to", "pubtator"],
        {"a__txt": "x"},
        2,
        [],
        ["--keep-annotations needs --to jsonl: pubtator has no field for gold annotations"],
    ),
    "unknown option": (
        ["--lables", "A"],
        {},
        2,
        [],
        ["No such option: --lables (Possible options: --labels); see bioner-edge extract --help"],
    ),
    "an option without a value": (
        ["--out"],
        {},
        2,
        [],
        ["Option '--out' requires an argument; see bioner-edge --help"],
    ),
}


@pytest.mark.parametrize(("arguments", "files", "code", "ids", "err"), CASES.values(), ids=CASES.keys())
def test_table(
    run: Run, arguments: list[str], files: dict[str, str | bytes], code: int, ids: list[str], err: list[str]
) -> None:
    put(**files)
    got, records, told = extract(run, *arguments)
    assert (got, told) == (code, [f"bioner-edge: {line}" for line in err])
    assert [record["id"] for record in records] == ids
    assert not list(Path().rglob("*.partial"))


def test_an_existing_output_is_kept(run: Run) -> None:
    put(a__txt="x", o__jsonl="kept", b__txt="")
    assert extract(run, "a.txt", "--out", "o.jsonl")[0] == 2
    assert extract(run, "b.txt", "--out", "o.jsonl", "--overwrite")[0] == 2  # nothing to write
    assert Path("o.jsonl").read_text("utf-8") == "kept"
    assert extract(run, "a.txt", "--out", "o.jsonl", "--overwrite")[0] == 0
    assert json.loads(Path("o.jsonl").read_text("utf-8"))["id"] == "a.txt"


def test_an_id_that_pubtator_cannot_hold_and_a_terminal_would_obey(run: Run) -> None:
    put(a__jsonl='{"id": "\\u001b[31m|\\n", "text": "x"}\n{"id": "y", "text": "z"}\n')
    code, out, err = run("extract", "a.jsonl", "--to", "pubtator", "--threads", "1")
    assert (code, out.splitlines()[0]) == (1, "y|t|z")
    told = r"document '\x1b[31m|\n': a PubTator id must not be empty or contain '|', tabs or line breaks"
    assert err == [f"bioner-edge: {told}"]
    put(b__jsonl='{"id": "\\u001b[31m\\n", "text": "x", "entities": [7]}\n')
    assert "\x1b" not in str(extract(run, "b.jsonl")[2])


def test_an_unknown_model_names_the_known_ones(run: Run) -> None:
    code, _, err = extract(run, "--model", "nosuch")
    assert code == 2
    (line,) = err
    assert line.startswith("bioner-edge: unknown model 'nosuch'; known: ")
    assert line.endswith("; or give the path of a GGUF file or an ONNX folder")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_model(run: Run, tiny_model: Path, share: float) -> None:
    data = tiny_model.read_bytes()
    put(a__txt="x", m__gguf=data[: int(len(data) * share)])
    code, out, err = extract(run, "a.txt", "--model", "m.gguf", "--format", "multi_tag", "--labels", "Disease")
    assert (code, out, len(err)) == (2, [], 1)
    assert err[0].startswith("bioner-edge: m.gguf: ")


def test_a_model_with_another_hash(run: Run, tiny_model: Path) -> None:
    data = bytearray(tiny_model.read_bytes())
    data[-1] ^= 1
    put(a__txt="x", m__gguf=bytes(data))
    shutil.copy(registry.manifest_path(tiny_model), "m.json")
    code, out, err = extract(run, "a.txt", "--model", "m.gguf")
    assert (code, out, len(err)) == (2, [], 1)
    assert err[0].startswith("bioner-edge: m.gguf: SHA-256 ")
    assert err[0].endswith("the file was changed or is incomplete: fetch or convert it again")


# What is written


def test_standard_input_is_a_text(run: Run) -> None:
    text = "Aspirin\r\neased asthma\0.\n"
    for arguments in ([], ["-"]):
        code, (record,), err = extract(run, *arguments, stdin=text.encode())
        assert (code, err, record["id"], record["text"]) == (0, [], "stdin", text)
        assert all(text[e["start"] : e["end"]] == e["text"] for e in record["entities"])


@pytest.mark.parametrize(("data", "ids"), [(LINE + "\n", ["d"]), (PUBTATOR, ["7"])])
def test_standard_input_is_known_by_its_content(run: Run, data: str, ids: list[str]) -> None:
    code, records, err = extract(run, stdin=data.encode())
    assert (code, [r["id"] for r in records], err) == (0, ids, [])


@pytest.mark.parametrize(
    "data", [b"<?xml version='1.0'?><collection/>", b'[{"text": "x"}]', b"\x1f\x8b\x08\x00", b"id,text\n1,x"]
)
def test_standard_input_that_cannot_be_read_is_named(run: Run, data: bytes) -> None:
    code, records, err = extract(run, stdin=data)
    assert (code, records, len(err)) == (2, [], 2)
    assert err[0].startswith(("bioner-edge: stdin: holds ", "bioner-edge: stdin: is compressed with gzip"))


def test_annotations_of_other_tools_are_kept(run: Run) -> None:
    put(a__jsonl=LINE.replace('"entities"', '"spans"') + "\n")
    code, (record,), err = extract(run, "a.jsonl", "--keep-annotations")
    assert (code, err, [e["label"] for e in record["gold"]]) == (0, [], ["Gene"])


def test_to_goes_before_the_name_of_the_output(run: Run) -> None:
    put(a__txt="Asthma.")
    assert extract(run, "a.txt", "--to", "pubtator", "--out", "o.csv") == (0, [], [])
    assert Path("o.csv").read_text("utf-8").startswith("a.txt|t|Asthma.\n")


def test_keep_annotations(run: Run) -> None:
    put(a__jsonl=LINE + "\n")
    _, (plain,), _ = extract(run, "a.jsonl")
    _, (kept,), _ = extract(run, "a.jsonl", "--keep-annotations")
    assert kept.pop("gold") == [{"start": 0, "end": 7, "label": "Gene", "text": "Aspirin"}]
    assert kept == plain and "gold" not in plain


def test_the_name_of_the_output_tells_its_format(run: Run) -> None:
    put(a__pubtator=PUBTATOR)
    bundled = ("--model", "chemdis-9m")  # the random one may find nothing
    assert extract(run, "a.pubtator", "--out", "o.pubtator", *bundled) == (0, [], [])
    notices: list[Any] = []
    (document,) = read_file(Path("o.pubtator"), notices.append)
    assert (document.id, document.text, notices) == ("7", SEVEN, [])
    assert document.entities
    assert extract(run, "a.pubtator", "--out", "o.pubtator", "--to", "jsonl", "--overwrite", *bundled) == (0, [], [])
    (record,) = map(json.loads, Path("o.pubtator").read_text("utf-8").splitlines())
    assert [(e["start"], e["end"]) for e in record["entities"]] == [(e.start, e.end) for e in document.entities]


def test_brat_is_written_as_a_folder_of_pairs(run: Run) -> None:
    text = "Aspirin\r\neased asthma."
    put(a__txt=text, b__jsonl=json.dumps({"id": "../a.txt", "text": "Naloxone."}))
    bundled = ("--model", "chemdis-9m")  # the random one may find nothing
    _, records, _ = extract(run, "a.txt", "b.jsonl", *bundled)
    assert extract(run, "a.txt", "b.jsonl", "--to", "brat", "--out", "o", *bundled) == (0, [], [])
    assert sorted(p.name for p in Path("o").iterdir()) == [".finished", "_._a.ann", "_._a.txt", "a.ann", "a.txt"]
    assert Path("o/a.txt").read_bytes().decode() == text
    for name, record in zip(("o/a.ann", "o/_._a.ann"), records, strict=True):
        (document,) = read_file(Path(name), print)
        assert [(e.label, e.start, e.end) for e in document.entities] == [
            (e["label"], e["start"], e["end"]) for e in record["entities"]
        ]
        assert document.entities
    code, kept, err = extract(run, "o", "--keep-annotations", *bundled)
    assert (code, err) == (0, []) and [len(r["gold"]) for r in kept] == [len(r["entities"]) for r in kept]


def test_an_existing_folder_of_brat(run: Run) -> None:
    put(a__txt="Asthma.", o_of_a__txt="old", o_of_a__ann="old", o_of_mine="kept", b__txt="")
    to = ("--to", "brat", "--out", "o")
    assert extract(run, "a.txt", *to)[0] == 2
    assert extract(run, "b.txt", *to, "--overwrite")[0] == 2  # nothing to write
    assert extract(run, "b.txt", "--to", "brat", "--out", "new")[0] == 2
    assert Path("o/a.txt").read_text() == "old" and not Path("new").exists()
    assert extract(run, "a.txt", *to, "--overwrite") == (0, [], [])
    assert sorted(p.name for p in Path("o").iterdir()) == [".finished", "a.ann", "a.txt", "mine"]
    assert Path("o/a.txt").read_text() == "Asthma."


def test_a_folder_that_cannot_be_written_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    put(a__txt="x")
    monkeypatch.setattr(Path, "write_bytes", full)
    told = ["bioner-edge: o: cannot be written: No space left on device"]
    assert extract(run, "a.txt", "--to", "brat", "--out", "o") == (2, [], told)
    assert not Path("o").exists()


def test_a_file_that_cannot_be_opened_is_named_and_the_rest_is_read(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    put(a__txt="x", b__txt="y")
    opened = Path.open

    def refusing(path: Path, *arguments: Any, **settings: Any) -> Any:
        if path.name == "a.txt":
            raise PermissionError(13, "Permission denied")
        return opened(path, *arguments, **settings)

    monkeypatch.setattr(Path, "open", refusing)
    code, (record,), err = extract(run, "a.txt", "b.txt")
    assert (code, record["id"], err) == (1, "b.txt", ["bioner-edge: a.txt: cannot be read: Permission denied"])


def test_a_file_name_that_is_not_utf_8(run: Run) -> None:
    Path(os.fsdecode(b"na\xefve.txt")).write_text("Asthma.")
    assert extract(run, ".")[1][0]["id"] == "na\ufffdve.txt"


def test_problems_are_counted(run: Run) -> None:
    put(a__txt="Aspirin eased asthma.")
    code, (record,), err = extract(run, "a.txt", "--constraint", "free")
    count = len(record["problems"])
    message = f'bioner-edge: {count} problems in the answers of the model; JSON Lines list them under "problems"'
    assert (code, err) == (0, [message])
    assert extract(run, "a.txt", "--constraint", "free", "--quiet")[2] == []


def test_quiet_says_what_failed_alone(run: Run) -> None:
    put(a__txt="x", b__txt="")
    assert extract(run, "a.txt", "b.txt", "--labels", "Gene", "--quiet")[2] == ["bioner-edge: b.txt: the file is empty"]


def test_show(run: Run) -> None:
    text = "Hypertension fell after clonidine. Aspirin \x1b[31m eased [bold]asthma[/bold]."
    put(a__jsonl=json.dumps({"id": "x\x1b[31m", "text": text}) + "\n")
    code, out, err = run("extract", "a.jsonl", "--show", "--out", "o.jsonl", "--threads", "1")
    assert (code, err) == (0, [])
    assert "\x1b[31m" not in out and "Aspirin \ufffd[31m eased [bold]asthma[/bold]." in out
    record = json.loads(Path("o.jsonl").read_text("utf-8"))
    assert record["entities"] and all(str(e["start"]) in out for e in record["entities"])


def test_version_and_help(run: Run) -> None:
    assert run("--version") == (0, "bioner-edge 0.1.0\n", [])
    assert run("--help") == run() and "extract  Find entities" in run()[1]
    code, out, err = run("extract", "--help")
    assert (code, err) == (0, []) and "--constraint" in out


def test_no_network(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket was asked for")

    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)
    put(a__txt="Aspirin eased asthma.")
    code, (record,), err = extract(run, "a.txt", "--model", "chemdis-9m")
    assert (code, err) == (0, []) and record["entities"]


def test_without_llama_cpp_the_onnx_model_reads(cli: Run, unguarded: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after `pip install bioner-edge`, which compiles nothing; with the default of the installation."""
    for name in [name for name in sys.modules if name.split(".")[0] in ("llama_cpp", "gguf")]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("llama_cpp", "bioner_edge.backends.llama_cpp", "bioner_edge.backends.native", "gguf"):
        monkeypatch.setitem(sys.modules, name, None)
    put(a__txt="Aspirin eased asthma.")
    code, (record,), err = extract(cli, "a.txt")
    assert (code, err) == (0, []) and record["entities"]
    code, _, (told,) = extract(cli, "a.txt", "--format", "multi_code")
    assert code == 2 and told.endswith(
        "chemdis-9m-lists-Q8_0.gguf: a GGUF model needs llama.cpp: pip install 'bioner-edge[llama]' "
        "(it is compiled, which takes minutes), or name an ONNX model"
    )


# In a process of its own


@pytest.fixture
def start(tiny_model: Path, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """A function (*arguments, **how) -> the running command, its standard streams pipes; killed at the end."""
    started: list[subprocess.Popen[bytes]] = []

    def command(*arguments: str, **how: Any) -> subprocess.Popen[bytes]:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **how}
        code = "from bioner_edge.cli import main; main()"
        settings = ["extract", "--model", str(tiny_model), "--threads", "1", "--from", "jsonl", *arguments]
        started.append(subprocess.Popen([sys.executable, "-c", code, *settings], cwd=tmp_path, **pipes))
        return started[-1]

    yield command
    for process in started:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream:
                stream.close()


@pytest.fixture
def finish(cli: Run, unguarded: None, tiny_model: Path) -> Callable[..., tuple[int, list[str]]]:
    """What `start` starts, in this process, in the same folder: a function (*arguments, stdin) -> (exit code, lines of
    standard error)."""

    def command(*arguments: str, stdin: bytes) -> tuple[int, list[str]]:
        settings = ["extract", "--model", str(tiny_model), "--threads", "1", "--from", "jsonl", *arguments]
        return cli(*settings, stdin=stdin)[::2]

    return command


def record(number: int, padding: int = 0) -> bytes:
    return json.dumps({"id": number, "text": "Asthma.", "padding": "x" * padding}).encode() + b"\n"


def memory_kib(process: subprocess.Popen[bytes], field: str) -> int:
    """A field of /proc/PID/status."""
    path = Path(f"/proc/{process.pid}/status")
    if not path.exists():
        pytest.skip("no /proc to read a process's memory from")
    return next(int(line.split()[1]) for line in path.read_text().splitlines() if line.startswith(field))


def test_a_stream_is_never_held(start: Callable[..., subprocess.Popen[bytes]]) -> None:
    """Each document is out before the next is in, and 40 MB of input leave the memory as it was."""
    process = start("--quiet")
    assert process.stdin and process.stdout
    for number in range(3):
        process.stdin.write(record(number))
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["id"] == str(number)
    before = memory_kib(process, "VmHWM")
    count, size = 500, 80_000
    source = process.stdin

    def feed() -> None:
        for number in range(count):
            source.write(record(number, size))
        source.flush()

    feeder = threading.Thread(target=feed)
    feeder.start()
    ids = [json.loads(process.stdout.readline())["id"] for _ in range(count)]
    feeder.join()
    assert ids == [str(n) for n in range(count)]
    assert memory_kib(process, "VmHWM") - before < 8 * 1024
    process.stdin.close()
    assert process.wait() == 0


def begin(start: Callable[..., subprocess.Popen[bytes]], tmp_path: Path) -> subprocess.Popen[bytes]:
    """A run into o.jsonl that has written its first document and waits for the next."""
    process = start("--out", "o.jsonl")
    assert process.stdin
    process.stdin.write(record(1))
    process.stdin.flush()
    partial, deadline = tmp_path / "o.jsonl.partial", time.monotonic() + 60
    while not (partial.exists() and partial.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.02)
    return process


def test_killed_in_the_middle_what_was_done_stays(
    start: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    process = begin(start, tmp_path)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["o.jsonl.partial", "o.jsonl.progress"]
    assert json.loads((tmp_path / "o.jsonl.partial").read_text("utf-8"))["id"] == "1"
    anew = start("--out", "o.jsonl")
    _, err = anew.communicate(record(1) + record(2))
    assert anew.returncode == 2 and b"unfinished run; --resume continues it, --overwrite starts over" in err
    again = start("--out", "o.jsonl", "--resume")
    _, err = again.communicate(record(1) + record(2))
    assert (again.returncode, err) == (0, b"")
    assert {p.name for p in tmp_path.iterdir()} == {"o.jsonl", ".o.jsonl.finished"}
    assert [json.loads(line)["id"] for line in (tmp_path / "o.jsonl").read_text("utf-8").splitlines()] == ["1", "2"]


@pytest.mark.thorough(but=("2",))
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_what_was_done_stays(
    start: Callable[..., subprocess.Popen[bytes]],
    finish: Callable[..., tuple[int, list[str]]],
    tmp_path: Path,
    number: signal.Signals,
) -> None:
    before = signal.signal(number, signal.SIG_DFL)  # these tests may run where it is ignored, as under nohup
    process = begin(start, tmp_path)
    signal.signal(number, before)
    assert process.stdin and process.stderr
    process.send_signal(number)
    assert process.wait() == 128 + number
    kept = b"bioner-edge: 1 documents are kept; the same command with --resume goes on\n"
    assert process.stderr.read() == b"bioner-edge: interrupted\n" + kept
    assert finish("--out", "o.jsonl", "--resume", stdin=record(1))[0] == 0
    assert {p.name for p in tmp_path.iterdir()} == {"o.jsonl", ".o.jsonl.finished"}
    told = ["bioner-edge: o.jsonl is finished: nothing was left to read"]
    assert finish("--out", "o.jsonl", "--resume", stdin=record(1)) == (0, told)


def test_a_run_goes_on_with_as_many_threads_as_before(
    start: Callable[..., subprocess.Popen[bytes]], finish: Callable[..., tuple[int, list[str]]], tmp_path: Path
) -> None:
    """Their number decides near ties; by default it is that of the cores, and another machine has others."""
    process = begin(start, tmp_path)
    process.kill()
    process.wait()
    before = (tmp_path / "o.jsonl.progress").read_bytes()
    asked, stdin = ("--out", "o.jsonl", "--resume", "--threads"), record(1) + record(2)
    code, (told,) = finish(*asked, "2", stdin=stdin)
    assert code == 2 and (tmp_path / "o.jsonl.progress").read_bytes() == before
    assert (
        "begun with other settings: threads was 1, now 2 (continue with --threads 1); start over with --overwrite"
        in told
    )
    assert finish(*asked, "1", stdin=stdin)[0] == 0
    assert (tmp_path / "o.jsonl").read_text("utf-8").count("\n") == 2


def reading(process: subprocess.Popen[bytes]) -> int:
    """The number of the process that reads for this one."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if not children.exists():
        pytest.skip("this system does not tell the children of a process")
    (child,) = map(int, children.read_text().split())
    return child


def test_a_native_crash_costs_the_document_at_hand(
    start: Callable[..., subprocess.Popen[bytes]],
    finish: Callable[..., tuple[int, list[str]]],
    tmp_path: Path,
    until: Callable[[Callable[[], bool]], bool],
) -> None:
    """The process that reads is killed from outside in the middle of a document, as a fault in native code does."""
    long = json.dumps({"id": 2, "text": "Asthma. " * 300}).encode() + b"\n"
    process = begin(start, tmp_path)
    assert process.stdin and process.stderr
    child = reading(process)

    def worked() -> int:
        """Clock ticks."""
        return int(Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[11])

    before = worked()
    process.stdin.write(long)
    process.stdin.flush()
    until(lambda: worked() > before + 10)
    os.kill(child, signal.SIGKILL)
    process.stdin.write(record(3))
    process.stdin.close()
    assert process.wait() == 1
    told = "document 2: the process that read it was ended by SIGKILL, perhaps because memory ran out"
    assert process.stderr.read().decode().splitlines() == [
        f"bioner-edge: {told}",
        f"bioner-edge: failed: {told}",
        "bioner-edge: 1 failed; --retry-failed tries them again",
    ]
    ids = [json.loads(line)["id"] for line in (tmp_path / "o.jsonl").read_text("utf-8").splitlines()]
    assert ids == ["1", "3"]
    assert finish("--out", "o.jsonl", "--retry-failed", stdin=record(1) + long + record(3))[0] == 0
    assert {p.name for p in tmp_path.iterdir()} == {"o.jsonl", ".o.jsonl.finished"}
    ids = [json.loads(line)["id"] for line in (tmp_path / "o.jsonl").read_text("utf-8").splitlines()]
    assert ids == ["1", "2", "3"]


def test_a_process_that_is_killed_while_it_waits_costs_nothing(
    start: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    """The system does that where another program takes the memory."""
    process = begin(start, tmp_path)
    os.kill(reading(process), signal.SIGKILL)
    assert process.communicate(record(2) + record(3)) == (b"", b"") and process.returncode == 0
    ids = [json.loads(line)["id"] for line in (tmp_path / "o.jsonl").read_text("utf-8").splitlines()]
    assert ids == ["1", "2", "3"]


def test_a_closed_pipe_is_no_error(start: Callable[..., subprocess.Popen[bytes]]) -> None:
    process = start()
    assert process.stdin and process.stdout and process.stderr
    process.stdin.write(record(1))
    process.stdin.flush()
    assert process.stdout.readline()
    process.stdout.close()
    process.stdin.write(record(2))
    process.stdin.close()
    assert process.stderr.read() == b""
    assert process.wait() == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_is_one_line(start: Callable[..., subprocess.Popen[bytes]]) -> None:
    with open("/dev/full", "wb") as full:
        process = start(stdout=full)
        _, err = process.communicate(record(1))
    assert (process.returncode, err) == (
        2,
        b"bioner-edge: standard output: cannot be written: No space left on device\n",
    )


def test_a_named_pipe_can_be_read(start: Callable[..., subprocess.Popen[bytes]], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    process = start("pipe")
    (tmp_path / "pipe").write_bytes(record(1))
    out, err = process.communicate()
    assert (process.returncode, err, json.loads(out)["id"]) == (0, b"", "1")


@pytest.mark.parametrize("quiet", [[], ["--quiet"]], ids=["progress", "quiet"])
def test_progress_on_a_terminal(
    start: Callable[..., subprocess.Popen[bytes]], tmp_path: Path, quiet: list[str]
) -> None:
    lines = [record(n) if n != 420 else b"{\n" for n in range(600)]
    (tmp_path / "a.jsonl").write_bytes(b"".join(lines))
    ours, theirs = pty.openpty()
    process = start("a.jsonl", *quiet, stderr=theirs, stdout=subprocess.DEVNULL)
    os.close(theirs)
    seen = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        seen += part
    os.close(ours)
    assert process.wait() == 1
    complaint = b"bioner-edge: a.jsonl:421: not JSON"
    assert complaint in seen
    assert (b" documents, " in seen) == (not quiet)
    if quiet:
        assert seen.startswith(complaint)
    else:
        assert b"/s" in seen and b" left, " in seen
        assert b"\x1b[2K" + complaint in seen and seen.endswith(b"\x1b[2K")  # wiped before, and in the end
        assert seen.count(b"\x1b[?25l") == seen.count(b"\x1b[?25h") == 1  # the cursor is hidden, and shown again


def test_documents_are_what_was_read(run: Run) -> None:
    """Ids, texts and their order, through the command and back."""
    documents = [Document(str(n), f"Asthma {n}.\u2028\x85 \u0301x") for n in range(5)]
    put(a__jsonl="".join(json.dumps(d.to_json()) + "\n" for d in documents))
    assert extract(run, "a.jsonl", "--out", "o.jsonl")[0] == 0
    found = list(read_file(Path("o.jsonl"), pytest.fail))
    assert [(d.id, d.text) for d in found] == [(d.id, d.text) for d in documents]
