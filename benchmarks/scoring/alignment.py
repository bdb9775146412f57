"""Align predictions of any tool with the gold of a corpus, document by document.

A document is identified by its id, a second occurrence as `ID#2`, a third as `ID#3`, on both sides. A prediction counts
if it is about the gold's text; whitespace may differ, one character for one. For any other text, or without a
prediction, all gold of the document is missed, and the document is reported.

A predicted entity that is not in the text at its offsets is ASTRAY. It counts as predicted and is never right: dropping
it would raise precision.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, cast

from bioner_edge.benchmarks.scoring.accuracy import Pair
from bioner_edge.document import Document
from bioner_edge.errors import InputError, alternatives
from bioner_edge.io import jsonl
from bioner_edge.io.contract import Source
from bioner_edge.io.inputs import Inputs
from bioner_edge.io.notice import Notice
from bioner_edge.io.reading import detect, read_file
from bioner_edge.io.registry import STANDARD, scorable
from bioner_edge.io.rows import annotation_rows, labels_of

__all__ = ["Alignment", "Prediction", "align", "keys", "read_predictions", "same_text"]


@dataclass(frozen=True, slots=True)
class Prediction:
    """The predictions for a document: its entities, and the labels of those that are astray.

    The other fields are reported by `bioner-edge extract`: the kinds of problems in its answers; how many answers have
    problems, and how many entities were read from these, None where unknown; why the document could not be read at all.
    """

    document: Document
    astray: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    broken_answers: int | None = 0
    salvaged: int | None = 0
    error: str | None = None


@dataclass(slots=True)
class Alignment:
    """The gold documents, in order, each with its predictions.

    `missing` have no prediction, `changed` one for another text, `failed` one that reports a failure: nothing in these
    counts as found. `used` are the others; `beside` is the number of predictions without a gold document.
    """

    pairs: list[Pair] = field(default_factory=list)
    used: list[Prediction] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    beside: int = 0


def keys(documents: Iterable[Document]) -> Iterator[tuple[str, Document]]:
    """Each document with a key that is unique on its side."""
    taken: set[str] = set()
    often = Counter[str]()
    for document in documents:
        often[document.id] += 1
        key = document.id if often[document.id] == 1 else f"{document.id}#{often[document.id]}"
        while key in taken:  # an id that itself ends in "#2"
            often[document.id] += 1
            key = f"{document.id}#{often[document.id]}"
        taken.add(key)
        yield key, document


def same_text(one: str, other: str) -> bool:
    """Whether two texts are equal, except that one whitespace character may replace another."""
    return one == other or (
        len(one) == len(other) and all(a == b or (a.isspace() and b.isspace()) for a, b in zip(one, other, strict=True))
    )


def align(
    predictions: Iterable[Prediction], gold: Sequence[Document], names: Mapping[str, str] | None = None
) -> Alignment:
    """Align predictions with their gold. `names` maps labels of the predictions to those of the gold, where they
    differ."""
    listed = list(predictions)
    found = {key: p for (key, _), p in zip(keys(p.document for p in listed), listed, strict=True)}
    aligned = Alignment()
    for key, document in keys(gold):
        prediction = found.pop(key, None)
        if prediction is None:
            aligned.missing.append(key)
        elif prediction.error is not None:
            aligned.failed.append(key)
        elif not same_text(prediction.document.text, document.text):
            aligned.changed.append(key)
        else:
            aligned.used.append(prediction)
            aligned.pairs.append(_pair(key, document, prediction, names or {}))
            continue
        aligned.pairs.append(Pair(key, document.text, (), document.entities))
    aligned.beside = len(found)
    return aligned


def _pair(key: str, gold: Document, prediction: Prediction, names: Mapping[str, str]) -> Pair:
    renamed = [replace(e, label=names.get(e.label, e.label)) for e in prediction.document.entities]
    return Pair(key, gold.text, renamed, gold.entities, [names.get(label, label) for label in prediction.astray])


def read_predictions(paths: Sequence[str], report: Callable[[Notice], None]) -> Iterator[Prediction]:
    """The predictions in files, folders and globs, in the file formats of `scorable`; `-` is JSON Lines on standard
    input.

    Rows that cannot be used are passed to `report`. Raises InputError for a file that does not exist or cannot be
    opened.
    """
    inputs = Inputs(paths, report, annotated=True)
    for notice in inputs.notices:
        report(notice)
    for name, path in inputs.files:
        found = detect(path) if path else STANDARD
        if path is None:
            yield from _json_lines(sys.stdin.buffer, name, report)
        elif found is STANDARD:
            with _open(path) as stream:
                yield from _json_lines(stream, name, report)
        elif found and found.row_label:
            yield from _from_annotations(path, name, found.row_label, report)
        else:
            neither = " nor ".join(known.title for known in scorable() if not known.beside)
            beside = alternatives(known.suffixes[0] for known in scorable() if known.beside)
            report(Notice(name, None, f"no prediction in it: neither {neither}, and no {beside} beside it"))


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None


class _Lines:
    """Lines of a stream; `last` is the most recent one."""

    def __init__(self, stream: Iterable[bytes]) -> None:
        self._stream = stream
        self.last = b""

    def __iter__(self) -> Iterator[bytes]:
        for line in self._stream:
            self.last = line
            yield line


def _json_lines(stream: BinaryIO, name: str, report: Callable[[Notice], None]) -> Iterator[Prediction]:
    """The predictions of a stream, each with the other fields of its line."""
    lines = _Lines(stream)
    for document in jsonl.read(Source(cast(BinaryIO, lines), name, annotated=True), report):
        record = json.loads(lines.last.decode("utf-8-sig"))
        kinds = tuple(_kind(problem) for problem in _list_of(record, "problems"))
        written = Counter(label for row in annotation_rows(record) for label in labels_of(row))
        written.subtract(entity.label for entity in document.entities)
        yield Prediction(
            document,
            astray=tuple(written.elements()),
            problems=kinds,
            broken_answers=_count(record, "broken_answers", None if kinds else 0),
            salvaged=_count(record, "salvaged", None if kinds else 0),
            error=str(record["error"]) if record.get("error") is not None else None,
        )


def _list_of(record: Mapping[str, Any], name: str) -> list[Any]:
    value = record.get(name)
    return value if isinstance(value, list) else []


def _kind(problem: Any) -> str:
    return str(problem.get("kind", "unknown")) if isinstance(problem, dict) else "unknown"


def _count(record: Mapping[str, Any], name: str, default: int | None) -> int | None:
    value = record.get(name, default)
    return value if isinstance(value, int) and value >= 0 else default


def _from_annotations(
    path: Path, name: str, row: re.Pattern[str], report: Callable[[Notice], None]
) -> Iterator[Prediction]:
    """The predictions of a file; rows that its reader refuses are astray entities of the next document."""
    refused: list[Notice] = []

    def note(notice: Notice) -> None:
        refused.append(notice)
        report(notice)

    for document in read_file(path, note, name=name):
        labels = (match[1].rstrip("\r") for notice in refused if (match := row.match(notice.row)))
        yield Prediction(document, tuple(labels))
        refused.clear()
