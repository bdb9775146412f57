from __future__ import annotations

import unicodedata
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioner_edge.document import Document, Entity, Span
from bioner_edge.errors import InputError, UsageError
from bioner_edge.extraction import Extraction
from bioner_edge.io import brat
from bioner_edge.io.contract import WriteSettings
from bioner_edge.io.folder import Folder
from bioner_edge.io.inputs import Inputs
from bioner_edge.io.notice import Notice
from bioner_edge.io.reading import detect, document_file, read_file
from bioner_edge.io.registry import FILE_FORMATS

CHARACTERS = st.characters(exclude_categories=["Cs"])
TEXT = "Naloxone helped.\r\nRenal and liver failure\tdid not."
GOOD = "T1\tChemical 0 8\tNaloxone\n"
NALOXONE = Entity.at("Chemical", 0, 8)


def put(folder: Path, **files: str | bytes) -> None:
    """Write files; `__` in a name is a dot, `_of_` a folder's slash."""
    for name, content in files.items():
        path = folder / name.replace("_of_", "/").replace("__", ".")
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def read(
    path: Path, *, name: str | None = "x.txt", file_format: str | None = None
) -> tuple[list[Document], list[Notice]]:
    notices: list[Notice] = []
    return list(read_file(path, notices.append, name=name, file_format=file_format)), notices


def annotated(text: str | bytes, annotations: str | bytes) -> tuple[Document, list[Notice]]:
    with TemporaryDirectory() as where:
        put(Path(where), x__txt=text, x__ann=annotations)
        (document,), notices = read(Path(where, "x.ann"))
    return document, notices


def found(folder: Path, *names: str, file_format: str | None = None) -> tuple[dict[str, int], list[Notice]]:
    """(entities by document id, notices) of a folder's documents, or of some names in it."""
    notices: list[Notice] = []
    inputs = Inputs([str(folder / name) for name in names or ("",)], notices.append, file_format)
    documents = list(inputs)
    assert len({d.id for d in documents}) == len(documents)
    return {d.id: len(d.entities) for d in documents}, notices


# Reading


def test_a_pair() -> None:
    rows = GOOD + "T2\tDisease 18 23;34 41\tRenal failure\nT3\tDisease 28 41\tliver failure\n"
    failure = Entity("Disease", (Span(18, 23), Span(34, 41)))
    assert annotated(TEXT, rows) == (Document("x", TEXT, (NALOXONE, failure, Entity.at("Disease", 28, 41))), [])
    assert failure.mention(TEXT) == "Renal failure"


@pytest.mark.parametrize(
    ("end", "mention"),
    [
        (8, "Naloxone\tand a comment"),
        (23, "Naloxone helped.  Renal"),
        (23, "Naloxone helped. Renal"),
        (23, r"Naloxone helped.\r\nRenal"),
        (45, "Naloxone helped.  Renal and liver failure did"),
        (45, "Naloxone helped.  Renal and liver failure\tdid"),
    ],
)
def test_how_a_mention_may_be_written(end: int, mention: str) -> None:
    document, notices = annotated(TEXT, f"T1\tA 0 {end}\t{mention}\n")
    assert (document.entities, notices) == ((Entity.at("A", 0, end),), [])


@pytest.mark.parametrize("mention", ["failure Renal", "Renal failure", "Renalfailure", "failureRenal"])
def test_fragments_come_in_any_order_and_were_joined_by_nothing_once(mention: str) -> None:
    document, notices = annotated(TEXT, f"T1\tDisease 34 41;18 23\t{mention}\n")
    assert (document.entities, notices) == ((Entity("Disease", (Span(18, 23), Span(34, 41))),), [])


@pytest.mark.parametrize(
    "mention", ["Naloxone ", " Naloxone", "Nal oxone", "Naloxone \t", "Naloxone\u00a0", "Naloxone \tx"]
)
def test_white_space_in_the_last_column_is_no_fault(mention: str) -> None:
    assert annotated(TEXT, f"T1\tChemical 0 8\t{mention}\n") == (Document("x", TEXT, (NALOXONE,)), [])


def test_line_ends_of_old_macs() -> None:
    rows = "T1\tChemical 0 8\tNaloxone\rR1\tCaused Arg1:T1\r\rT2\tDisease 18 23\tRenal\rT3\tA 0 7\tNaloxone\r"
    document, notices = annotated(TEXT, rows)
    assert document.entities == (NALOXONE, Entity.at("Disease", 18, 23))
    assert notices == [Notice("x.ann", 5, "the mention does not match the text at [0, 7)")]


