"""Sinks for extractions: standard output here, a file and a folder in modules of their own.

For each document in turn, `done` says whether the run being resumed has dealt with it already; otherwise `write` or
`fail` takes its outcome. A sink keeps what it has taken, whatever ends the process.
"""

from __future__ import annotations

import os
import sys
from typing import Protocol

from bioner_edge.document import Document
from bioner_edge.extraction import Extraction
from bioner_edge.io.contract import Writer
from bioner_edge.io.entries import Entry
from bioner_edge.io.inputs import Inputs
from bioner_edge.io.ledger import Ledger

__all__ = ["Sink", "StandardOutput", "counts", "forget_stdout", "vanished_entries"]


class Sink(Protocol):
    @property
    def ledger(self) -> Ledger | None:
        """The record of the run; None if there is none."""

    def begin(self, inputs: Inputs) -> None:
        """Match the inputs of a resumed run, of which some may have been repaired.

        Raises UsageError if they are not the same inputs.
        """

    def done(self, name: str, document: Document) -> Entry | None:
        """The entry of this document of input `name` in the run being resumed; None if it is to be read.

        To be called for every document, in the order of the inputs. Raises UsageError if the document differs.
        """

    def write(self, extraction: Extraction) -> None:
        """Write the extraction of the last document of `done`.

        Raises InputError if the file format cannot represent it, OSError if the disk is full.
        """

    def fail(self, document: Document, reason: str) -> None:
        """Record that the last document of `done` has no extraction, and why."""

    def lose(self, name: str, message: str) -> None:
        """Record that a text of input `name` could not be read."""

    def finish(self) -> None:
        """Complete the output: all inputs were read."""

    def close(self, keep: bool = False) -> None:
        """Close the output. If no document was done, nothing is left behind, except the ledger if `keep`."""


class StandardOutput:
    """Writes each document before the next one is read, and keeps no record. Without a writer nothing is written."""

    ledger = None

    def __init__(self, writer: Writer | None) -> None:
        self._writer = writer
        self._begun = False

    def begin(self, inputs: Inputs) -> None: ...

    def done(self, name: str, document: Document) -> Entry | None:
        return None

    def write(self, extraction: Extraction) -> None:
        if writer := self._writer:
            data = writer.render(extraction)
            _put((writer.separator if self._begun else writer.header) + data)
            self._begun = True

    def fail(self, document: Document, reason: str) -> None: ...

    def lose(self, name: str, message: str) -> None: ...

    def finish(self) -> None:
        if self._writer and self._begun:
            _put(self._writer.footer)

    def close(self, keep: bool = False) -> None: ...


def _put(data: bytes) -> None:
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except OSError:
        forget_stdout()
        raise


def forget_stdout() -> None:
    """Discard standard output after it failed: buffered data would fail again when the interpreter ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def vanished_entries(ledger: Ledger, inputs: Inputs) -> list[Entry]:
    """Entries of documents that disappeared when an input with lost text was repaired.

    Raises UsageError if more is missing than repairs explain.
    """
    vanished, names = [], {name for name, _ in inputs.files}
    ledger.refuse_other(names)
    for name in ledger.repairable & names:
        lost: set[str] = set()
        vanished += ledger.align(name, inputs.again(name, lost), lost)
    return vanished


def counts(extraction: Extraction) -> dict[str, int]:
    return {"entities": len(extraction.entities), "problems": len(extraction.problems)}
