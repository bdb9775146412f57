"""Remember what became of each document of a run, so that one that was broken off goes on where it was.

Beside the output lies a journal; a document's line is written when its own bytes are in the output:

    {"kind": "extract", "settings": {…}}                                     what all answers depend on
    {"position": 6, "id": "7", "hash": "…", "bytes": 812, "crc": 40…, …}     done: the next 812 bytes of the output
    {"position": 7, "id": "8", "hash": "…", "failed": "document 8: …"}       failed, and why
    {"kind": "complete"}                                                     all inputs were read

A later line about the same position takes the place of an earlier one. Where a run is complete, its output is in the
order of the inputs; what follows (failed documents that were tried again) is behind it until the run is complete again.
A run that is taken up again must have the same settings and the same inputs: position and hash are compared, since ids
may repeat. No text of a document is in it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO

from . import journal
from .errors import InputError, UsageError
from .lock import appending
from .span import Document

__all__ = ["LEDGER", "Entry", "Ledger", "document_hash"]

LEDGER = ".progress"
"""Behind the name of a file, or the name in a folder."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What became of a document. `crc` is of its `bytes` in the output; `failed` says why there are none."""

    position: int
    id: str
    hash: str
    bytes: int = 0
    crc: int = 0
    entities: int = 0
    problems: int = 0
    failed: str = ""

    def to_json(self) -> dict[str, Any]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value or name == "position"}


def document_hash(document: Document) -> str:
    """Of everything that an answer, or what is written of it, depends on."""
    return hashlib.sha256(json.dumps(document.to_json()).encode()).hexdigest()[:16]


class Ledger:
    """The journal of a run, open and locked.

    `before` are the documents of the run that is taken up again, by position, `written` those of them that were not
    failures, in the order of the output. `failed` are those that failed, `count` all that there is a line about.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], *, resume: bool) -> None:
        """Raises UsageError where another process has it or its settings are others, InputError where it is damaged."""
        self.path = path
        self._settings = json.loads(json.dumps(settings))  # as they come back
        self._open = appending(path)
        self._stream: BinaryIO = self._open.__enter__()
        try:
            if not resume:
                self._stream.truncate(0)
            journal.cut_broken_line(self._stream)
            self._read()
            if not self._stream.tell():
                journal.append(self._stream, {"kind": "extract", "settings": self._settings})
        except BaseException:
            self.close()
            raise

    def _read(self) -> None:
        """Take in the lines that are there."""
        self.before: dict[int, Entry] = {}
        self.written: list[Entry] = []
        self.failed: dict[int, Entry] = {}
        self.count = 0
        self.complete = False
        names = {field.name for field in fields(Entry)}
        for number, line in journal.lines(self.path):
            match line:
                case {"kind": "extract", "settings": dict(begun)} if number == 1:
                    if begun != self._settings:
                        told = f"the run was begun otherwise: {_difference(begun, self._settings)}"
                        raise UsageError(f"{self.path}: {told}; start anew with --overwrite")
                case {"kind": "complete"} if number > 1:
                    self.complete = True
                    self.written.sort(key=lambda entry: entry.position)
                case {"position": int(), "id": str(), "hash": str()} if number > 1 and line.keys() <= names:
                    self._take(entry := Entry(**line))
                    self.before[entry.position] = entry
                    self.written += [] if entry.failed else [entry]
                case _:
                    raise InputError(f"{self.path}:{number}: not a line of an extraction; start anew with --overwrite")

    def _take(self, entry: Entry) -> None:
        self.count += entry.position not in self.failed
        self.failed.pop(entry.position, None)
        if entry.failed:
            self.failed[entry.position] = entry
        self.complete = False

    @property
    def done(self) -> int:
        """The documents that did not fail."""
        return self.count - len(self.failed)

    def seen(self, position: int, document: Document) -> Entry | None:
        """What became of a document in the run that is taken up again. Raises UsageError where it was another one."""
        entry = self.before.get(position)
        if entry and entry.hash != document_hash(document):
            told = f"document {position + 1} of the inputs, {document.id}, is not the one that was read before"
            raise UsageError(f"{told} ({entry.id}); give the same inputs, or start anew with --overwrite")
        return entry

    def add(self, entry: Entry) -> None:
        """Note what became of a document."""
        journal.append(self._stream, entry.to_json())
        self._take(entry)

    def finish(self) -> None:
        """Note that all inputs were read, and that the output is in their order."""
        journal.append(self._stream, {"kind": "complete"})
        self.complete = True

    def reread(self) -> list[Entry]:
        """All documents in the output, in its order; those of this run were not kept in memory."""
        self._read()
        return self.written

    def discard(self) -> None:
        """Remove the journal: there is nothing more to do, or nothing was done."""
        self.path.unlink()

    def keep(self, count: int) -> None:
        """Forget the lines from the one about `written[count]` on: the output does not have their bytes."""
        lost = self.written[count].to_json()
        end = 0
        self._stream.seek(0)
        for line in self._stream:
            if json.loads(line) == lost:
                break
            end += len(line)
        self._stream.truncate(end)
        self._read()

    def close(self) -> None:
        self._open.__exit__(None, None, None)


def _difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    names = [name for name in dict.fromkeys((*before, *now)) if before.get(name) != now.get(name)]
    return "; ".join(f"{name} was {_short(before.get(name))}, now {_short(now.get(name))}" for name in names)


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:12]}…"
