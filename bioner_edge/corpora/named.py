"""Corpora by name: where their files lie, what they annotate, and whether they are what was published.

`corpora.toml` beside this module says all of it. `open_corpus` takes a name from there, `bc5cdr:dev`, or whatever path
`bioner-edge extract` reads. Documents stay in the order of the files, and none is left out.
"""

from __future__ import annotations

import os
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from bioner_edge.document import Document
from bioner_edge.errors import InputError, UsageError, unknown_name
from bioner_edge.io.inputs import STDIN, Inputs
from bioner_edge.io.notice import Notice
from bioner_edge.io.reading import detect
from bioner_edge.io.registry import FILE_FORMATS

__all__ = ["Corpus", "Counts", "Entry", "Split", "corpora_dir", "entries", "open_corpus", "select"]

_VARIABLE = "BIONER_CORPORA"
_PATH_MARKS = frozenset("/\\*?[")


@dataclass(frozen=True, slots=True)
class Counts:
    """How many documents, annotations and rows that a reader refuses; None and an absent label are not known."""

    documents: int | None
    annotations: int | None
    unusable: int
    by_label: Mapping[str, int]

    @classmethod
    def of(cls, table: Mapping[str, int]) -> Counts:
        labels = dict(table)
        documents, annotations = labels.pop("documents", None), labels.pop("annotations", None)
        return cls(documents, annotations, labels.pop("unusable", 0), labels)

    def differences(self, wanted: Counts, source: str) -> list[str]:
        """What differs from `wanted`, of whatever that knows."""
        pairs = [("documents", self.documents, wanted.documents), ("annotations", self.annotations, wanted.annotations)]
        pairs += [(f"annotations of {label}", self.by_label.get(label, 0), n) for label, n in wanted.by_label.items()]
        return [f"{mine:,} {what}, {n:,} {source}" for what, mine, n in pairs if n is not None and mine != n]


@dataclass(frozen=True, slots=True)
class Split:
    """A part of a corpus. `counted` is what a sound copy holds where that is not what is published, `because` why."""

    name: str
    path: str
    published: Counts | None = None
    counted: Counts | None = None
    because: str = ""

    def found(self, folder: Path | None) -> bool:
        """Whether it lies in the corpora's folder; None is none. A file that cannot be read counts as found."""
        path = folder / self.path if folder else None
        return path is not None and (path.is_file() or (path.is_dir() and any(path.iterdir())))

    def compared(self, found: Counts) -> tuple[list[str], list[str]]:
        """(what differs from what is published, for a known reason; what differs and should not)."""
        wanted, source = (self.counted, "expected") if self.counted else (self.published, "published")
        wrong = found.differences(wanted, source) if wanted else []
        if wanted and found.unusable != wanted.unusable:
            wrong.append(f"rows that could not be used: {found.unusable}, {wanted.unusable} {source}")
        if wrong or not self.published:
            return [], wrong
        return [f"{told}: {self.because}" for told in found.differences(self.published, "published")], []


@dataclass(frozen=True, slots=True)
class Entry:
    """A corpus of the list. `labels` are in order, each with what it means; see corpora.toml for the other fields."""

    name: str
    title: str
    language: str
    format: str
    license: str
    citation: str
    doi: str
    url: str
    counts: str | None
    labels: Mapping[str, str]
    merge: Mapping[str, str]
    general: Mapping[str, str]
    splits: Mapping[str, Split]

    def to_json(self, folder: Path | None) -> dict[str, Any]:
        """All of it, with whether each split lies in `folder`."""
        known = {"corpus": self.name, **asdict(self)}
        known["labels"], known["guidelines"] = list(self.labels), dict(self.labels)
        known["splits"] = [{**asdict(split), "found": split.found(folder)} for split in self.splits.values()]
        del known["name"]
        return known


@cache
def entries() -> dict[str, Entry]:
    """The corpora that can be named."""
    tables = tomllib.loads(Path(__file__).with_name("corpora.toml").read_text("utf-8"))
    return {name: _entry(name, table) for name, table in tables.items()}


def _entry(name: str, table: dict[str, Any]) -> Entry:
    splits = {
        split: Split(
            split,
            row["path"],
            Counts.of(row["published"]) if "published" in row else None,
            Counts.of(row["counted"]) if "counted" in row else None,
            row.get("because", ""),
        )
        for split, row in table["splits"].items()
    }
    return Entry(**{"counts": None, "merge": {}, "general": {}, **table, "name": name, "splits": splits})


def corpora_dir() -> Path:
    """$BIONER_CORPORA, else ../shared/corpora. Raises InputError where it is absent."""
    path = Path(os.environ.get(_VARIABLE) or "../shared/corpora")
    if not path.is_dir():
        raise InputError(f"{path}: no such folder; set ${_VARIABLE} to the one that the corpora lie in")
    return path