def test_brat_writes_a_fragment_a_line() -> None:
    document, notices = annotated("renal\nfailure", "T1\tA 0 5;6 13\trenal failure\nT2\tA 0 13\trenal failure\n")
    assert [len(e.fragments) for e in document.entities] == [2, 1] and notices == []


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("final", [True, False])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_line_ends_and_a_bom_of_the_annotations(newline: str, final: bool, bom: str) -> None:
    rows = (bom + GOOD + "\n" + "T2\tDisease 18 23\tRenal\n").removesuffix("\n" * (not final)).replace("\n", newline)
    assert annotated(TEXT, rows) == (Document("x", TEXT, (NALOXONE, Entity.at("Disease", 18, 23))), [])


def test_every_character_of_the_text_counts_and_so_does_a_bom() -> None:
    text = "\ufeff😀\r\n\r\u2028e\u0301 asthma"
    start = text.index("asthma")
    document, notices = annotated(text, f"T1\tA {start} {start + 6}\tasthma\nT2\tA {start - 1} {start + 5}\tasthma\n")
    assert (document.text, [e.start for e in document.entities]) == (text, [start])
    message = f"the mention does not match the text at [{start - 1}, {start + 5})"
    assert notices == [Notice("x.ann", 2, message + "; the byte order mark before the text counts as a character")]


def test_what_is_no_entity_is_passed_over() -> None:
    others = (
        "R1\tCaused Arg1:T1 Arg2:T2\t\nE1\tRegulation:T1 Theme:T2\nA1\tNegated T1\nM1\tSpeculated E1\n"
        "N1\tReference T1 UMLS:C1\tname\n#1\tAnnotatorNotes T1\tsee\n# free\n*\tEquiv T1 T2\n\n \n"
    )
    assert annotated(TEXT, others + GOOD) == annotated(TEXT, GOOD)


NEEDS = "not a brat annotation; an entity is: T1, tab, Label START END[;START END…], tab, mention"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("T2\tA 0 8\tnaloxone", "the mention does not match the text at [0, 8)"),
        ("T2\tA 0 8\tNaloxon e1", "the mention does not match the text at [0, 8)"),
        ("T2\tA 0 8\t", "the mention does not match the text at [0, 8)"),
        ("T2\tA 0 3;5 8\toneNa", "the mention does not match the text at [0, 8)"),
        ("T2\tA 0 99\tNaloxone", "offsets [0, 99) are not inside the text of 50 characters"),
        ("T2\tA 0 3;8 8\tNal ", "offsets [8, 8) are not inside the text of 50 characters"),
        ("T2\tA 8 0\tNaloxone", "offsets [8, 0) are not inside the text of 50 characters"),
        ("T2\tA 5 8;3 6\tone oxo", "the fragments 5 8;3 6 overlap"),
        ("T2\tA 0 5;3 8\tNalox oxone", "the fragments 0 5;3 8 overlap"),
        ("T1\tA 0 3\tNal", "a second T1; ids must be unique in a file"),
        ("T1\tChemical 0 8\tNaloxone", "a second T1; ids must be unique in a file"),
        (f"T2\tA 0 {'9' * 5000}\tNaloxone", NEEDS),
        ("T2\tA -1 8\tNaloxone", NEEDS),
        ("T2\tA ٠ ٨\tNaloxone", NEEDS),
        ("T2\tA 0 8", NEEDS),
        ("T2\tA 0 8;\tNaloxone", NEEDS),
        ("T2\t 0 8\tNaloxone", NEEDS),
        ("T2\tA B 0 8\tNaloxone", NEEDS),
        ("T2 A 0 8 Naloxone", NEEDS),
        ("Naloxone", NEEDS),
        ("\ufeffT2\tA 0 8\tNaloxone", NEEDS),
    ],
)
def test_a_bad_row_is_named_and_the_rest_is_read(row: str, message: str) -> None:
    document, notices = annotated(TEXT, GOOD + row + "\nT3\tDisease 18 23\tRenal\n")
    assert document.entities == (NALOXONE, Entity.at("Disease", 18, 23))
    assert notices == [Notice("x.ann", 2, message)]


def test_annotations_that_are_not_utf_8_lose_no_text() -> None:
    document, notices = annotated(TEXT, b"T2\tA 0 8\tNalox\xf6ne\n" + GOOD.encode())
    assert document.entities == (NALOXONE,)
    assert notices == [Notice("x.ann", 1, "not UTF-8: byte 0xf6 at byte offset 14; convert the file to UTF-8")]


