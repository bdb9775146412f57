"""Write a run into a folder, with a set of files for each document."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bioner_edge.document import Document
from bioner_edge.errors import UsageError
from bioner_edge.extraction import Extraction
from bioner_edge.io.contract import FolderWriter
from bioner_edge.io.entries import Entry, JournalFiles
from bioner_edge.io.folder import Folder
from bioner_edge.io.inputs import Inputs
from bioner_edge.io.ledger import Ledger
from bioner_edge.io.sinks import counts, vanished_entries

__all__ = ["FolderSink"]


class FolderSink:
    """A folder with a set of files for each document, put in place when the document is done; its ledger is inside.

    The ledger keeps the names of the files, including those of failures: a document keeps its name whatever happens to
    others with the same id.
    """

    def __init__(
        self, path: Path, writer: FolderWriter, settings: Mapping[str, Any], *, resume: bool, retry: bool
    ) -> None:
        self._writer, self._retry, self._lost = writer, retry, False
        self._folder = folder = Folder(path, writer.suffixes)
        try:
            files = JournalFiles.inside(path)
            self.ledger = Ledger(files, settings, resume=resume and (files.unfinished or not files.alone))
        except BaseException:
            folder.close()
            raise
        for entry in self.ledger.before.values():
            folder.take(entry.name)
        self._name = ""

    def begin(self, inputs: Inputs) -> None:
        for entry in vanished_entries(self.ledger, inputs):
            self._folder.remove(entry.name)
            self.ledger.drop(entry)

    def done(self, name: str, document: Document) -> Entry | None:
        entry = self.ledger.look_up(name, document)
        known = self.ledger.known
        self._name = known.name if known else self._folder.name(document)
        if entry is None or (entry.failed and self._retry):
            return None
        if not (entry.failed or self._folder.has(entry.name)):
            message = f"the files of document {document.id} are missing, but {self.ledger.path.name} lists them"
            raise UsageError(f"{self._folder.path}: {message}; start over with --overwrite")
        return entry

    def write(self, extraction: Extraction) -> None:
        self._folder.write(self._name, self._writer.render(extraction))
        self.ledger.add(extraction.document, **counts(extraction), name=self._name)

    def fail(self, document: Document, reason: str) -> None:
        if self.ledger.known and not self.ledger.known.failed:  # the files of its text before the repair
            self._folder.remove(self._name)
        self.ledger.add(document, name=self._name, failed=reason)

    def lose(self, name: str, message: str) -> None:
        self._lost = True
        self.ledger.lose(name, message)

    def finish(self) -> None:
        self.ledger.refuse_missing()
        if not self.ledger.complete:
            self.ledger.finish()
        if not (self.ledger.failed or self._lost):
            self.ledger.put_away()

    def close(self, keep: bool = False) -> None:
        if not (self.ledger.done or keep):
            self.ledger.discard()
        self.ledger.close()
        self._folder.close()
