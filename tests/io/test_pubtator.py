from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import bioner_edge
from bioner_edge.document import Document, Entity, Span
from bioner_edge.errors import InputError
from bioner_edge.io import pubtator
from bioner_edge.io.contract import Source
from bioner_edge.io.notice import Notice
from bioner_edge.io.reading import read_file

CHARACTERS = st.characters(exclude_categories=["Cs"])
ONE_LINE = st.characters(exclude_categories=["Cs"], exclude_characters="\t\n\r")
IDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="|\t\n\r\ufeff"), min_size=1)
BLOCK = "7|t|Aspirin and asthma\n7|a|We saw asthma.\n7\t0\t7\tAspirin\tChemical\tD001241\n7\t12\t18\tasthma\tDisease\n"


def read(data: str | bytes) -> tuple[list[Document], list[Notice]]:
    notices: list[Notice] = []
    stream = io.BytesIO(data if isinstance(data, bytes) else data.encode())
    return list(pubtator.read(Source(stream, "in"), notices.append)), notices


def written(*documents: Document) -> str:
    stream = io.StringIO(newline="\n")
    for document in documents:
        pubtator.write(document, stream)
    return stream.getvalue()


@st.composite
def texts(draw: st.DrawFn) -> Document:
    text = draw(st.text(CHARACTERS))
    places = st.sets(st.integers(0, len(text)), min_size=2, max_size=2).map(sorted)
    spans = draw(st.lists(places, max_size=4)) if text else []
    entities = [Entity.at(draw(st.text(ONE_LINE, min_size=1)), start, end) for start, end in spans]
    return Document(draw(IDS), text, tuple(entities), draw(st.none() | st.integers(0, len(text))))


@given(st.lists(texts(), max_size=3))
def test_round_trip(documents: list[Document]) -> None:
    """White space may change to a space, one for one; nothing else does."""
    found, notices = read(written(*documents))
    assert notices == []
    assert [d.id for d in found] == [d.id for d in documents]
    assert [d.entities for d in found] == [d.entities for d in documents]
    assert [d.text for d in found] == [d.text.translate({9: " ", 10: " ", 13: " "}) for d in documents]


@given(st.text(ONE_LINE), st.text(ONE_LINE, min_size=1))
def test_the_title_comes_back(title: str, abstract: str) -> None:
    for space in " \n":
        document = Document("7", title + space + abstract, title_end=len(title))
        assert read(written(document))[0] == [Document("7", f"{title} {abstract}", title_end=len(title))]


def test_the_first_line_is_the_title_where_none_is_known() -> None:
    assert written(Document("7", "Title\nBody\nmore")) == "7|t|Title\n7|a|Body more\n\n"
    assert written(Document("7", "Body")) == "7|t|Body\n7|a|\n\n"


def test_a_title_end_that_is_no_space_loses_no_character() -> None:
    assert written(Document("7", "abcdef", title_end=3)) == "7|t|abcdef\n7|a|\n\n"


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (Document("", "x"), "a PubTator id must not be empty"),
        (Document("a|b", "x"), "a PubTator id must not be empty or contain '|'"),
        (Document("a\nb", "x"), "a PubTator id must not be empty or contain '|'"),
        (Document("7", "x y", (Entity("D", (Span(0, 1), Span(2, 3))),)), "no discontinuous mentions; write JSON Lines"),
        (Document("7", "x", (Entity.at("a\tb", 0, 1),)), "cannot represent the label"),
    ],
)
def test_what_pubtator_cannot_hold_is_refused(document: Document, message: str) -> None:
    with pytest.raises(InputError, match=message.replace("|", r"\|")):
        written(document)


def test_a_block() -> None:
    entities = (Entity.at("Chemical", 0, 7), Entity.at("Disease", 12, 18))
    assert read(BLOCK) == ([Document("7", "Aspirin and asthma We saw asthma.", entities, title_end=18)], [])


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
@pytest.mark.parametrize("final", [True, False])
def test_line_ends_bom_and_a_missing_last_newline(newline: str, bom: str, final: bool) -> None:
    data = bom + (BLOCK + "\n" + BLOCK).removesuffix("\n" * (not final)).replace("\n", newline)
    assert read(data) == (read(BLOCK)[0] * 2, [])


