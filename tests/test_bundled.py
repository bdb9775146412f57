"""The models that ship with the package: each is the file that was meant, and does what its card says."""

from __future__ import annotations

import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest

import bioner_edge
from bioner_edge.benchmarks.scoring.accuracy import Pair, micro
from bioner_edge.formats import FORMATS
from bioner_edge.io.reading import read_file
from bioner_edge.models import registry
from bioner_edge.models.manifest import size
from bioner_edge.text.tokens import boundaries

EXAMPLES = Path(bioner_edge.__file__).parent / "examples"


@pytest.mark.parametrize("name", registry.listed_models())
def test_it_is_small_listed_and_what_its_manifest_says(name: str) -> None:
    path, manifest = registry.find(name)
    listing = registry.listed_models()[name]
    assert manifest is not None and size(path) <= 32_000_000
    assert (manifest.formats, manifest.labels, manifest.license) == (listing.formats, listing.labels, listing.license)
    assert (path.parent / "MODEL_CARD.md").is_file()


def test_three_lines_find_a_drug() -> None:
    extractor = bioner_edge.load()
    text = "Naloxone reverses the antihypertensive effect of clonidine."
    found = extractor(text).entities
    extractor.close()
    assert {e.mention(text) for e in found if e.label == "Chemical"} >= {"Naloxone", "clonidine"}


def test_a_format_chooses_the_model_that_was_tuned_for_it(recwarn: pytest.WarningsRecorder) -> None:
    chosen = {name: registry.default(name) for name in FORMATS}
    assert chosen["multi_tag"] == registry.default() == chosen["multi_bio"]
    assert chosen["multi_code"] == chosen["conv_term"] != registry.default()
    with bioner_edge.load(format="conv_term") as extractor:
        text = "Naloxone reverses the antihypertensive effect of clonidine."
        found = extractor(text)
    assert {e.mention(text) for e in found.entities} >= {"clonidine"} and found.answers == 2
    assert not recwarn.list


@pytest.mark.thorough(only=("multi_code",))  # the same model as with conv_term
@pytest.mark.parametrize("form", ["multi_tag", "multi_code", "conv_term"])
def test_it_reads_the_examples(form: str) -> None:
    documents = list(read_file(EXAMPLES / "abstracts.pubtator", print))
    with bioner_edge.load(format=form) as extractor:
        pairs = [Pair(d.id, d.text, extractor(d).entities, d.entities) for d in documents]
    assert micro(pairs, ["Chemical", "Disease"]).f1 > 0.6


@pytest.mark.thorough(but=("chemdis-9m-multi_tag-*",))
@pytest.mark.parametrize(
    ("name", "form", "least"),
    [
        ("chemdis-9m", "multi_tag", 0.77),
        ("chemdis-9m-onnx", "multi_tag", 0.77),
        ("chemdis-9m-lists", "multi_code", 0.66),
        ("chemdis-9m-lists", "conv_term", 0.66),
    ],
)
def test_it_reads_bc5cdr_dev_as_well_as_its_card_says(name: str, form: str, least: float, corpora: Path) -> None:
    """The first fifty of the five hundred documents, of which the card gives the F1."""
    documents = list(islice(read_file(corpora / "bc5cdr" / "dev.PubTator.txt", print), 50))
    pairs = []
    with bioner_edge.load(name, format=form) as extractor:
        for document in documents:
            extraction = extractor(document)
            assert not extraction.problems
            starts, ends = boundaries(document.text)
            assert all(e.start in starts and e.end in ends for e in extraction.entities)
            pairs.append(Pair(document.id, document.text, extraction.entities, document.entities))
    assert micro(pairs, ["Chemical", "Disease"]).f1 > least


def test_a_warning_is_one_line_even_as_the_process_ends(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Aspirin.", "utf-8")
    command = [sys.executable, "-m", "bioner_edge", "extract", str(tmp_path / "a.txt"), "--labels", "Gene"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (line,) = done.stderr.splitlines()
    assert "was not tuned for the labels Gene; it knows Chemical, Disease" in line