@given(st.binary() | st.text(st.sampled_from("TRE#*12 ;\t\n\r0aé")).map(str.encode))
def test_any_bytes_are_read_or_reported(data: bytes) -> None:
    document, _ = annotated("aé a\ta", data)
    assert all(e.end <= len(document.text) for e in document.entities)


# Which file stands for a document


def test_a_folder_gives_each_document_once(tmp_path: Path) -> None:
    put(tmp_path, a__txt=TEXT, a__ann=GOOD, b__txt=TEXT, b__a1=GOOD, b__a2="E1\tX:T9\n", c__txt=TEXT, d_of_e__txt=TEXT)
    put(tmp_path, d_of_e__ann="", f__TXT=TEXT, f__ANN=GOOD, g__txt=TEXT, g__a2="", h__a2="", README="no document")
    counts = {"a": 1, "b": 1, "c.txt": 0, "d/e": 0, "f": 1, "g": 0}
    left_out = "1 file is left out, without a suffix and not a document: README is about the others"
    assert found(tmp_path) == (counts, [Notice(str(tmp_path), None, left_out, remark=True)])
    assert found(tmp_path, "*", "*/*") == (
        {"a": 1, "b": 1, "c.txt": 0, "e": 0, "f": 1, "g": 0},
        [
            Notice(f"{tmp_path}/*", None, left_out, remark=True),
            Notice("h.a2", None, "annotations without their text: there is no h.txt beside it", text_lost=True),
        ],
    )
    assert found(tmp_path, file_format="brat") == ({i.removesuffix(".txt"): n for i, n in counts.items()}, [])


def test_a_folder_as_text(tmp_path: Path) -> None:
    put(tmp_path, a__txt=TEXT, a__ann="nonsense", b__txt=TEXT, b__a1=GOOD, b__a2="", c__txt=TEXT)
    assert found(tmp_path, file_format="text") == ({"a.txt": 0, "b.txt": 0, "c.txt": 0}, [])


@pytest.mark.parametrize("name", ["x.txt", "x.ann", "x.a1", "x.a2"])
@pytest.mark.parametrize("file_format", [None, "brat"])
def test_any_of_its_files_names_the_document(tmp_path: Path, name: str, file_format: str | None) -> None:
    put(tmp_path, x__txt=TEXT, x__ann=GOOD, x__a1=GOOD + "T2\tDisease 18 23\tRenal\n", x__a2="T3\tX 0 1\tN\n")
    expected = Document("x", TEXT, (NALOXONE, Entity.at("Disease", 18, 23)))
    assert read(tmp_path / name, file_format=file_format) == ([expected], [])
    assert found(tmp_path, name, "x.ann", "x.txt", file_format=file_format) == ({"x": 2}, [])


def test_two_folders_with_the_same_names(tmp_path: Path) -> None:
    put(tmp_path, a_of_x__txt=TEXT, a_of_x__ann="T1\tA 0 7\tNaloxone", b_of_x__txt=TEXT, b_of_x__ann=GOOD)
    counts, (notice,) = found(tmp_path, "a", "b")
    assert counts == {f"{tmp_path}/a/x": 0, f"{tmp_path}/b/x": 1}
    assert str(notice) == f"{tmp_path}/a/x.ann:1: the mention does not match the text at [0, 7)"


def test_a_text_alone(tmp_path: Path) -> None:
    put(tmp_path, x__txt=TEXT, note=TEXT)
    assert read(tmp_path / "x.txt") == ([Document("x.txt", TEXT)], [])
    assert read(tmp_path / "x.txt", file_format="brat") == ([Document("x", TEXT)], [])
    assert read(tmp_path / "note", name=None, file_format="brat") == ([Document(str(tmp_path / "note"), TEXT)], [])
    assert read(tmp_path / "x.txt", name=None, file_format="brat")[0][0].id == str(tmp_path / "x")


def test_the_annotations_beside_a_text_tell_its_format(tmp_path: Path) -> None:
    put(tmp_path, x__pubtator__txt=TEXT, y__txt=TEXT, y__ann="")
    assert detect(tmp_path / "x.pubtator.txt") is FILE_FORMATS["pubtator"]
    assert detect(tmp_path / "y.txt") is FILE_FORMATS["brat"]
    put(tmp_path, x__pubtator__ann=GOOD)
    assert detect(tmp_path / "x.pubtator.txt") is FILE_FORMATS["brat"]
    assert document_file(tmp_path / "y.ann", FILE_FORMATS["text"]) is None
    assert document_file(tmp_path / "y.ann") == tmp_path / "y.txt"