def test_unicode_line_breaks_and_nul_inside_a_text_end_no_line() -> None:
    title, abstract = "a\u2028b\x85c\x00", "d\x0be\x0cf\x1cg|t|h"
    assert [d.text for d in read(f"7|t|{title}\n7|a|{abstract}\n")[0]] == [f"{title} {abstract}"]


def test_blocks_that_repeat_an_id_stay_apart() -> None:
    found, notices = read(BLOCK + "\n" + BLOCK + BLOCK)
    assert (len(found), len(set(found)), notices) == (3, 1, [])


def test_a_title_or_an_abstract_alone() -> None:
    assert [d.text for d in read("1|t|Only a title\n2|a|Only an abstract\n3|t|T\n3|a|\n")[0]] == [
        "Only a title",
        " Only an abstract",
        "T",
    ]


@pytest.mark.parametrize(
    "relation",
    [
        "CID\tD001241\tD001249",
        "Positive_Correlation\tD001241\tD001249\tNovel",
        "INDIRECT-DOWNREGULATOR\tD001241\t7124",
        "CPR:4\tD001241\t7124",
        "Gene-Disease\t672\tD001943",
        "Association\tD001241\tD015179\tNovel\tSubject:D001241",
        "Positive_Correlation\tD001241\tD015179\tNovel\tD001241\tD015179",
        "treats (off label)\tD001241\tD015179",
    ],
)
def test_relations_are_passed_over(relation: str) -> None:
    assert read(BLOCK + f"7\t{relation}\n") == read(BLOCK)


@pytest.mark.parametrize(
    "line", ["Third line\twith a tab", "Third\tof\tfour\tcolumns", "\tindented", "A\t1\tb", "9\tCID\tD1\tD2"]
)
def test_a_continued_text_with_tabs_is_lost_text(line: str) -> None:
    message = "neither 'ID|t|title', 'ID|a|abstract' nor a tab-separated annotation"
    assert read(BLOCK + line + "\n" + BLOCK) == (read(BLOCK)[0] * 2, [Notice("in", 5, message, text_lost=True)])


@pytest.mark.parametrize("final", [True, False])
def test_line_ends_of_old_macs(final: bool) -> None:
    data = (BLOCK + "7\tCID\tD001241\tD001249\n\n" + BLOCK).replace("\n", "\r")
    assert read(data if final else data.removesuffix("\r")) == (read(BLOCK)[0] * 2, [])
    bad = BLOCK.replace("Aspirin\tChemical", "aspirin\tChemical").replace("\n", "\r")
    assert read(BLOCK.replace("\n", "\r\n") + bad)[1] == [
        Notice("in", 7, "the mention does not match the text at [0, 7)")
    ]


def test_a_stray_cr_is_a_character_of_its_text() -> None:
    assert (
        read("7|t|Aspirin\rand asthma\n7|a|We\r saw\tasthma.\n")[0][0].text == "Aspirin\rand asthma We\r saw\tasthma."
    )


def test_others_read_what_is_written() -> None:
    """Five columns are a relation to the reader of the bioc package."""
    theirs = pytest.importorskip("bioc.pubtator")
    document = read(BLOCK)[0][0]
    example = Path(bioner_edge.__file__).parent / "examples" / "abstracts.pubtator"
    for text, expected in (
        (written(document), [document]),
        (example.read_text("utf-8"), list(read_file(example))),
    ):
        found = theirs.loads(text)
        assert [[(a.type, a.start, a.end, a.id) for a in d.annotations] for d in found] == [
            [(e.label, e.start, e.end, "-") for e in d.entities] for d in expected
        ]
        assert not any(d.relations for d in found) and all(d.annotations for d in found)


