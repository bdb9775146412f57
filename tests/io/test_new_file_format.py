"""A new file format is one file and one line: the one that CONTRIBUTING.md shows, in a tree that has no more than that.

What becomes of its header, separators and footer when a run is broken off: tests/test_resume.py.
"""

from __future__ import annotations

import io
import json
import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioner_edge.document import Document, Entity, Span
from bioner_edge.errors import InputError
from bioner_edge.extraction import Extraction
from bioner_edge.io.contract import FileFormat, Source, WriteSettings
from bioner_edge.io.notice import Notice
from bioner_edge.io.reading import documents as read_stream
from bioner_edge.io.registry import FILE_FORMATS

ROOT = Path(__file__).parents[2]
SUPPORT = ROOT / "tests" / "support"
LAST_LINE = '    "bioner_edge.io.bc2gm",\n'
TABLE = '#mentions\nD\t"7"\t"Naloxone helped."\nM\t0\t8\t"Drug"\n\nD\t"8"\t"None."\n#end\n'

CONTRIBUTING = runpy.run_path(str(SUPPORT / "contributing.py"))
MENTIONS: FileFormat = CONTRIBUTING["load"]()


def read(data: str) -> tuple[list[Document], list[Notice]]:
    assert MENTIONS.read
    notices: list[Notice] = []
    return list(MENTIONS.read(Source(io.BytesIO(data.encode()), "in"), notices.append)), notices


def written(*documents: Document) -> str:
    assert MENTIONS.writer
    writer = MENTIONS.writer(WriteSettings())
    parts = [writer.render(Extraction(document, document.entities)) for document in documents]
    return (writer.header + writer.separator.join(parts) + writer.footer).decode()


CHARACTERS = st.characters(exclude_categories=["Cs"])


@st.composite
def documents(draw: st.DrawFn) -> Document:
    text = draw(st.text(CHARACTERS, min_size=1))
    places = draw(st.lists(st.sets(st.integers(0, len(text)), min_size=2, max_size=2).map(sorted), max_size=4))
    labels = st.text(CHARACTERS, min_size=1)
    return Document(draw(st.text(CHARACTERS)), text, tuple(Entity.at(draw(labels), a, b) for a, b in places))


@given(st.lists(documents(), max_size=4))
def test_round_trip(given: list[Document]) -> None:
    assert read(written(*given)) == (given, [])


def test_a_table_as_it_is_written() -> None:
    first = Document("7", "Naloxone helped.", (Entity.at("Drug", 0, 8),))
    assert written(first, Document("8", "None.")) == TABLE
    with pytest.raises(InputError, match="document 7: mentions are not discontinuous here; write JSON Lines"):
        written(Document("7", "Naloxone", (Entity("Drug", (Span(0, 2), Span(4, 6))),)))


def test_what_cannot_be_used_is_named_with_its_line() -> None:
    broken = TABLE.replace("0\t8", "0\t99").replace('"None."', "None").replace("#end\n", "[")
    (document,), notices = read(broken)
    assert document == Document("7", "Naloxone helped.")
    assert [(notice.line, notice.text_lost) for notice in notices] == [(3, False), (5, True), (6, True), (None, True)]
    assert "cut off" in str(notices[-1])


