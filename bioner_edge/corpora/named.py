"""Named corpora: the paths of their files, their labels, and a comparison with their published counts.

They are listed in `corpora.toml` beside this module. `open_corpus` takes a name from it, `bc5cdr:dev`, or any path that
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
    """Numbers of documents, annotations and rows that a reader refuses; None or an absent label means unknown."""

    documents: int | None
    annotations: int | None
    unusable: int
    by_label: Mapping[str, int]

    @classmethod
    def of(cls, table: Mapping[str, int]) -> Counts:
        labels = dict(table)
        documents, annotations = labels.pop("documents", None), labels.pop("annotations", None)
        return cls(documents, annotations, labels.pop("unusable", 0), labels)

    def differences(self, other: Counts, source: str) -> list[str]:
        """The differences from the known counts of `other`."""
        pairs = [("documents", self.documents, other.documents), ("annotations", self.annotations, other.annotations)]
        pairs += [(f"annotations of {label}", self.by_label.get(label, 0), n) for label, n in other.by_label.items()]
        return [f"{mine:,} {what}, {n:,} {source}" for what, mine, n in pairs if n is not None and mine != n]


@dataclass(frozen=True, slots=True)
class Split:
    """A part of a corpus. `counted` are the counts of an intact copy if they differ from the published ones, `because`
    says why."""

    name: str
    path: str
    published: Counts | None = None
    counted: Counts | None = None
    because: str = ""

    def found(self, folder: Path | None) -> bool:
        """Whether the split is in the corpora's folder, if there is one. A file that cannot be read counts as found."""
        path = folder / self.path if folder else None
        return path is not None and (path.is_file() or (path.is_dir() and any(path.iterdir())))

    def compare(self, found: Counts) -> tuple[list[str], list[str]]:
        """(differences from the published counts for a known reason, unexpected differences)."""
        expected, source = (self.counted, "expected") if self.counted else (self.published, "published")
        unexpected = found.differences(expected, source) if expected else []
        if expected and found.unusable != expected.unusable:
            unexpected.append(f"rows that could not be used: {found.unusable}, {expected.unusable} {source}")
        if unexpected or not self.published:
            return [], unexpected
        known = found.differences(self.published, "published")
        return [f"{difference}: {self.because}" for difference in known], []


@dataclass(frozen=True, slots=True)
class Entry:
    """A corpus of the list. `labels` are in order, each with its meaning; see corpora.toml for the other fields."""

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
        """The entry as JSON, with whether each split is in `folder`."""
        known = {"corpus": self.name, **asdict(self)}
        known["labels"], known["guidelines"] = list(self.labels), dict(self.labels)
        known["splits"] = [{**asdict(split), "found": split.found(folder)} for split in self.splits.values()]
        del known["name"]
        return known


@cache
def entries() -> dict[str, Entry]:
    """The corpora by name."""
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
    """$BIONER_CORPORA, else ../shared/corpora. Raises InputError if there is no such folder."""
    path = Path(os.environ.get(_VARIABLE) or "../shared/corpora")
    if not path.is_dir():
        raise InputError(f"{path}: no such folder; set ${_VARIABLE} to the folder of the corpora")
    return path


@dataclass(frozen=True, slots=True)
class Corpus:
    """Annotated documents with their metadata.

    `general` maps a label to its name across corpora, `guidelines` to its meaning. `unusable` is the number of rows
    that a reader refused; `notices` name them, and every count that differs from the published one. `unexpected` are
    the differences in counts and labels that corpora.toml does not explain. `published` is None for files.
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
        """(the corpus in a model's labels, those that can be scored, the corpus's labels that cannot).

        A label matches the model's by its name, or else by its general name. Annotations with another label are left
        out. Raises InputError if no label is shared.
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
            documents=[_rename_labels(document, names) for document in self.documents],
            labels=scored,
            general={name: self.general.get(own, own) for own, name in names.items()},
            guidelines=guidelines,
        )
        return renamed, scored, tuple(label for label in self.labels if label not in names)