@pytest.mark.parametrize("name", ["x.ann", "x.a1"])
def test_annotations_without_a_text_are_named(tmp_path: Path, name: str) -> None:
    put(tmp_path, y__txt="y", **{name.replace(".", "__"): GOOD})
    lost = Notice(name, None, "annotations without their text: there is no x.txt beside it", text_lost=True)
    assert found(tmp_path) == ({"y.txt": 0}, [lost])
    assert read(tmp_path / name, name=name) == ([], [lost])


def test_annotations_that_cannot_be_opened_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, x__txt=TEXT, x__ann=GOOD)
    opened = Path.open

    def refusing(path: Path, mode: str = "r") -> object:
        if path.suffix == ".ann":
            raise PermissionError(13, "Permission denied")
        return opened(path, mode)

    monkeypatch.setattr(Path, "open", refusing)
    assert found(tmp_path) == ({"x": 0}, [Notice("x.ann", None, "cannot be read: Permission denied")])


@pytest.mark.parametrize(
    ("data", "message"), [(b"", "the file is empty"), (b"\xff", "not UTF-8: byte 0xff at byte offset 0")]
)
def test_a_text_that_cannot_be_read_is_named(tmp_path: Path, data: bytes, message: str) -> None:
    put(tmp_path, x__txt=data, x__ann=GOOD)
    counts, (notice,) = found(tmp_path)
    assert (counts, notice.file, notice.text_lost) == ({}, "x.txt", True) and notice.message.startswith(message)


def test_standard_input_has_nothing_beside_it() -> None:
    with pytest.raises(
        UsageError, match=r"^brat has its annotations in files beside the text: give a file or a folder"
    ):
        Inputs(["-"], print, "brat")


# Writing


def written(folder: Path, *documents: Document) -> dict[str, str]:
    assert brat.FILE_FORMAT.folder_writer
    writer = brat.FILE_FORMAT.folder_writer(WriteSettings())
    with closing(Folder(folder, writer.suffixes)) as into:
        for document in documents:
            into.write(into.name(document), writer.render(Extraction(document, document.entities)))
    return {path.name: path.read_bytes().decode() for path in sorted(folder.iterdir())}


@st.composite
def documents(draw: st.DrawFn) -> Document:
    text = draw(st.text(CHARACTERS | st.sampled_from("\r\n\t\ufeff\u2028"), min_size=1))
    entities = []
    for places in draw(st.lists(st.sets(st.integers(0, len(text)), min_size=2, max_size=6).map(sorted), max_size=4)):
        label = draw(st.text(st.characters(exclude_categories=["C"]), min_size=1))
        fragments = tuple(Span(a, b) for a, b in zip(places[::2], places[1::2], strict=False))
        entities.append(Entity(label, fragments, score=0.5))
    name = st.characters(categories=["L", "N", "M"]) | st.sampled_from("-_ ,;()[]")
    identifier = unicodedata.normalize("NFC", draw(st.text(name, min_size=1, max_size=40)))
    return Document(identifier, text, tuple(entities))


@given(documents())
def test_round_trip(document: Document) -> None:
    """Text and offsets come back whatever they are; white space in a label is an underscore, a score is not kept."""
    with TemporaryDirectory() as where:
        written(Path(where), document)
        notices: list[Notice] = []
        (again,) = Inputs([where], notices.append)
    assert (again.id, again.text, notices) == (document.id, document.text, [])
    labels = ["".join("_" if c.isspace() else c for c in e.label) for e in document.entities]
    assert [e.key for e in again.entities] == [
        (label, e.fragments) for label, e in zip(labels, document.entities, strict=True)
    ]


def test_a_pair_as_it_is_written(tmp_path: Path) -> None:
    entities = (
        Entity.at("Chemical", 0, 8),
        Entity("Organ failure", (Span(18, 23), Span(34, 41))),
        Entity.at("A", 9, 45),
    )
    assert written(tmp_path / "new", Document("d", TEXT, entities), Document("e", "x")) == {
        "d.txt": TEXT,
        "d.ann": GOOD + "T2\tOrgan_failure 18 23;34 41\tRenal failure\n"
        "T3\tA 9 45\thelped.  Renal and liver failure did\n",
        "e.txt": "x",
        "e.ann": "",
    }


