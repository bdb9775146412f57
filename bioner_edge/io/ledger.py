"""Record the outcome of each document of a run, so that an interrupted run can be resumed.

A journal lies beside the output; a document's line is written once its bytes are in the output:

    {"kind": "extract", "settings": {…}}                                              what all answers depend on
    {"input": "a.jsonl", "index": 6, "id": "7", "hash": "…", "bytes": 812, "crc": …}  done: the output's next 812 bytes
    {"input": "a.jsonl", "index": 7, "id": "8", "hash": "…", "failed": "…"}           failed, and why
    {"input": "a.jsonl", "lost": "a.jsonl:9: not JSON …"}                             text that could not be read
    {"input": "a.jsonl", "index": 5, "gone": true}                                    no longer a document of the input
    {"kind": "complete"}                                                              all inputs were read

A later line about a document replaces an earlier one. The output of a complete run is in the order of the inputs; if
that differs from the order of the lines, `order` gives the line of each part. What follows, failed documents that were
retried, comes after it until the run is complete again.

A resumed run must have the same settings and inputs: a document is identified by its position in its input, since ids
may repeat, and must have the same hash. The owner of an input with lost text may have repaired it, so that documents
are new, changed or gone: they are matched by hash (`align`), and each lost text accounts for one difference. The
journal contains no document text.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import fields
from typing import Any

from bioner_edge.document import Document
from bioner_edge.errors import InputError, UsageError
from bioner_edge.io import journal
from bioner_edge.io.entries import Entry, JournalFiles, Place, align
from bioner_edge.io.lock import open_locked

__all__ = ["Ledger", "document_hash"]

_SHORT = 300  # characters of a setting that a message shows
_ANEW = "start over with --overwrite"
_NAMES = {field.name for field in fields(Entry)}


def document_hash(document: Document) -> str:
    """A hash of everything that a document's answers and output depend on."""
    return hashlib.sha256(json.dumps(document.to_json()).encode()).hexdigest()[:16]


