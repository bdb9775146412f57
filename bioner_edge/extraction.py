"""What was found in a document, and by what; without numpy or a runtime, which only the process that reads needs."""

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
    """What was found in one document.

    `problems` are what is wrong with the answers, each with the chunk [start, end) of the text that it is about. Under
    the grounded constraint there is one kind, `cut`: the budget of the chunk ran out, and the answer was closed by the
    shortest way, so that it parses and is grounded, but says nothing about what the model had not come to. `broken`
    counts the answers that do not parse (`syntax`) or depart from the text (`ungrounded`), `salvaged` the entities that
    come from these. The other numbers are sums over the answers, of which there are `answers`; see `Answer`.
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

    def answered(self) -> Document:
        """The document with what was found in it, and nothing of what came with it."""
        return self.document.with_entities(self.entities)

    def to_json(self) -> dict[str, Any]:
        """The document with the entities found, and `problems` where there were any; never its own annotations."""
        record = self.answered().to_json()
        if self.problems:
            record["problems"] = [
                {"kind": p.kind, "message": p.message, "start": chunk.start, "end": chunk.end}
                for chunk, p in self.problems
            ]
        return record


@dataclass(frozen=True, slots=True)
class FileState:
    """A file as it was at a moment: it takes no reading to see that it is another now, or was changed."""

    path: Path
    bytes: int
    mtime_ns: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> FileState:
        """Raises ModelError where there is none."""
        try:
            found = path.stat()
        except OSError as error:
            raise ModelError(f"{path}: cannot be read: {error.strerror}") from None
        return cls(path, found.st_size, found.st_mtime_ns, found.st_ino)


@dataclass(frozen=True, slots=True)
class About:
    """What a command line wants to know of an extractor that lives in another process.

    `fingerprint` is what its answers depend on: two with the same one read a document alike, on one processor. Of
    another processor the kernels round otherwise, and a near tie may fall the other way. That is left out, because
    nobody could set it back: a run that has to move would be lost. What can be set back is in it, also where it only
    decides near ties, as the number of threads and the version of the runtime.

    Files whose hash is not known yet stand in it as a `FileState`: to hash a large model takes as long as to load it,
    and only a run that is remembered needs it; see `hashed`.
    """

    labels: tuple[str, ...]
    warnings: tuple[str, ...]
    fingerprint: Mapping[str, Any]

    def hashed(self) -> dict[str, Any]:
        """The fingerprint with the SHA-256 of each file. Raises ModelError for one that was changed since."""
        return {n: _hash(v) if isinstance(v, FileState) else v for n, v in self.fingerprint.items()}


def _hash(state: FileState) -> str:
    found = sha256(state.path)
    if FileState.of(state.path) != state:
        raise ModelError(f"{state.path}: was changed while it was loaded; start again")
    return found