def test_a_file_that_is_binary_by_its_format(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read as what it is; anything else whose first bytes are those of a table of Parquet is refused."""
    data = b"PAR1\x00" * 3

    def take(source: Source, report: object) -> list[Document]:
        return [Document(source.name, source.stream.read().hex())]

    parquet = FileFormat(name="parquet", title="Parquet", suffixes=(".parquet",), binary=True, read=take)  # type: ignore[arg-type]
    monkeypatch.setitem(FILE_FORMATS, "parquet", parquet)
    path, notices = Path("a.parquet"), list[Notice]()
    assert list(read_stream(io.BytesIO(data), "a", pytest.fail, path=path)) == [Document("a", data.hex())]
    assert list(read_stream(io.BytesIO(data), "a", notices.append, path=Path("a.jsonl"))) == []
    assert "Parquet table" in str(notices[0])


# One file and one line

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project with the format: all is linked, but for a copy of the folder that the file and the line go into."""
    tree = tmp_path_factory.mktemp("tree")
    package = tree / "bioner_edge"
    package.mkdir()
    for path in (*(ROOT / "bioner_edge").iterdir(), ROOT / "convert", ROOT / "benchmarks"):
        if path.name not in ("io", "__pycache__"):
            (package / path.name).symlink_to(path)
    shutil.copytree(ROOT / "bioner_edge" / "io", package / "io", ignore=shutil.ignore_patterns("__pycache__"))
    module, line = CONTRIBUTING["shown"]()
    (package / "io" / "mentions.py").write_text(module, "utf-8")
    registry = package / "io" / "registry.py"
    source = registry.read_text("utf-8")
    assert source.count(LAST_LINE) == 1
    registry.write_text(source.replace(LAST_LINE, LAST_LINE + line), "utf-8")
    return tree


@pytest.fixture
def run(tree: Path, tmp_path: Path) -> Run:
    """A function (*arguments, stdin="") that calls the command line of that tree; a script reads, see scripted.py."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "COLUMNS": "200"}

    def command(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        program = [str(SUPPORT / "scripted.py")] if arguments[0] == "extract" else ["-m", "bioner_edge", arguments[0]]
        return subprocess.run(
            [sys.executable, *program, *arguments[1:]],
            input=stdin,
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=environment,
        )

    return command


def test_extract_reads_and_writes_it(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.mentions").write_text(TABLE.replace("M\t0\t8", "M\t9\t15"))
    for named in (["--out", "o.mentions"], ["--to", "mentions", "--out", "o.table"], ["--to", "mentions"]):
        done = run("extract", "a.mentions", *named)
        assert (done.returncode, done.stderr) == (0, "")
        assert (Path(tmp_path, named[-1]).read_text() if "--out" in named else done.stdout) == TABLE
    assert run("extract", "--to", "mentions", stdin="fail").stdout == ""
    records = run("extract", stdin=TABLE).stdout.splitlines()  # known by its content
    assert [json.loads(record)["id"] for record in records] == ["7", "8"]
    assert (
        run("extract", "--to", "mentions", stdin=TABLE.replace("None.", "lose")).stdout
        == TABLE.partition('\nD\t"8"')[0]
    )
    (tmp_path / "b.txt").write_text(TABLE)
    assert "b.txt: read as Mentions, which it holds; --from text" in run("extract", "b.txt").stderr


def test_a_run_with_failures_is_taken_up_again(run: Run, tmp_path: Path) -> None:
    rows = [{"id": "6", "text": "fail"}, {"id": "7", "text": "Naloxone helped."}, {"id": "8", "text": "None."}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run("extract", "a.jsonl", "--out", "o.mentions").returncode == 1
    assert (tmp_path / "o.mentions").read_text() == TABLE  # with its footer: all is done that could be
    with (tmp_path / "a.jsonl").open("a") as more:
        more.write('{"id": "9", "text": "More."}\n')
    assert run("extract", "a.jsonl", "--out", "o.mentions", "--resume").returncode == 1
    assert (tmp_path / "o.mentions").read_text() == TABLE.replace("#end", '\nD\t"9"\t"More."\n#end')


def test_it_is_named_wherever_file_formats_are(run: Run, tmp_path: Path) -> None:
    shown = " ".join(run("extract", "--help").stdout.split())
    assert "of the output: jsonl, pubtator, brat or mentions." in shown
    assert "of the input: text, jsonl, pubtator, brat, bc2gm or mentions." in shown
    assert "text, jsonl, pubtator, brat, bc2gm or mentions" in " ".join(
        run("formats", "check", "--help").stdout.split()
    )
    assert "(JSON Lines, PubTator, brat, Mentions)" in " ".join(run("bench", "score", "--help").stdout.split())
    assert "known: text, jsonl, pubtator, brat, bc2gm, mentions" in run("extract", "--from", "x", stdin="y").stderr
    assert "known: jsonl, pubtator, brat, mentions" in run("extract", "--to", "x", stdin="y").stderr
    (tmp_path / "n").mkdir()
    assert "*.a1, *.mentions)" in run("extract", "n").stderr
    (tmp_path / "t.csv").write_text("id,text\n1,x\n")
    told = run("extract", "t.csv").stderr
    assert ".a2, .mentions)" in told and "convert it to text, JSON Lines, PubTator or Mentions, or give" in told


def test_predictions_in_it_are_scored(run: Run, tmp_path: Path) -> None:
    """A row that is wrong counts as a prediction that is."""
    (tmp_path / "gold.mentions").write_text(TABLE)
    (tmp_path / "found.mentions").write_text(TABLE.replace("#end", 'M\t7\t99\t"Drug"\n#end'))
    done = run("bench", "score", "found.mentions", "gold.mentions", "--json")
    assert (done.returncode, done.stderr) == (1, "bioner-edge: found.mentions:6: [7, 99) is not inside the text\n")
    strict = json.loads(done.stdout)["scores"]["strict"]["micro"]
    assert (strict["precision"], strict["recall"]) == (0.5, 1.0)