@dataclass(frozen=True, slots=True)
class Corpus:
    """Annotated documents with all that is known of them.

    `general` gives for a label the name that corpora share, `guidelines` what it means. `unusable` rows are those that
    a reader refused; `notices` name them, and every count that is not the published one. `unexpected` are those notices
    about counts and labels that corpora.toml does not foresee. `published` is None for files.
    """

    name: str
    documents: list[Document]
    labels: tuple[str, ...]
    general: Mapping[str, str]
    guidelines: Mapping[str, str]
    license: str
    sha256: str
    notices: list[str]
    unusable: int
    unexpected: list[str]
    published: Counts | None = None

    @property
    def counts(self) -> Counts:
        by_label = Counter(entity.label for document in self.documents for entity in document.entities)
        return Counts(len(self.documents), by_label.total(), self.unusable, by_label)

    def for_labels(self, labels: Sequence[str]) -> tuple[Corpus, tuple[str, ...], tuple[str, ...]]:
        """(the corpus in the labels of a model, those of them that can be scored, its own that cannot).

        A label is the model's where the names are equal, else where its general name is one of the model's.
        Annotations with another label are left out. Raises InputError where no label is shared.
        """
        names = {own: own if own in labels else self.general.get(own, own) for own in self.labels}
        names = {own: name for own, name in names.items() if name in labels}
        if not names:
            message = (
                f"annotates {', '.join(self.labels) or 'nothing'}; the model knows {', '.join(labels) or 'nothing'}"
            )
            raise InputError(f"{self.name}: no label in common: it {message}")
        scored = tuple(label for label in labels if label in names.values())
        guidelines: dict[str, str] = {}
        for own, name in sorted(names.items(), key=lambda pair: pair[0] != pair[1]):
            if own in self.guidelines:
                guidelines.setdefault(name, self.guidelines[own])
        renamed = replace(
            self,
            documents=[_renamed(document, names) for document in self.documents],
            labels=scored,
            general={name: self.general.get(own, own) for own, name in names.items()},
            guidelines=guidelines,
        )
        return renamed, scored, tuple(label for label in self.labels if label not in names)


def _renamed(document: Document, names: Mapping[str, str]) -> Document:
    """The document with the annotations of the labels in `names`, under their new names."""
    return document.with_entities(replace(e, label=names[e.label]) for e in document.entities if e.label in names)


def select(name: str) -> tuple[Entry, list[Split]]:
    """The corpus of a name, `bc5cdr` or `bc5cdr:dev`, and the splits that it means.

    Raises UsageError for a corpus or split that is not in the list.
    """
    corpus, colon, split = name.partition(":")
    if corpus not in entries():
        raise UsageError(unknown_name("corpus", name, entries()))
    entry = entries()[corpus]
    if not colon:
        return entry, list(entry.splits.values())
    if split not in entry.splits:
        raise UsageError(unknown_name(f"split of {corpus}", split, (f"{corpus}:{s}" for s in entry.splits)))
    return entry, [entry.splits[split]]


def open_corpus(name: str) -> Corpus:
    """The corpus of a name, `bc5cdr:dev`, or of a file, a folder or a pattern; a name wins over a file called so.

    Raises UsageError for an unknown name, and for one of several splits without a split; InputError where files are
    missing.
    """
    if name.partition(":")[0] in entries():
        entry, splits = select(name)
        if len(splits) > 1:
            raise UsageError(f"{name}: which split? {', '.join(f'{name}:{split.name}' for split in splits)}")
        return _of_entry(entry, splits[0])
    if name == STDIN:
        raise UsageError("a corpus is read more than once, standard input is not: name a file")
    if not (Path(name).exists() or _PATH_MARKS & set(name) or Path(name).suffix):
        raise UsageError(f"{unknown_name('corpus', name, entries())}; or give a file, a folder or a pattern")
    documents, notices, digest = _read(name, None)
    labels = tuple(sorted({entity.label for document in documents for entity in document.entities}))
    return Corpus(name, documents, labels, {}, {}, "", digest, [str(n) for n in notices], _refused(notices), [])


def _of_entry(entry: Entry, split: Split) -> Corpus:
    folder, name = corpora_dir(), f"{entry.name}:{split.name}"
    if not split.found(folder):
        raise InputError(f"{name}: {folder / split.path} is not there; it is to be had at {entry.url}")
    documents, notices, digest = _read(str(folder / split.path), entry.format)
    found = {e.label for d in documents for e in d.entities} - entry.merge.keys() - entry.labels.keys()
    strange = tuple(sorted(found))
    labels = (*entry.labels, *strange)
    names = {**{label: label for label in labels}, **entry.merge}
    corpus = Corpus(
        name=name,
        documents=[_renamed(document, names) for document in documents],
        labels=labels,
        general={label: entry.general.get(label, label) for label in labels},
        guidelines=entry.labels,
        license=entry.license,
        sha256=digest,
        notices=[],
        unusable=_refused(notices),
        unexpected=[],
        published=split.published,
    )
    foreseen, wrong = split.compared(corpus.counts)
    wrong += [f"annotations of {label!r}, a label that it should not have" for label in strange]
    told = [f"{name}: {difference}" for difference in (*foreseen, *wrong)]
    return replace(corpus, notices=[*map(str, notices), *told], unexpected=wrong)


def _refused(notices: Sequence[Notice]) -> int:
    return sum(not notice.remark for notice in notices)


def _read(name: str, file_format: str | None) -> tuple[list[Document], list[Notice], str]:
    """The documents of a path, what their readers said, and the hash of all files that they read."""
    notices: list[Notice] = []
    inputs = Inputs([name], notices.append, file_format, annotated=True)
    documents = list(inputs)
    files = ((label, path) for label, path in inputs.files if path)
    lines = sorted(f"{digest}  {at}\n" for label, path in files for at, digest in _hashes(label, path, file_format))
    return documents, notices, sha256("".join(lines).encode()).hexdigest()


def _hashes(name: str, path: Path, file_format: str | None) -> Iterator[tuple[str, str]]:
    """(name, SHA-256) of a file and of the annotations that are read beside it."""
    found = FILE_FORMATS[file_format] if file_format else detect(path)
    for file in (path, *(found.beside.annotation_files(path) if found and found.beside else ())):
        if file.is_file():
            yield Path(name).with_name(file.name).as_posix(), sha256(file.read_bytes()).hexdigest()
