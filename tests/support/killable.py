"""A run over a file that may be killed at any moment: `python killable.py IN OUT FILE_TYPE [resume|retry]`.

The reader needs no model: a word in capitals is an entity. A document whose id ends with 3 fails, unless it is retried.
"""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path

from contributing import load  # type: ignore[import-not-found]

from bioner_edge.document import Document, Entity
from bioner_edge.errors import InputError
from bioner_edge.extraction import Extraction
from bioner_edge.io.inputs import Inputs
from bioner_edge.io.output import Output
from bioner_edge.io.registry import FILE_FORMATS
from bioner_edge.run import run


def main(source: str, out: str, file_format: str, how: str = "") -> int:
    retry = how == "retry"
    FILE_FORMATS["mentions"] = load()  # header, separators and footer

    def reader(document: Document, /) -> Extraction:
        time.sleep(0.0005)
        if document.id.endswith("3") and not retry:
            raise InputError(f"document {document.id}: fails")
        entities = tuple(Entity.at("Gene", m.start(), m.end()) for m in re.finditer(r"\b[A-Z]+\b", document.text))
        return Extraction(document, entities)

    output = Output.from_options(
        Path(out),
        file_format,
        overwrite=False,
        with_gold=False,
        shown=False,
        resume=how == "resume",
        retry_failed=retry,
    )
    sink = output.open({"model": "m"})
    try:
        outcome = run(reader, Inputs([source], print), sink, out=out, complain=lambda told: None)
    finally:
        sink.close()
    print(outcome.stopped or "", file=sys.stderr)
    return outcome.exit_code


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