def test_what_is_written_has_six_columns() -> None:
    rows = [row for row in written(read(BLOCK)[0][0]).splitlines() if "\t" in row]
    assert rows == ["7\t0\t7\tAspirin\tChemical\t-", "7\t12\t18\tasthma\tDisease\t-"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("7\t0\t7\taspirin\tChemical", "the mention does not match the text at [0, 7)"),
        ("7\t0\t99\tAspirin\tChemical", "offsets [0, 99) are not inside the text of 33 characters"),
        ("7\t7\t7\t\tChemical", "offsets [7, 7) are not inside the text of 33 characters"),
        ("7\t-1\t7\tAspirin\tChemical", "an annotation needs: ID, start, end, mention, type"),
        (f"7\t0\t{'9' * 5000}\tAspirin\tChemical", "an annotation needs: ID, start, end, mention, type"),
        ("7\t٠\t٧\tAspirin\tChemical", "an annotation needs: ID, start, end, mention, type"),
        ("7\t0\t7\tAspirin", "an annotation needs: ID, start, end, mention, type"),
        ("7\t0\t7\tAspirin\t", "an annotation needs: ID, start, end, mention, type"),
        ("8\t0\t7\tAspirin\tChemical", "inside the block of 7, but not one of its annotations"),
    ],
)
def test_a_bad_row_is_named_and_the_rest_is_read(row: str, message: str) -> None:
    assert read(BLOCK + row + "\n" + BLOCK) == (read(BLOCK)[0] * 2, [Notice("in", 5, message)])


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (b"free text", "neither 'ID|t|title', 'ID|a|abstract' nor a tab-separated annotation"),
        (b"7|a|More.", "a second abstract for 7; give it a block of its own"),
        (b"7|t|caf\xe9", "not UTF-8: byte 0xe9 at byte offset 7; convert the file to UTF-8"),
    ],
)
def test_lost_text_is_named_and_the_rest_is_read(bad: bytes, message: str) -> None:
    data = BLOCK.encode() + bad + b"\n" + BLOCK.encode()
    assert read(data) == (read(BLOCK)[0] * 2, [Notice("in", 5, message, text_lost=True)])


@given(st.binary() | st.text(st.sampled_from("7|ta\t\n\r 01x")).map(str.encode))
def test_any_bytes_are_read_or_reported(data: bytes) -> None:
    found, _ = read(data)
    assert all(e.end <= len(d.text) for d in found for e in d.entities)


def test_reading_is_one_block_at_a_time() -> None:
    taken = itertools.count()

    def endless() -> Iterator[bytes]:
        for line in itertools.cycle(BLOCK.encode().splitlines(keepends=True)):
            next(taken)
            yield line

    reader = pubtator.read(Source(endless(), "-"), pytest.fail)  # type: ignore[arg-type]
    assert len(list(itertools.islice(reader, 3))) == 3
    assert next(taken) == 3 * 4 + 1  # a block ends where the next one's title is seen


@pytest.mark.parametrize(
    ("name", "documents", "mismatches"),
    [
        ("bc5cdr/train.PubTator.txt", 500, 0),
        ("bc5cdr/dev.PubTator.txt", 500, 0),
        ("bc5cdr/test.PubTator.txt", 500, 0),
        ("ncbi-disease/train.PubTator.txt", 593, 1),
        ("ncbi-disease/dev.PubTator.txt", 100, 0),
        ("biored/Train.PubTator", 400, 0),
        ("biored/Dev.PubTator", 100, 0),
        ("aioner/GNormPlus_Train.PubTator", 432, 35),
        ("aioner/Linnaeus_Train.PubTator", 80, 0),
        ("aioner/SPECIES_Train.PubTator", 639, 0),
        ("aioner/tmVar3_Train.PubTator", 342, 21),
        ("aioner/NLMgene_Train.PubTator", 450, 11),
        ("aioner/DrugProt_Test.PubTator", 750, 0),
        ("aioner/NLMchem_Test.PubTator", 3428, 0),
    ],
)
def test_published_corpora_are_read_whole(corpora: Path, name: str, documents: int, mismatches: int) -> None:
    notices: list[Notice] = []
    assert sum(1 for _ in read_file(corpora / name, notices.append)) == documents
    assert len(notices) == mismatches
    assert not any(n.text_lost for n in notices)