class Ledger:
    """The journal of a run, open and locked.

    `before` are the documents of the run being resumed, by place, `written` the parts of the output, in its order.
    `failed` are the documents that failed, `count` is the number of documents recorded.
    """

    def __init__(self, files: JournalFiles, settings: Mapping[str, Any], *, resume: bool) -> None:
        """Raises UsageError if another process holds it, its settings differ or it cannot be written, and InputError if
        it is damaged."""
        self._files = files
        finished = resume and not files.unfinished and files.finished.exists()
        self.path = files.finished if finished else files.progress
        self._settings = json.loads(json.dumps(settings))  # as they are read back
        self._order: dict[Place, int] = {}
        self._positions: Counter[str] = Counter()
        self._aligned: dict[str, list[int]] = {}
        self.known: Entry | None = None
        """The entry at the place of the last document of `look_up`, perhaps of an older text of it."""
        try:
            self._open = open_locked(self.path)
            self._stream = self._open.__enter__()
            try:
                self._begin(resume)
            except BaseException:
                if not finished and not files.unfinished:  # it is empty, and would be mistaken for a run
                    self.discard()
                self.close()
                raise
        except OSError as error:
            raise UsageError(f"{self.path}: cannot be written: {error.strerror}") from None
        self.repairable = frozenset(name for name, messages in self._lost.items() if messages)

    def _begin(self, resume: bool) -> None:
        if not resume:
            self._stream.truncate(0)
        journal.cut_broken_line(self._stream)
        self._read()
        if not self._stream.tell():
            journal.append(self._stream, {"kind": "extract", "settings": self._settings})

    def _read(self) -> None:
        """Read the existing lines."""
        self.before: dict[Place, Entry] = {}
        self.written: list[Entry] = []
        self.failed: dict[Place, Entry] = {}
        self.count = 0
        self.complete = self.was_complete = False
        self._lost: defaultdict[str, set[str]] = defaultdict(set)
        whole = 0
        try:
            for number, line in journal.lines(self.path):
                try:
                    self._take_line(number, line)
                except (IndexError, TypeError, ValueError):
                    raise InputError(f"{self.path}:{number}: not a line of an extraction's journal") from None
                whole = number
        except InputError as error:
            cut = "cut the file before this line and --resume from there, or " if whole else ""
            raise InputError(f"{error}; {cut}{_ANEW}") from None

    def _take_line(self, number: int, line: Any) -> None:
        match number == 1, line:
            case True, {"kind": "extract", "settings": dict(begun)}:
                if begun != self._settings:
                    message = f"the run was begun with other settings: {_difference(begun, self._settings)}"
                    raise UsageError(f"{self.path}: {message}; {_ANEW}")
            case False, {"kind": "complete"}:
                self.complete = self.was_complete = True
                self.written = [self.written[n] for n in line.get("order", range(len(self.written)))]
            case False, {"input": str(name), "lost": str(message)}:
                self._lost[name].add(message)
            case False, {"input": str(name), "index": int(index), "gone": True}:
                self._drop((name, index))
            case False, {"input": str(), "index": int(), "id": str(), "hash": str()} if line.keys() <= _NAMES:
                self._take(entry := Entry(**line))
                self.before[entry.place] = entry
                self.written += [] if entry.failed else [entry]
            case _:
                raise ValueError(line)

    def _take(self, entry: Entry) -> None:
        self.count += entry.place not in self.before and entry.place not in self.failed
        self.failed.pop(entry.place, None)
        if entry.failed:
            self.failed[entry.place] = entry
        self.complete = False

    def _drop(self, place: Place) -> None:
        self.count -= 1
        self.failed.pop(place, None)
        self.before.pop(place, None)
        self.complete = False

    def _append(self, line: Mapping[str, Any]) -> None:
        if self.path == self._files.finished:
            if self._files.unfinished:
                raise UsageError(f"{self._files.progress}: another process is writing to it; wait for it")
            os.replace(self.path, self._files.progress)
            self.path = self._files.progress
        journal.append(self._stream, line)

    @property
    def done(self) -> int:
        """The number of documents that did not fail."""
        return self.count - len(self.failed)

    def align(self, name: str, documents: Iterable[Document], lost: Collection[str]) -> list[Entry]:
        """Match the documents of an input that may have been repaired, and return those that are gone, for `drop`.

        `documents` are all that it holds now, `lost` the messages about its lost text, complete once `documents` is
        consumed. Raises UsageError if more has changed than a repair explains.
        """
        now = [(document.id, document_hash(document)) for document in documents]
        before = [entry for entry in self.before.values() if entry.input == name]
        self._aligned[name], changed, gone = align(before, now)
        if len(changed) > len(self._lost[name].difference(lost)):
            raise UsageError(_missing_message(changed))
        return gone

    def drop(self, entry: Entry) -> None:
        """Record that a document is gone; its output is removed when all inputs were read."""
        self._append({"input": entry.input, "index": entry.index, "gone": True})
        self._drop(entry.place)

    def look_up(self, name: str, document: Document) -> Entry | None:
        """The entry of a document in the run being resumed, or None. Raises UsageError if the document differs.

        To be called for every document, in the order of the inputs, before `add`.
        """
        position, aligned = self._positions[name], self._aligned.get(name)
        self._positions[name] += 1
        beyond = position - len(aligned) if aligned else -1  # a file that grew since it was aligned
        index = position if not aligned else aligned[position] if beyond < 0 else max(aligned) + 1 + beyond
        self._here, self._hash = (name, index), document_hash(document)
        self.known = None
        if not self.before:
            return None
        self._order[self._here] = len(self._order)
        self.known = entry = self.before.get(self._here)
        if entry and entry.hash != self._hash:
            if aligned:  # it was repaired
                return None
            message = f"{name}: document {index + 1}, {document.id}, is not the one that was read before ({entry.id})"
            raise UsageError(f"{message}; give the same inputs, or {_ANEW}")
        return entry

    def add(self, document: Document, **what: Any) -> None:
        """Record the outcome of the last document of `look_up`; see `Entry`."""
        entry = Entry(*self._here, document.id, self._hash, **what)
        self._append(entry.to_json())
        self._take(entry)

    def lose(self, name: str, message: str) -> None:
        """Record a text of an input that could not be read."""
        if message not in self._lost[name]:
            self._append({"input": name, "lost": message})
            self._lost[name].add(message)

    def sorted(self) -> list[int] | None:
        """The indexes into `reread` that put the output into the order of the inputs; None if it is in order."""
        if not self.before:
            return None
        parts = {entry.place: n for n, entry in enumerate(self.reread())}
        now = [(self._order[p], n) for p, n in parts.items() if self.before.get(p) is self.written[n]]
        order = [n for _, n in sorted(now)]
        return None if order == list(range(len(self.written))) else order

    def finish(self, order: list[int] | None = None) -> None:
        """Record that all inputs were read and that the output is in their order; see `sorted`."""
        self._append({"kind": "complete"} | ({"order": order} if order is not None else {}))
        self.complete = True

    def put_away(self) -> None:
        """Hide the journal of a run without failures. A later --resume then knows what is new, if anything."""
        if self.path != self._files.finished:
            os.replace(self.path, self._files.finished)
            self.path = self._files.finished

    def refuse_other(self, names: Collection[str]) -> None:
        """Raise UsageError if the run's inputs are not all among `names`, before anything is read."""
        if lost := [entry for entry in self.before.values() if entry.input not in names]:
            raise UsageError(_missing_message(lost))

    def refuse_missing(self) -> None:
        """Raise UsageError if the inputs lack documents that were read before."""
        if lost := [entry for place, entry in self.before.items() if place not in self._order]:
            raise UsageError(_missing_message(lost))

    def reread(self) -> list[Entry]:
        """Read all parts of the output, in its order; those of this run were not kept in memory."""
        self._read()
        return self.written

    def discard(self) -> None:
        """Remove the journal of a run that did nothing."""
        self.path.unlink()

    def keep(self, count: int) -> None:
        """Drop the lines from that of `written[count]` on: the output lacks their bytes.

        Raises UsageError for a run that was complete once: its output is in another order than the lines.
        """
        if self.was_complete:
            raise UsageError(f"{self.path}: the output was changed since it was written; {_ANEW}")
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


def _missing_message(entries: list[Entry]) -> str:
    name, index = min(entry.place for entry in entries)
    message = f"{len(entries)} documents that were read before are missing now, the first is document {index + 1}"
    return f"{message} of {name}; give the same inputs, or {_ANEW}"


def _difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    names = [name for name in dict.fromkeys((*before, *now)) if before.get(name) != now.get(name)]
    changes = (f"{name} was {_short(before.get(name))}, now {_short(now.get(name))}" for name in names)
    known = before.get("threads")  # it has a default, so the user may not know it
    again = f" (continue with --threads {known})" if "threads" in names and known else ""
    return "; ".join(changes) + again


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHORT else f"{text[:_SHORT]}…"
