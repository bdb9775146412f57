"""Training data: no held-out document passes, and sentences keep what they can of their document."""

from __future__ import annotations

from pathlib import Path

import pytest

from bioner_edge.document import Document, Entity
from bioner_edge.text.sentences import split_sentences
from bioner_edge.tuning import sources


def test_a_sentence_keeps_the_entities_that_it_holds_whole() -> None:
    document = Document("1", "Pain fell. Aspirin helped.", (Entity.at("Disease", 0, 4), Entity.at("Chemical", 11, 18)))
    first, second = split_sentences(document)
    assert (first.text, [e.mention(first.text) for e in first.entities]) == ("Pain fell.", ["Pain"])
    assert (second.text, [e.mention(second.text) for e in second.entities]) == ("Aspirin helped.", ["Aspirin"])


def test_no_held_out_document_is_a_source(corpora: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIONER_CORPORA", str(corpora))
    recipe = sources.recipe()
    held_out = sources.held_out(recipe)
    assert len(held_out) > 1000
    seen = {s.document.id for s in sources.gold(recipe)}
    assert seen and not seen & held_out
    texts = {s.document.text for s in sources.gold(recipe)}
    from bioner_edge.io.reading import read_file

    dev = [s.text for d in read_file(corpora / recipe["dev"], print) for s in split_sentences(d)]
    shared = [t for t in dev if t in texts and len(t) > 60]
    assert not shared, f"{len(shared)} long dev sentences are training sentences too"


def test_labels_are_renamed_and_what_a_source_does_not_annotate_is_told(
    corpora: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BIONER_CORPORA", str(corpora))
    recipe = sources.recipe()
    for sentence in sources.gold(recipe):
        assert {e.label for e in sentence.document.entities} <= set(sentence.annotates) <= set(recipe["labels"])
