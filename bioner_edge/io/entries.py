"""What a journal says of a document, where journals lie, and which document is which once an input was repaired."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import count
from pathlib import Path
from typing import Any

__all__ = ["Entry", "JournalFiles", "Place", "align"]

Place = tuple[str, int]
"""The input that a document is of, and a number that tells it from the others of that: its place, from 0, but for
documents that came when the input was repaired."""


@dataclass(frozen=True, slots=True)
class JournalFiles:
    """Where the journal of a run lies: in sight while there is something to do, out of it once all was done."""

    progress: Path
    finished: Path

    @classmethod
    def beside(cls, file: Path) -> JournalFiles:
        return cls(file.with_name(f"{file.name}.progress"), file.with_name(f".{file.name}.finished"))

    @classmethod
    def inside(cls, folder: Path) -> JournalFiles:
        return cls(folder / ".progress", folder / ".finished")

    @property
    def alone(self) -> bool:
        """Whether nothing else lies in the folder: who removed all that was written wants it anew."""
        return all(path in (self.progress, self.finished) for path in self.progress.parent.iterdir())

    @property
    def unfinished(self) -> bool:
        """Whether there is a run that is not finished; a journal without a whole line is of one that did not begin."""
        try:
            with self.progress.open("rb") as stream:
                return stream.readline().endswith(b"\n")
        except FileNotFoundError:
            return False
        except OSError:  # said when it is opened
            return True


@dataclass(frozen=True, slots=True)
class Entry:
    """What became of a document. `crc` is of its `bytes` in the output, `name` that of its files where it has some of
    its own; `failed` says why there are none."""

    input: str
    index: int
    id: str
    hash: str
    bytes: int = 0
    crc: int = 0
    name: str = ""
    entities: int = 0
    problems: int = 0
    failed: str = ""

    @property
    def place(self) -> Place:
        return self.input, self.index

    def to_json(self) -> dict[str, Any]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value or name in ("input", "index", "id", "hash")}


def align(before: Sequence[Entry], now: Sequence[tuple[str, str]]) -> tuple[list[int], list[Entry], list[Entry]]:
    """Which of the documents of an input `before` each of `now`, (id, hash), is.

    (the index of each, the documents before whose like is not there now, those of them that are gone). A document is
    the same where its hash is; else it takes the place of one of its id that is not there any more; else it is new.
    """
    same: defaultdict[str, deque[Entry]] = defaultdict(deque)
    for entry in sorted(before, key=lambda entry: entry.index):
        same[entry.hash].append(entry)
    found = [same[hash].popleft() if same[hash] else None for _, hash in now]
    changed = sorted((entry for entries in same.values() for entry in entries), key=lambda entry: entry.index)
    other: defaultdict[str, deque[Entry]] = defaultdict(deque)
    for entry in changed:
        other[entry.id].append(entry)
    new = count(1 + max((entry.index for entry in before), default=-1))
    indexes = []
    for (identifier, _), same_one in zip(now, found, strict=True):
        one = same_one or (other[identifier].popleft() if other[identifier] else None)
        indexes.append(one.index if one else next(new))
    return indexes, changed, sorted((e for entries in other.values() for e in entries), key=lambda entry: entry.index)
