"""Remember what became of each document of a run, so that one that was broken off goes on where it was.

Beside the output lies a journal; a document's line is written when its own bytes are in the output:

    {"kind": "extract", "settings": {…}}                                              what all answers depend on
    {"input": "a.jsonl", "index": 6, "id": "7", "hash": "…", "bytes": 812, "crc": …}  done: the output's next 812 bytes
    {"input": "a.jsonl", "index": 7, "id": "8", "hash": "…", "failed": "…"}           failed, and why
    {"kind": "complete"}                                                              all inputs were read

A later line about the same document takes the place of an earlier one. Where a run is complete, its output is in the
order of the inputs (`order` says of which line each part of it is, where that is another order than the lines'); what
follows, failed documents that were tried again, is behind it until the run is complete again.
A run that is taken up again must have the same settings and the same inputs: a document is known by its place among
those of its input, since ids may repeat, and must have the same hash. No text of a document is in it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from bioner_edge.document import Document
from bioner_edge.errors import InputError, UsageError
from bioner_edge.io import journal
from bioner_edge.io.lock import appending

__all__ = ["LEDGER", "Entry", "Ledger", "Place", "document_hash"]

LEDGER = ".progress"
"""Behind the name of a file, or the name in a folder."""

Place = tuple[str, int]
"""The input that a document is of, and its place among the documents of that, from 0."""
_SHORT = 300  # characters of a setting that a message shows


@dataclass(frozen=True, slots=True)
class Entry:
    """What became of a document. `crc` is of its `bytes` in the output; `failed` says why there are none."""

    input: str
    index: int
    id: str
    hash: str
    bytes: int = 0
    crc: int = 0
    entities: int = 0
    problems: int = 0
    failed: str = ""

    @property
    def place(self) -> Place:
        return self.input, self.index

    def to_json(self) -> dict[str, Any]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value or name in _ALWAYS}


_ALWAYS = ("input", "index", "id", "hash")


def document_hash(document: Document) -> str:
    """Of everything that an answer, or what is written of it, depends on."""
    return hashlib.sha256(json.dumps(document.to_json()).encode()).hexdigest()[:16]


class Ledger:
    """The journal of a run, open and locked.

    `before` are the documents of the run that is taken up again, by place, `written` those of them that were not
    failures, in the order of the output. `failed` are those that failed, `count` all that there is a line about.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], *, resume: bool) -> None:
        """Raises UsageError where another process has it or its settings are others, InputError where it is damaged."""
        self.path = path
        self._settings = json.loads(json.dumps(settings))  # as they come back
        self._open = appending(path)
        self._stream = self._open.__enter__()
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
        self.before: dict[Place, Entry] = {}
        self.written: list[Entry] = []
        self.failed: dict[Place, Entry] = {}
        self.count = 0
        self.complete = self.was_complete = False
        self._order: dict[Place, int] = {}
        names = {field.name for field in fields(Entry)}
        for number, line in journal.lines(self.path):
            match number == 1, line:
                case True, {"kind": "extract", "settings": dict(begun)}:
                    if begun != self._settings:
                        message = f"the run was begun otherwise: {_difference(begun, self._settings)}"
                        raise UsageError(f"{self.path}: {message}; start anew with --overwrite")
                case False, {"kind": "complete"}:
                    self.complete = self.was_complete = True
                    self.written = [self.written[n] for n in line.get("order", range(len(self.written)))]
                case False, {"input": str(), "index": int(), "id": str(), "hash": str()} if line.keys() <= names:
                    self._take(entry := Entry(**line))
                    self.before[entry.place] = entry
                    self.written += [] if entry.failed else [entry]
                case _:
                    raise InputError(f"{self.path}:{number}: not a line of an extraction; start anew with --overwrite")

    def _take(self, entry: Entry) -> None:
        self.count += entry.place not in self.failed
        self.failed.pop(entry.place, None)
        if entry.failed:
            self.failed[entry.place] = entry
        self.complete = False

    @property
    def done(self) -> int:
        """The documents that did not fail."""
        return self.count - len(self.failed)

    def seen(self, place: Place, document: Document) -> Entry | None:
        """What became of a document in the run that is taken up again. Raises UsageError where it was another one.

        To be called for every document, in the order of the inputs.
        """
        if not self.before:
            return None
        self._order[place] = len(self._order)
        entry = self.before.get(place)
        if entry and entry.hash != document_hash(document):
            message = (
                f"{place[0]}: document {place[1] + 1}, {document.id}, is not the one that was read before ({entry.id})"
            )
            raise UsageError(f"{message}; give the same inputs, or start anew with --overwrite")
        return entry

    def add(self, entry: Entry) -> None:
        """Note what became of a document."""
        journal.append(self._stream, entry.to_json())
        self._take(entry)

    def sorted(self) -> list[int] | None:
        """Which of `reread` each part of the output is, once it is in the order of the inputs; None where it is."""
        if not self.before:
            return None
        places = [self._order[entry.place] for entry in self.reread()]
        order = sorted(range(len(places)), key=places.__getitem__)
        return None if order == list(range(len(places))) else order

    def finish(self, order: list[int] | None = None) -> None:
        """Note that all inputs were read, and that the output is in their order, see `sorted`."""
        journal.append(self._stream, {"kind": "complete"} | ({"order": order} if order else {}))
        self.complete = True

    def refuse_missing(self) -> None:
        """Raises UsageError where the inputs lack documents that were read before."""
        if lost := self.before.keys() - self._order.keys():
            name, index = min(lost)
            message = (
                f"{len(lost)} documents that were read before are not there any more, document {index + 1} of {name}"
            )
            raise UsageError(f"{message} the first; give the same inputs, or start anew with --overwrite")

    def reread(self) -> list[Entry]:
        """All documents in the output, in its order; those of this run were not kept in memory."""
        order = self._order
        self._read()
        self._order = order
        return self.written

    def discard(self) -> None:
        """Remove the journal: there is nothing more to do, or nothing was done."""
        self.path.unlink()

    def keep(self, count: int) -> None:
        """Forget the lines from the one about `written[count]` on: the output does not have their bytes.

        Raises UsageError for a run that was complete once: its output has another order than the lines.
        """
        if self.was_complete:
            raise UsageError(f"{self.path}: the output was changed since it was written; start anew with --overwrite")
        lost = self.written[count].to_json()
        end = 0
        for line in self.path.read_bytes().splitlines(keepends=True):
            if json.loads(line) == lost:
                break
            end += len(line)
        self._stream.truncate(end)
        self._read()

    def close(self) -> None:
        self._open.__exit__(None, None, None)


def _difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    names = [name for name in dict.fromkeys((*before, *now)) if before.get(name) != now.get(name)]
    told = (f"{name} was {_short(before.get(name))}, now {_short(now.get(name))}" for name in names)
    known = before.get("threads")  # the one that nobody need have given
    again = f" (--threads {known} goes on)" if "threads" in names and known else ""
    return "; ".join(told) + again


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHORT else f"{text[:_SHORT]}…"
