from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioner_edge.document import Document, Entity
from bioner_edge.errors import InputError, UsageError
from bioner_edge.io.inputs import Inputs
from bioner_edge.io.notice import Notice
from bioner_edge.io.reading import read_file
from bioner_edge.io.registry import by_suffix

SENTENCES = "P1 The insulin  receptor was cloned.\nP2 Nothing here.\n"
GOLD = "P1|3 17|insulin  receptor\n"
RECEPTOR = Document("P1", "The insulin  receptor was cloned.", (Entity.at("Gene", 4, 21),))
NOTHING = Document("P2", "Nothing here.")


def read(sentences: str | bytes, gold: str | bytes | None = GOLD) -> tuple[list[Document], list[Notice]]:
    notices: list[Notice] = []
    with TemporaryDirectory() as where:
        for name, data in (("x.in", sentences), ("GENE.eval", gold)):
            if data is not None:
                Path(where, name).write_bytes(data if isinstance(data, bytes) else data.encode())
        return list(read_file(Path(where, "x.in"), notices.append, name="a/x.in", file_format="bc2gm")), notices


def test_sentences_and_their_gold() -> None:
    assert read(SENTENCES) == ([RECEPTOR, NOTHING], [])
    assert RECEPTOR.entities[0].mention(RECEPTOR.text) == "insulin  receptor"


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_line_ends_and_a_bom(newline: str, bom: str) -> None:
    sentences, gold = (bom + data.replace("\n", newline + newline) for data in (SENTENCES, GOLD))
    assert read(sentences, gold) == ([RECEPTOR, NOTHING], [])


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\r"), min_size=1), st.data())
def test_offsets_leave_out_white_space(text: str, data: st.DataObject) -> None:
    places = [i for i, c in enumerate(text) if not c.isspace()]
    if not places:
        return
    first, last = sorted(data.draw(st.tuples(*[st.integers(0, len(places) - 1)] * 2)))
    entity = Entity.at("Gene", places[first], places[last] + 1)
    expected = Document("P1", text, (entity,))
    assert read(f"P1 {text}\n", f"P1|{first} {last}|{entity.mention(text)}\n") == ([expected], [])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("P1|3 17|insulin receptor", "the mention does not match the text at [4, 21)"),
        ("P1|4 21|insulin  receptor", "the mention does not match the text at [5, 27)"),
        ("P1|3 99|x", "offsets 3 99 are not inside the sentence, which has 28 characters without white space"),
        ("P1|9 3|x", "offsets 9 3 are not inside the sentence, which has 28 characters without white space"),
        (f"P1|3 {'9' * 5000}|x", "an annotation needs: ID|first last|mention"),
        ("P1|-3 17|x", "an annotation needs: ID|first last|mention"),
        ("P1|٣ ٩|x", "an annotation needs: ID|first last|mention"),
        ("|3 17|x", "an annotation needs: ID|first last|mention"),
        ("nonsense", "an annotation needs: ID|first last|mention"),
        ("P3|3 17|x", "there is no sentence P3"),
    ],
)
def test_a_bad_row_is_named_and_the_rest_is_read(row: str, message: str) -> None:
    assert read(SENTENCES, f"{row}\n{GOLD}") == ([RECEPTOR, NOTHING], [Notice("a/GENE.eval", 1, message)])


@pytest.mark.parametrize(
    ("line", "notice"),
    [
        (b"P3", Notice("a/x.in", 1, "a sentence needs: ID, one space, text", text_lost=True)),
        (b"P3 ", Notice("a/x.in", 1, "a sentence needs: ID, one space, text", text_lost=True)),
        (b" P3", Notice("a/x.in", 1, "a sentence needs: ID, one space, text", text_lost=True)),
        (
            b"P3 \xff",
            Notice("a/x.in", 1, "not UTF-8: byte 0xff at byte offset 3; convert the file to UTF-8", text_lost=True),
        ),
    ],
)
def test_a_lost_sentence_is_named_and_the_rest_is_read(line: bytes, notice: Notice) -> None:
    assert read(line + b"\n" + SENTENCES.encode()) == ([RECEPTOR, NOTHING], [notice])


def test_a_second_sentence_of_one_id_is_named() -> None:
    again = Document("P1", "Again.")
    notice = Notice("a/x.in", 3, "a second sentence P1; the first one has the gold")
    assert read(SENTENCES + "P1 Again.\n") == ([RECEPTOR, NOTHING, again], [notice])


def test_gold_that_is_not_there_or_not_utf_8_loses_no_text() -> None:
    bare = [RECEPTOR.without_entities(), NOTHING]
    assert read(SENTENCES, None) == (bare, [Notice("a/GENE.eval", None, "cannot be read: No such file or directory")])
    message = "not UTF-8: byte 0xff at byte offset 0; convert the file to UTF-8"
    assert read(SENTENCES, b"\xff\n") == (bare, [Notice("a/GENE.eval", 1, message)])


@given(st.binary() | st.text(st.sampled_from("P1| 0\t\na")).map(str.encode))
def test_any_bytes_are_read_or_reported(data: bytes) -> None:
    for documents, _ in (read(data), read(SENTENCES, data)):
        assert all(e.end <= len(d.text) for d in documents for e in d.entities)


def test_a_folder(tmp_path: Path) -> None:
    for name in ("train/GENE.eval", "train/ALTGENE.eval", "train/README", "train/train.in", "test/test.in"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(SENTENCES if name.endswith(".in") else GOLD)
    notices: list[Notice] = []
    inputs = Inputs([str(tmp_path)], notices.append, "bc2gm")
    assert list(inputs) == [RECEPTOR.without_entities(), NOTHING, RECEPTOR, NOTHING]
    assert notices == [Notice("test/GENE.eval", None, "cannot be read: No such file or directory")]
    assert inputs.done_bytes == inputs.total_bytes
    (tmp_path / "test" / "test.in").unlink()
    with pytest.raises(InputError, match=r"test: no documents in this folder \(--from bc2gm\); is it the right one\?$"):
        Inputs([str(tmp_path / "test")], print, "bc2gm")


def test_no_extension_and_no_standard_input() -> None:
    assert by_suffix("train.in") is None
    with pytest.raises(UsageError, match=r"^bc2gm has its annotations in files beside the text"):
        Inputs([], print, "bc2gm")


def test_the_published_corpus_is_read_whole(corpora: Path) -> None:
    """One row of the gold leaves out the '/' that its offsets begin with."""
    notices: list[Notice] = []
    documents = list(read_file(corpora / "bc2gm/train/train.in", notices.append, name="x", file_format="bc2gm"))
    assert len(documents) == 15_000
    assert sum(len(d.entities) for d in documents) == 18_265 - 1
    assert [str(n) for n in notices] == ["GENE.eval:1790: the mention does not match the text at [184, 212)"]