@pytest.mark.parametrize(
    ("identifier", "name"),
    [
        ("PMID-7", "PMID-7"),
        ("note.txt", "note"),
        ("note.ann", "note.ann"),
        ("a/b\\c:d", "a_b_c_d"),
        ("", "document"),
        (".txt", "document"),
        (".", "_"),
        ("..", "_."),
        ("../../etc/passwd", "_._.._etc_passwd"),
        ("/etc/passwd", "_etc_passwd"),
        (".hidden", "_hidden"),
        ("a\n\x00\x1b\u202e\ud800b", "a_____b"),
        ("x" * 9999, "x" * 200),
        ("é" * 9999, "é" * 100),
        ("口内炎" * 99, ("口内炎" * 99)[:66]),
    ],
)
def test_an_id_as_a_file_name(tmp_path: Path, identifier: str, name: str) -> None:
    assert set(written(tmp_path / "same", Document(identifier, "x"))) == {f"{name}.txt", f"{name}.ann"}


def test_names_that_collide_are_numbered(tmp_path: Path) -> None:
    ids = ["a", "a.txt", "A", "a-2", "a", "\u00e9", "e\u0301", "x" * 300, "x" * 301]
    files = written(tmp_path, *(Document(i, f"text {n}") for n, i in enumerate(ids)))
    texts = {name.removesuffix(".txt"): text for name, text in files.items() if name.endswith(".txt")}
    assert sorted(texts.values()) == [f"text {n}" for n in range(len(ids))]
    long = "x" * 200
    assert sorted(texts) == sorted(
        ["a", "a-2", "A-3", "a-2-2", "a-4", "\u00e9", "e\u0301-2", long, long + "-2"],
    )


@pytest.mark.parametrize("label", ["", "a\x00b", "\x1b", "\ud800"])
def test_a_label_that_brat_cannot_hold_is_refused(tmp_path: Path, label: str) -> None:
    document = Document("d", "x", (Entity.at(label, 0, 1),))
    with pytest.raises(InputError, match=r"^document 'd': brat cannot represent the label "):
        written(tmp_path / "new", document)
    assert not (tmp_path / "new").exists()


def test_labels_that_brat_writes_alike_are_refused(tmp_path: Path) -> None:
    one, other = Entity.at("Anatomical site", 0, 1), Entity.at("Anatomical_site", 2, 3)
    told = r"^document 'd': brat writes the labels '.*' and '.*' alike, 'Anatomical_site'; rename one$"
    with pytest.raises(InputError, match=told):
        written(tmp_path / "new", Document("d", "x y", (one, other)))
    with pytest.raises(InputError, match=told):
        written(tmp_path / "two", Document("c", "x y", (one,)), Document("d", "x y", (other,)))
    assert set(written(tmp_path / "same", Document("c", "x y", (one,)), Document("d", "x y", (one,)))) >= {
        "c.ann",
        "d.ann",
    }


def test_a_text_that_no_file_can_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^document 'd': lone surrogate U\+D800 at offset 1"):
        written(tmp_path / "new", Document("d", "x\ud800"))


def test_nothing_half_written_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, Document("d", "old"))
    stored = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if path.name.startswith("d.txt"):
            stored(path, data[:1])
            raise OSError(28, "No space left on device")
        return stored(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        written(tmp_path, Document("d", "new", (Entity.at("A", 0, 3),)))
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"d.txt": "old", "d.ann": ""}


def test_a_folder_that_was_there_stays(tmp_path: Path) -> None:
    put(tmp_path, mine="kept", d__txt="old", d__ann="old")
    assert written(tmp_path, Document("d", "new")) == {"mine": "kept", "d.txt": "new", "d.ann": ""}
    (tmp_path / "empty").mkdir()
    assert written(tmp_path / "empty") == {}


@pytest.mark.parametrize(
    ("name", "documents", "entities"),
    [
        ("anatem/train", 606, 6946),
        ("anatem/dev", 202, 2139),
        ("bionlp13cg/train", 300, 10935),
        ("bionlp13cg/dev", 100, 3634),
        ("jnlpba/train", 2000, 51301),
        ("keepha-ja/pseudo-tweets", 160, 726),
        ("pgxcorpus", 945, 6761),
    ],
)
def test_published_corpora_are_read_whole(corpora: Path, name: str, documents: int, entities: int) -> None:
    """Every mention is in its place: the reader compares them, and reports nothing."""
    found = list(Inputs([str(corpora / name)], lambda notice: notice.remark or pytest.fail(str(notice))))
    assert (len(found), sum(len(d.entities) for d in found)) == (documents, entities)
