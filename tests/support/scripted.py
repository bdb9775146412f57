"""`bioner-edge extract` whose reader needs no model: `python scripted.py ARGUMENTS`.

It finds "Naloxone", and does otherwise what a text says: "fail", "lose" (the process that reads is gone), "interrupt";
in a test, what `on` says for an id.
"""

from __future__ import annotations

import os
import signal
import sys

from bioner_edge import cli, guard
from bioner_edge.document import Document, Entity
from bioner_edge.errors import InputError
from bioner_edge.extraction import About, Extraction


class Scripted:
    """A guard without a process of its own; `read` are the ids of the documents that it has read."""

    def __init__(self, **settings: object) -> None:
        self.about = About(("Drug",), (), {"model": "m", "labels": ["Drug"], **settings})
        self.read: list[str] = []
        self.on: dict[str, str] = {}

    def __call__(self, document: Document, /) -> Extraction:
        match self.on.get(document.id, document.text):
            case "fail":
                raise InputError(f"document {document.id}: fails")
            case "lose":
                raise guard.LostError("the process that reads could not be started again: no memory")
            case "interrupt":
                os.kill(os.getpid(), signal.SIGINT)
        self.read.append(document.id)
        at = document.text.find("Naloxone")
        return Extraction(document, () if at < 0 else (Entity.at("Drug", at, at + 8),))

    def __enter__(self) -> Scripted:
        return self

    def __exit__(self, *_: object) -> None: ...


if __name__ == "__main__":
    guard.Guard = lambda opening: Scripted()  # type: ignore[assignment, misc]
    sys.argv.insert(1, "extract")
    cli.main()
