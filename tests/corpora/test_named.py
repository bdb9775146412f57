"""Corpora by name: what corpora.toml says is whole, what is opened is what it says, and nothing differs in silence."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioner_edge.corpora import named
from bioner_edge.corpora.named import Corpus, Counts, Split, corpora_dir, entries, open_corpus, select
from bioner_edge.document import Document, Entity
from bioner_edge.errors import InputError, UsageError
from bioner_edge.tuning import sources

PUBTATOR = """\
1|t|Aspirin and pain.
1|a|Nothing else.
1\t0\t7\tAspirin\tChemical
1\t12\t16\tpain\tDisease

2|t|Fever fell.
2|a|
2\t0\t5\tFever\tDisease
"""
NCBI = """\
7|t|Gout and goitre.
7|a|
7\t0\t4\tGout\tSpecificDisease
7\t9\t15\tgoitre\tDiseaseClass
7\t9\t15\tother\tModifier

7|t|Gout and goitre.
7|a|
7\t0\t4\tGout\tModifier
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of corpora with texts of our own in it."""
    for name, text in {
        "bc5cdr/dev.PubTator.txt": PUBTATOR,
        "ncbi-disease/dev.PubTator.txt": NCBI,
        "keepha-ja/pseudo-tweets/1.txt": "頭痛がする",
        "keepha-ja/pseudo-tweets/1.ann": "T1\tDISORDER 0 2\t頭痛\n",
        "bc2gm/train/train.in": "P1 The insulin receptor was cloned.\n",
        "bc2gm/train/GENE.eval": "P1|3 17|insulin receptor\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, "utf-8")
    monkeypatch.setenv("BIONER_CORPORA", str(tmp_path))
    return tmp_path


# --- The list


@pytest.mark.parametrize("entry", entries().values(), ids=lambda entry: entry.name)
def test_an_entry_is_whole(entry: named.Entry) -> None:
    assert entry.labels and entry.splits and ":" not in entry.name and "/" not in entry.name
    assert set(entry.merge.values()) <= set(entry.labels) and not set(entry.merge) & set(entry.labels)
    assert set(entry.general) <= set(entry.labels)
    assert entry.doi.startswith("10.") and entry.url.startswith("http")
    for text in entry.labels.values():
        assert text.endswith(".") and ". " not in text, "a guideline is one sentence"
    for split in entry.splits.values():
        assert split.published or split.counted
        assert not split.published or entry.counts, "published counts need a source"
        for counts in filter(None, (split.published, split.counted)):
            assert set(counts.by_label) in (set(), set(entry.labels))
            assert not counts.by_label or sum(counts.by_label.values()) == counts.annotations
        if split.published and split.counted and split.counted.differences(split.published, ""):
            assert split.because


def test_the_corpora_that_are_asked_for_are_listed() -> None:
    wanted = ["bc5cdr", "ncbi-disease", "biored", "anatem", "bionlp13cg", "jnlpba", "keepha-ja", "bc2gm"]
    assert set(wanted) <= set(entries())


@pytest.mark.parametrize(
    ("corpus", "total"), [("ncbi-disease", 6892), ("biored", 20419), ("anatem", 13701), ("bionlp13cg", 21683)]
)
def test_published_splits_add_up_to_the_published_whole(corpus: str, total: int) -> None:
    published = [split.published for split in entries()[corpus].splits.values()]
    assert sum(counts.annotations or 0 for counts in published if counts) == total


def test_every_corpus_that_is_here_is_what_is_expected(corpora: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIONER_CORPORA", str(corpora))
    found = [f"{e.name}:{s.name}" for e in entries().values() for s in e.splits.values() if s.found(corpora)]
    assert "bc5cdr:dev" in found
    for name in found:
        corpus = open_corpus(name)
        assert corpus.unexpected == [], name
        assert set(corpus.counts.by_label) <= set(corpus.labels), name


def test_no_document_is_left_out(corpora: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIONER_CORPORA", str(corpora))
    often = Counter(document.id for document in open_corpus("ncbi-disease:train").documents)
    assert often["8528200"] == 2 and often.total() == 593


# --- Opening


def test_labels_are_merged_and_documents_keep_their_order_and_their_doubles(folder: Path) -> None:
    corpus = open_corpus("ncbi-disease:dev")
    assert [d.id for d in corpus.documents] == ["7", "7"]
    assert [[e.label for e in d.entities] for d in corpus.documents] == [["Disease", "Disease"], ["Disease"]]
    assert corpus.labels == ("Disease",) and corpus.name == "ncbi-disease:dev"
    assert "Disease" in corpus.guidelines and corpus.license == "US Government work"


def test_counts_that_are_not_the_published_ones_are_told(folder: Path) -> None:
    corpus = open_corpus("bc5cdr:dev")
    assert corpus.published and corpus.published.annotations == 9591
    assert corpus.counts == Counts(2, 3, 0, {"Chemical": 1, "Disease": 2})
    assert "2 documents, 500 published" in corpus.unexpected
    assert "2 annotations of Disease, 4,244 published" in corpus.unexpected
    assert "bc5cdr:dev: 3 annotations, 9,591 published" in corpus.notices


def test_a_row_that_no_reader_takes_is_counted_and_told(folder: Path) -> None:
    corpus = open_corpus("ncbi-disease:dev")
    assert corpus.unusable == 1 and "does not match" in corpus.notices[0]
    assert "rows that could not be used: 1, 0 published" in corpus.unexpected


def test_a_label_that_a_corpus_should_not_have_is_told_and_kept(folder: Path) -> None:
    path = folder / "bc5cdr" / "dev.PubTator.txt"
    path.write_text(PUBTATOR.replace("pain\tDisease", "pain\tPain"), "utf-8")
    corpus = open_corpus("bc5cdr:dev")
    assert corpus.labels == ("Chemical", "Disease", "Pain")
    assert corpus.counts.by_label["Pain"] == 1
    assert any("'Pain'" in told for told in corpus.unexpected)


def test_a_known_difference_is_told_with_its_reason_and_any_other_is_wrong() -> None:
    published, counted = Counts.of({"documents": 3, "annotations": 9}), Counts.of({"documents": 3, "annotations": 8})
    split = Split("dev", "x", published, counted, "one is broken")
    assert split.compare(counted) == (["8 annotations, 9 published: one is broken"], [])
    assert split.compare(published) == ([], ["9 annotations, 8 expected"])
    assert split.compare(Counts(3, 8, 1, {})) == ([], ["rows that could not be used: 1, 0 expected"])
    assert Split("dev", "x", published).compare(published) == ([], [])


def test_a_name_alone_is_enough_where_there_is_one_split(folder: Path) -> None:
    assert open_corpus("keepha-ja").name == "keepha-ja:all"
    with pytest.raises(UsageError, match="bc5cdr:train, bc5cdr:dev, bc5cdr:test"):
        open_corpus("bc5cdr")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("bc5dcr", "unknown corpus 'bc5dcr'; known: bc5cdr, .*or give a file"),
        ("bc5dcr:dev", "unknown corpus"),
        ("bc5cdr:devel", "unknown split of bc5cdr 'devel'; known: bc5cdr:train"),
        ("bc5cdr:", "unknown split"),
        ("-", "standard input"),
    ],
)
def test_an_unknown_name_is_refused(folder: Path, name: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        open_corpus(name)


def test_a_missing_file_says_where_to_get_it(folder: Path) -> None:
    with pytest.raises(InputError, match=r"bc5cdr:test: .*test\.PubTator\.txt is missing; .* at https://"):
        open_corpus("bc5cdr:test")
    with pytest.raises(InputError, match="no such file"):
        open_corpus("./nothing.jsonl")


def test_an_empty_folder_is_no_split(folder: Path) -> None:
    split = entries()["anatem"].splits["dev"]
    assert not split.found(folder) and not split.found(None)
    (folder / "anatem" / "dev").mkdir(parents=True)
    assert not split.found(folder)
    (folder / "anatem" / "dev" / "1.txt").write_text("Heart.")
    assert split.found(folder)


def test_a_folder_of_corpora_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BIONER_CORPORA", str(tmp_path / "none"))
    with pytest.raises(InputError, match=r"none: no such folder; set \$BIONER_CORPORA"):
        open_corpus("bc5cdr:dev")
    monkeypatch.setenv("BIONER_CORPORA", "")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"\.\./shared/corpora"):
        corpora_dir()
    assert sources.corpora_dir is corpora_dir


def test_a_name_wins_over_a_file_and_a_path_is_a_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    for name in ("bc5cdr:dev", "bc5dcr"):
        (folder / name).write_text("Pain.", "utf-8")
    assert open_corpus("bc5cdr:dev").published
    mine = open_corpus("./bc5cdr:dev")
    assert mine.published is None and [d.text for d in mine.documents] == ["Pain."]
    assert open_corpus("bc5dcr").name == "bc5dcr", "a file that is there is meant"


def test_a_path_has_the_labels_that_occur(folder: Path) -> None:
    corpus = open_corpus(str(folder / "keepha-ja"))
    assert (corpus.labels, corpus.published, corpus.notices) == (("DISORDER",), None, [])
    both = open_corpus(f"{folder}/*/dev.PubTator.txt")
    assert both.labels == ("Chemical", "Disease", "DiseaseClass", "Modifier", "SpecificDisease")
    assert len(both.documents) == 4 and both.unusable == 1


def test_chosen_takes_all_splits_of_a_name() -> None:
    entry, splits = select("ncbi-disease")
    assert [split.name for split in splits] == ["train", "dev", "test"] == list(entry.splits)
    assert [split.name for split in select("ncbi-disease:dev")[1]] == ["dev"]


# --- The hash


def test_the_hash_is_that_of_what_was_read(folder: Path) -> None:
    tweets = folder / "keepha-ja" / "pseudo-tweets"
    before = open_corpus("keepha-ja").sha256
    (tweets / "1.a2").write_text("E1\tX:T1\n")
    (tweets / "LICENSE").write_text("MIT")
    assert open_corpus("keepha-ja").sha256 == before
    (tweets / "1.ann").write_text("T1\tDISORDER 0 1\t頭\n", "utf-8")
    changed = open_corpus("keepha-ja").sha256
    assert changed != before
    (tweets / "1.txt").rename(tweets / "2.txt")
    assert open_corpus("keepha-ja").sha256 not in (before, changed)


def test_the_gold_of_bc2gm_is_in_the_hash(folder: Path) -> None:
    before = open_corpus("bc2gm:train").sha256
    (folder / "bc2gm" / "train" / "GENE.eval").write_text("P1|3 9|insulin\n")
    assert open_corpus("bc2gm:train").sha256 != before


def test_the_hash_is_the_same_wherever_the_files_lie(tmp_path: Path) -> None:
    hashes = set()
    for place, names in (("a", ("1", "2")), ("b", ("2", "1"))):
        for name in names:
            (tmp_path / place).mkdir(exist_ok=True)
            (tmp_path / place / f"{name}.txt").write_text(f"Text {name}.")
        hashes.add(open_corpus(str(tmp_path / place)).sha256)
    assert len(hashes) == 1


# --- In the labels of a model


def corpus_of(*labels: str, general: dict[str, str] | None = None) -> Corpus:
    """A document with one entity of each label."""
    text = "x" * len(labels)
    document = Document("1", text, tuple(Entity.at(label, n, n + 1) for n, label in enumerate(labels)))
    meanings = {label: f"What {label} is." for label in labels}
    names = {label: (general or {}).get(label, label) for label in labels}
    return Corpus("own", [document], labels, names, meanings, "MIT", "", [], 0, [])


def test_labels_are_renamed_where_the_general_name_is_a_models(folder: Path) -> None:
    corpus = corpus_of(
        "GeneOrGeneProduct", "DiseaseOrPhenotypicFeature", "ChemicalEntity", general=dict(entries()["biored"].general)
    )
    mine, scored, left = corpus.for_labels(["Chemical", "Disease", "Pill"])
    assert scored == mine.labels == ("Chemical", "Disease")
    assert left == ("GeneOrGeneProduct",)
    assert [e.label for e in mine.documents[0].entities] == ["Disease", "Chemical"]
    assert mine.guidelines == {
        "Chemical": "What ChemicalEntity is.",
        "Disease": "What DiseaseOrPhenotypicFeature is.",
    }
    assert len(corpus.documents[0].entities) == 3, "the corpus itself is as it was"


def test_an_equal_name_comes_before_a_general_one() -> None:
    corpus = corpus_of("Drug", "Chemical", general={"Drug": "Chemical"})
    mine, scored, left = corpus.for_labels(["Chemical"])
    assert (scored, left) == (("Chemical",), ())
    assert [e.label for e in mine.documents[0].entities] == ["Chemical", "Chemical"]
    assert mine.guidelines == {"Chemical": "What Chemical is."}
    own, scored, _ = corpus.for_labels(["Drug", "Chemical"])
    assert scored == ("Drug", "Chemical") and [e.label for e in own.documents[0].entities] == ["Drug", "Chemical"]


def test_no_common_label_is_an_error_that_names_both() -> None:
    with pytest.raises(
        InputError, match=r"own: no label in common: it annotates Gene; the model knows Chemical, Disease"
    ):
        corpus_of("Gene").for_labels(["Chemical", "Disease"])


NAMES = st.lists(st.sampled_from("ABCDEF"), unique=True, min_size=1)


@given(NAMES, NAMES, st.dictionaries(st.sampled_from("ABCDEF"), st.sampled_from("ABCDEF")))
def test_what_is_scored_and_what_is_not_are_all(own: list[str], asked: list[str], general: dict[str, str]) -> None:
    corpus = corpus_of(*own, general=general)
    try:
        mine, scored, left = corpus.for_labels(asked)
    except InputError:
        assert not any(label in asked or general.get(label) in asked for label in own)
        return
    assert set(scored) <= set(asked) and list(scored) == [label for label in asked if label in scored]
    kept = [e.label for e in mine.documents[0].entities]
    assert set(kept) == set(scored) and len(kept) + len(left) == len(own)
