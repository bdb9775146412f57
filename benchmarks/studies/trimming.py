"""What does a trimmed vocabulary keep, and what does it cost on other text?

    python -m bioner_edge.benchmarks.studies.trimming FOLDER_WITH_TOKENIZER TEXT.jsonl OTHER.jsonl [--documents 2000]

Trims the tokenizer to the first `--documents` documents of one file, tokenizes the first 300 of another with both, and
prints the number of tokens kept, the share of the other documents' running tokens that were removed, how many more
tokens they then take, and the time. Checks that the given documents keep their ids, and that every document is restored
byte by byte. `.xz` is decompressed on the fly.
"""

from __future__ import annotations

import argparse
import lzma
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import BinaryIO, cast

from bioner_edge.convert import vocabulary
from bioner_edge.convert.vocabulary.llama_vocabulary import open_vocabulary
from bioner_edge.convert.vocabulary.trim import trim_vocabulary
from bioner_edge.errors import BionerError, ModelError
from bioner_edge.io import jsonl
from bioner_edge.io.contract import Source

__all__ = ["main"]

_OTHERS = 300


def _texts(path: Path, count: int) -> Iterator[str]:
    with lzma.open(path, "rb") if path.suffix == ".xz" else path.open("rb") as stream:
        for document in islice(jsonl.read(Source(cast(BinaryIO, stream), path.name), lambda notice: None), count):
            yield document.text


def _measure(folder: Path, given: Path, other: Path, documents: int, out: Path) -> Iterator[str]:
    texts = list(_texts(given, documents))
    started = time.monotonic()
    kept = trim_vocabulary(folder, texts, out)
    seconds = time.monotonic() - started
    whole, cut, ids = vocabulary.reference(folder), vocabulary.reference(out), kept.tolist()
    if any([ids[token] for token in cut(text)] != whole(text) for text in texts):
        raise ModelError(f"{folder}: a document that was given has other ids than before")
    before = after = gone = 0
    there = frozenset(ids)
    with open_vocabulary(vocabulary.read(out, len(kept))) as model:
        for text in _texts(other, _OTHERS):
            was, now = whole(text), model.tokenize(text.encode(), special=False)
            if b"".join(model.piece(token) or b"" for token in now) != text.encode():
                raise ModelError(f"{folder}: a document does not come back byte by byte")
            before, after = before + len(was), after + len(now)
            gone += sum(token not in there for token in was)
    size = sum(map(len, texts)) / 1e6
    yield f"- {len(kept):,} tokens kept for {len(texts):,} documents ({size:.1f} million characters)"
    yield f"- {_OTHERS} other documents: {gone / before:.3%} of {before:,} running tokens are gone"
    yield f"- they take {after / before - 1:.3%} more tokens"
    yield f"- {seconds:.1f} s"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script. Returns 0, or 2 where a file cannot be used or a check fails."""
    parser = argparse.ArgumentParser(prog="python -m bioner_edge.benchmarks.studies.trimming", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("folder", type=Path, help="a model's folder, of which the tokenizer is read")
    parser.add_argument("given", type=Path, help="JSON Lines to trim to")
    parser.add_argument("other", type=Path, help="JSON Lines to try it on")
    parser.add_argument("--documents", type=int, default=2000, help="how many are given [default: 2000]")
    asked = parser.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory() as work:
            for line in _measure(asked.folder, asked.given, asked.other, asked.documents, Path(work) / "trimmed"):
                print(line)
    except (BionerError, OSError) as error:
        print(f"trimming: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
