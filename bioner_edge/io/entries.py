"""Entries of a journal, the journal's paths, and the alignment of documents after an input was repaired."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import count
from pathlib import Path
from typing import Any

__all__ = ["Entry", "JournalFiles", "Place", "align"]

Place = tuple[str, int]
"""A document's input, and its number there: its position from 0, unless it came with a repair of the input."""


@dataclass(frozen=True, slots=True)
class JournalFiles:
    """The paths of a run's journal: visible while something is left to do, hidden once all is done."""

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
        """Whether nothing else is in the folder: someone who removed all results wants them written again."""
        return all(path in (self.progress, self.finished) for path in self.progress.parent.iterdir())

    @property
    def unfinished(self) -> bool:
        """Whether there is an unfinished run; a journal without a complete line is of one that did not begin."""
        try:
            with self.progress.open("rb") as stream:
                return stream.readline().endswith(b"\n")
        except FileNotFoundError:
            return False
        except OSError:  # reported when it is opened
            return True


@dataclass(frozen=True, slots=True)
class Entry:
    """The outcome of a document. `crc` is that of its `bytes` in the output, `name` that of its files if it has files
    of its own; `failed` says why there is no output."""

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
    """Match each document of an input `now`, given as (id, hash), to one of its documents `before`.

    Returns (the index of each, the documents of `before` that are changed or gone, those that are gone). A document is
    the same if its hash is; otherwise it takes the place of a changed one with its id; otherwise it is new.
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
