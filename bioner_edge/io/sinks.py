"""Where extractions go: standard output, or, in modules of their own, a file or a folder of pairs.

A sink is asked about each document in turn: `done` says whether a run that was broken off has dealt with it already,
else `write` or `fail` says what became of it. What a sink was told stays, whatever ends the process.
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

__all__ = ["Sink", "StandardOutput", "counts", "forget_stdout", "gone"]


class Sink(Protocol):
    @property
    def ledger(self) -> Ledger | None:
        """What is remembered of the run; None where nothing is."""

    def begin(self, inputs: Inputs) -> None:
        """Learn what was repaired of the inputs of a run that is taken up again.

        Raises UsageError where they are others.
        """

    def done(self, name: str, document: Document) -> Entry | None:
        """What became of this document of an input in the run that is taken up again; None where it is to be read.

        To be called for every document, in the order of the inputs. Raises UsageError where it was another one.
        """

    def write(self, extraction: Extraction) -> None:
        """Take what was found in the document that `done` was asked about last.

        Raises InputError where the file format cannot hold it, OSError where there is no room.
        """

    def fail(self, document: Document, reason: str) -> None:
        """There is nothing to write of that document."""

    def lose(self, name: str, message: str) -> None:
        """A text of an input could not be read."""

    def finish(self) -> None:
        """All inputs were read."""

    def close(self, keep: bool = False) -> None:
        """Let go: what was written stays, and nothing does where there was no document, but the ledger for `keep`."""


class StandardOutput:
    """Each document is out before the next one is read; nothing is remembered. Without a writer nothing is written."""

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
    """Once it cannot be written to: what is still buffered would fail again when the interpreter ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def gone(ledger: Ledger, inputs: Inputs) -> list[Entry]:
    """The documents that were read before and are not there any more, since an input with lost text was repaired.

    Raises UsageError where more is gone than that explains.
    """
    gone, names = [], {name for name, _ in inputs.files}
    ledger.refuse_other(names)
    for name in ledger.repairable & names:
        lost: set[str] = set()
        gone += ledger.align(name, inputs.again(name, lost), lost)
    return gone


def counts(extraction: Extraction) -> dict[str, int]:
    return {"entities": len(extraction.entities), "problems": len(extraction.problems)}