def _rename_labels(document: Document, names: Mapping[str, str]) -> Document:
    """The document with only the annotations of the labels in `names`, renamed."""
    return document.with_entities(replace(e, label=names[e.label]) for e in document.entities if e.label in names)


def select(name: str) -> tuple[Entry, list[Split]]:
    """Find the corpus of a name, `bc5cdr` or `bc5cdr:dev`, and the splits that it means.

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
    """Read the corpus of a name, `bc5cdr:dev`, or of a file, folder or pattern; a name takes precedence over a file.

    Raises UsageError for an unknown name, and for a corpus of several splits without a split; InputError for missing
    files.
    """
    if name.partition(":")[0] in entries():
        entry, splits = select(name)
        if len(splits) > 1:
            raise UsageError(f"{name}: which split? {', '.join(f'{name}:{split.name}' for split in splits)}")
        return _open_split(entry, splits[0])
    if name == STDIN:
        raise UsageError("a corpus is read more than once, which standard input cannot be: give a file")
    if not (Path(name).exists() or _PATH_MARKS & set(name) or Path(name).suffix):
        raise UsageError(f"{unknown_name('corpus', name, entries())}; or give a file, a folder or a pattern")
    documents, notices, digest = _read(name, None)
    labels = tuple(sorted({entity.label for document in documents for entity in document.entities}))
    return Corpus(name, documents, labels, {}, {}, "", digest, [str(n) for n in notices], _count_refused(notices), [])


def _open_split(entry: Entry, split: Split) -> Corpus:
    folder, name = corpora_dir(), f"{entry.name}:{split.name}"
    if not split.found(folder):
        raise InputError(f"{name}: {folder / split.path} is missing; it is available at {entry.url}")
    documents, notices, digest = _read(str(folder / split.path), entry.format)
    found = {e.label for d in documents for e in d.entities} - entry.merge.keys() - entry.labels.keys()
    unlisted = tuple(sorted(found))
    labels = (*entry.labels, *unlisted)
    names = {**{label: label for label in labels}, **entry.merge}
    corpus = Corpus(
        name=name,
        documents=[_rename_labels(document, names) for document in documents],
        labels=labels,
        general={label: entry.general.get(label, label) for label in labels},
        guidelines=entry.labels,
        license=entry.license,
        sha256=digest,
        notices=[],
        unusable=_count_refused(notices),
        unexpected=[],
        published=split.published,
    )
    known, unexpected = split.compare(corpus.counts)
    unexpected += [f"annotations of {label!r}, a label that it should not have" for label in unlisted]
    messages = [f"{name}: {difference}" for difference in (*known, *unexpected)]
    return replace(corpus, notices=[*map(str, notices), *messages], unexpected=unexpected)


def _count_refused(notices: Sequence[Notice]) -> int:
    return sum(not notice.remark for notice in notices)


def _read(name: str, file_format: str | None) -> tuple[list[Document], list[Notice], str]:
    """The documents of a path, the notices of their readers, and a hash of all files read."""
    notices: list[Notice] = []
    inputs = Inputs([name], notices.append, file_format, annotated=True)
    documents = list(inputs)
    files = ((label, path) for label, path in inputs.files if path)
    lines = sorted(f"{digest}  {at}\n" for label, path in files for at, digest in _hashes(label, path, file_format))
    return documents, notices, sha256("".join(lines).encode()).hexdigest()


def _hashes(name: str, path: Path, file_format: str | None) -> Iterator[tuple[str, str]]:
    """(name, SHA-256) of a file and of the annotation files read beside it."""
    found = FILE_FORMATS[file_format] if file_format else detect(path)
    for file in (path, *(found.beside.annotation_files(path) if found and found.beside else ())):
        if file.is_file():
            yield Path(name).with_name(file.name).as_posix(), sha256(file.read_bytes()).hexdigest()
