"""The result of an extraction and what it depends on; without numpy or a runtime, which only the reader needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bioner_edge.document import Document, Entity, Span
from bioner_edge.errors import ModelError
from bioner_edge.models.manifest import sha256

if TYPE_CHECKING:
    from bioner_edge.formats.contract import Problem

__all__ = ["About", "Extraction", "FileState"]


@dataclass(frozen=True, slots=True)
class Extraction:
    """The entities found in one document.

    `problems` are those of the answers, each with the chunk [start, end) of the text that it is about. Under the
    grounded constraint there is one kind, `cut`: the chunk's budget ran out and the answer was closed the shortest
    way, so that it parses and is grounded, but lacks what the model had not reached. `broken` counts the answers that
    do not parse (`syntax`) or depart from the text (`ungrounded`), `salvaged` the entities found in them, `answers` all
    answers. The other numbers are sums over the answers; see `Answer`.
    """

    document: Document
    entities: tuple[Entity, ...]
    problems: tuple[tuple[Span, Problem], ...] = ()
    answers: int = 0
    calls: int = 0
    fed: int = 0
    prompt: int = 0
    tokens: int = 0
    chosen: int = 0
    broken: int = 0
    salvaged: int = 0

    def to_document(self) -> Document:
        """The document with the entities found in place of its gold."""
        return self.document.with_entities(self.entities)

    def to_json(self) -> dict[str, Any]:
        """The document with the entities found, and `problems` if there are any; never its gold."""
        record = self.to_document().to_json()
        if self.problems:
            record["problems"] = [
                {"kind": p.kind, "message": p.message, "start": chunk.start, "end": chunk.end}
                for chunk, p in self.problems
            ]
        return record


@dataclass(frozen=True, slots=True)
class FileState:
    """A file's size, time and inode: whether it was changed or replaced can be seen without reading it."""

    path: Path
    bytes: int
    mtime_ns: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> FileState:
        """The state of a file. Raises ModelError if it cannot be read."""
        try:
            found = path.stat()
        except OSError as error:
            raise ModelError(f"{path}: cannot be read: {error.strerror}") from None
        return cls(path, found.st_size, found.st_mtime_ns, found.st_ino)


@dataclass(frozen=True, slots=True)
class About:
    """What the command line needs to know about an extractor in another process.

    `fingerprint` is what its answers depend on: extractors with equal ones read a document alike on one processor.
    Another processor's kernels round differently, and near ties may be decided differently. The processor is left out
    because a user cannot restore it: a run that has to move would be lost. What can be restored is included, even if it
    only decides near ties, such as the number of threads and the runtime's version.

    A file whose hash is not known yet is a `FileState` in it: hashing a large model takes as long as loading it, and
    only a resumable run needs it; see `hash_files`.
    """

    labels: tuple[str, ...]
    warnings: tuple[str, ...]
    fingerprint: Mapping[str, Any]

    def hash_files(self) -> dict[str, Any]:
        """The fingerprint with the SHA-256 of each file. Raises ModelError if one was changed since it was loaded."""
        return {n: _hash(v) if isinstance(v, FileState) else v for n, v in self.fingerprint.items()}


def _hash(state: FileState) -> str:
    found = sha256(state.path)
    if FileState.of(state.path) != state:
        raise ModelError(f"{state.path}: changed while it was being loaded; start again")
    return found
