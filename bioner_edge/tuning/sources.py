"""Training documents: the recipe's gold corpora and plain text, without held-out documents."""

from __future__ import annotations

import json
import lzma
import os
import random
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bioner_edge.corpora.named import corpora_dir
from bioner_edge.document import Document
from bioner_edge.errors import InputError
from bioner_edge.io.reading import read_file
from bioner_edge.text.sentences import split_sentences

__all__ = ["Sentence", "corpora_dir", "gold", "held_out", "recipe", "silver_text", "text_dir"]

Recipe = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Sentence:
    """One training example: a sentence as a document of its own, and the labels that are annotated in it
    exhaustively."""

    document: Document
    annotates: tuple[str, ...]
    source: str


def recipe(path: Path | None = None) -> Recipe:
    """The recipe of the bundled model, or another one."""
    return tomllib.loads((path or Path(__file__).with_name("recipe.toml")).read_text("utf-8"))


def text_dir() -> Path:
    """$BIONER_TEXT, else ../shared/text. Raises InputError if it does not exist."""
    path = Path(os.environ.get("BIONER_TEXT", "../shared/text"))
    if not path.is_dir():
        raise InputError(f"{path}: no such folder; set $BIONER_TEXT")
    return path


def held_out(settings: Recipe) -> frozenset[str]:
    """The ids of every dev and test document of every corpus."""
    return frozenset((corpora_dir() / settings["held_out"]).read_text("utf-8").split())


def _corpus(name: str, skip: frozenset[str], names: dict[str, str]) -> Iterator[Document]:
    seen = set()
    for document in read_file(corpora_dir() / name, lambda notice: None):
        if document.id in skip or document.text in seen:  # NCBI Disease has one abstract twice
            continue
        seen.add(document.text)
        kept = [replace(e, label=names.get(e.label, e.label)) for e in document.entities]
        yield document.with_entities(kept)


def gold(settings: Recipe) -> Iterator[Sentence]:
    """The sentences of the gold corpora, repeated as often as the recipe says for their source."""
    skip = held_out(settings)
    for source in settings["gold"]:
        annotates = tuple(source["annotates"])
        for document in _corpus(source["file"], skip, source.get("map", {})):
            document = document.with_entities(e for e in document.entities if e.label in annotates)
            for sentence in split_sentences(document):
                for _ in range(source.get("repeat", 1)):
                    yield Sentence(sentence, annotates, source["file"])


def silver_text(settings: Recipe) -> Iterator[Document]:
    """Unlabeled sentences: corpora of other types, then a share of each plain-text source, in the order of the
    files."""
    chosen = random.Random(settings["seed"])
    skip = held_out(settings)
    for name in settings["silver"]["corpora"]:
        for document in _corpus(name, skip, {}):
            yield from split_sentences(document.without_entities())
    shares = settings["silver"]["sources"]
    for part in settings["silver"]["text"]:
        with lzma.open(text_dir() / part, "rt", encoding="utf-8") as stream:
            for line in stream:
                record = json.loads(line)
                for sentence in split_sentences(Document(record["id"], record["text"])):
                    if chosen.random() < shares.get(record["source"], 0.0):
                        yield sentence
