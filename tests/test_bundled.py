"""The model that ships with the package: it is the file that was meant, and it does what its card says."""

from __future__ import annotations

import subprocess
import sys
from itertools import islice
from pathlib import Path

import bioner_edge
from bioner_edge import models
from bioner_edge.benchmarks.accuracy import score
from bioner_edge.boundaries import boundaries
from bioner_edge.corpora import read_file

EXAMPLES = Path(bioner_edge.__file__).parent / "examples"


def test_it_is_small_listed_and_what_its_manifest_says() -> None:
    path, manifest = models.find(None)
    listing = models.listed()[models.default() or ""]
    assert manifest is not None and path.stat().st_size <= 32_000_000
    assert (manifest.formats, manifest.labels, manifest.licence) == (listing.formats, listing.labels, listing.licence)
    assert (path.parent / "MODEL_CARD.md").is_file()


def test_three_lines_find_a_drug() -> None:
    extractor = bioner_edge.load()
    text = "Naloxone reverses the antihypertensive effect of clonidine."
    found = extractor(text).entities
    extractor.close()
    assert {e.mention(text) for e in found if e.label == "Chemical"} >= {"Naloxone", "clonidine"}


def test_it_reads_the_examples() -> None:
    documents = list(read_file(EXAMPLES / "abstracts.pubtator", print))
    with bioner_edge.load() as extractor:
        scores = score((extractor(d).entities, d.entities) for d in documents)
    assert scores.micro.f1 > 0.6


def test_it_reads_bc5cdr_dev_as_well_as_its_card_says(corpora: Path) -> None:
    """The first fifty of the five hundred documents, of which the card gives the F1: 0.80."""
    documents = list(islice(read_file(corpora / "bc5cdr" / "dev.PubTator.txt", print), 50))
    pairs = []
    with bioner_edge.load() as extractor:
        for document in documents:
            extraction = extractor(document)
            assert not extraction.problems
            starts, ends = boundaries(document.text)
            assert all(e.start in starts and e.end in ends for e in extraction.entities)
            pairs.append((extraction.entities, document.entities))
    assert score(pairs).micro.f1 > 0.77


def test_a_warning_is_one_line_even_as_the_process_ends(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Aspirin.", "utf-8")
    command = [sys.executable, "-m", "bioner_edge", "extract", str(tmp_path / "a.txt"), "--labels", "Gene"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (line,) = done.stderr.splitlines()
    assert "was not tuned for the labels Gene; it knows Chemical, Disease" in line
