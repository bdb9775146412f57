"""Cost of a constraint: to build it for a document, and at each token; compared with llama.cpp's sampler and
llguidance.

    python -m bioner_edge.benchmarks.studies.constraints --vocab FILE [--corpus FILE] [--documents 20] [--formats A,B]

No weights are needed. `--vocab` is any GGUF file, of which only the vocabulary is read. One of 152k tokens comes with
the source of llama-cpp-python:

    pip download --no-binary llama-cpp-python --no-deps llama-cpp-python==0.3.36
    tar xzf llama_cpp_python-0.3.36.tar.gz --strip-components=4 --wildcards '*/models/ggml-vocab-qwen2.gguf'

Every figure is measured along the gold answer of a document, in two ways. At every token: the allowed tokens are
computed before each token of the answer's canonical tokenization. At choices: the decode loop writes the answer, with a
fake model that prefers the longest token that continues it, so that forced tokens are skipped; µs are then the time
spent in the constraint between two steps of the model. `loop` is the time of the whole loop for one answer, without the
model's. A grounded constraint is built for each document and starts with an empty cache, as in extraction; a grammar is
built once and keeps its cache. llama.cpp tests either the whole vocabulary, as llama-cpp-python does, or only the next
token, as the baseline `llama-gbnf` does; llguidance computes a mask for the same grammar.

The second table is growth: abstracts joined to 1k, 10k and 100k characters, one answer. Peak memory is that of
constraint and mask by tracemalloc, as a multiple of the text's bytes; it is measured in a separate run, since tracing
is slow.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import bioner_edge
from bioner_edge import formats
from bioner_edge.benchmarks.measuring import machine
from bioner_edge.benchmarks.studies.mask_growth import growth, joined
from bioner_edge.benchmarks.studies.mask_timing import Player, rows
from bioner_edge.errors import BionerError, UsageError
from bioner_edge.io.reading import read_file

__all__ = ["main"]

_EXAMPLES = Path(bioner_edge.__file__).parent / "examples" / "abstracts.pubtator"
_SHORTEST, _LONGEST = 1300, 1700  # characters of an abstract


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script. Returns 0, or 2 where a file cannot be read or a format is unknown."""
    parser = argparse.ArgumentParser(
        prog="python -m bioner_edge.benchmarks.studies.constraints", description="Constraints."
    )
    parser.add_argument("--vocab", type=Path, required=True, help="a GGUF file; its vocabulary is read")
    parser.add_argument("--corpus", type=Path, help="documents with entities [default: BC5CDR dev, else the examples]")
    parser.add_argument("--documents", type=int, default=20, help="abstracts to measure [default: 20]")
    parser.add_argument("--formats", default=",".join(formats.FORMATS), help="comma-separated [default: all]")
    parser.add_argument(
        "--sizes", default="1000,10000,100000", help="characters, for growth [default: 1000,10000,100000]"
    )
    parser.add_argument("--json", action="store_true", help="JSON Lines in place of tables")
    asked = parser.parse_args(arguments)
    try:
        _report(asked)
    except BionerError as error:
        print(f"constraints: {error}", file=sys.stderr)
        return 2
    return 0


def _report(asked: argparse.Namespace) -> None:
    names = [name for name in asked.formats.split(",") if formats.get(name)]
    sizes = [int(size) for size in asked.sizes.split(",") if size]
    corpus = asked.corpus or _corpus()
    everything = list(read_file(corpus, lambda notice: None))
    abstracts = [d for d in everything if _SHORTEST <= len(d.text) <= _LONGEST]
    documents = (abstracts or everything)[: asked.documents]
    labels = sorted({e.label for d in documents for e in d.entities})
    if not labels:
        raise UsageError(f"{corpus}: no document has an entity; give documents with gold annotations")
    with closing(Player(asked.vocab)) as player:
        lengths = [len(d.text) for d in documents]
        ran_on = [
            *machine.describe(("bioner-edge", "llama-cpp-python", "numpy")),
            f"{asked.vocab.name}: {player.vocabulary_size} tokens",
            f"{corpus.name}: {len(documents)} documents of {min(lengths)} to {max(lengths)} characters, "
            f"labels {', '.join(labels)}",
        ]
        _print(asked.json, {"machine": ran_on}, "\n".join(f"- {line}" for line in ran_on) + f"\n{_head(_STEPS)}")
        for name in names:
            for row in rows(player, name, labels, documents):
                _print(asked.json, record := row.record(), _line(record, _STEPS))
        if sizes:
            _print(asked.json, {}, _head(_GROWTH))
        for name in names:
            for size in sizes:
                record = growth(player, name, labels, joined(everything, size))
                _print(asked.json, record, _line(record, _GROWTH))


def _corpus() -> Path:
    folder = os.environ.get("BIONER_CORPORA") or Path(bioner_edge.__file__).parents[2] / "shared" / "corpora"
    path = Path(folder) / "bc5cdr" / "dev.PubTator.txt"
    return path if path.is_file() else _EXAMPLES


def _print(as_json: bool, record: dict[str, Any], text: str) -> None:
    if not as_json:
        print(text, flush=True)
    elif record:
        print(json.dumps(record, ensure_ascii=False), flush=True)


_TIMES = {"µs": "median_us", "p99": "p99_us", "max": "max_us"}
_STEPS = [("format", "format"), ("constraint", "constraint"), ("build, ms", "build_median_ms"), ("max", "build_max_ms")]
for _part in ("tokens", "choices"):
    _STEPS += [(_part, f"{_part}.count"), *((head, f"{_part}.{key}") for head, key in _TIMES.items())]
    _STEPS += [("ids", f"{_part}.median_ids")]
_STEPS += [("loop, ms", "loop_median_ms")]
_GROWTH = [("format", "format"), ("characters", "characters"), ("tokens", "tokens.count"), ("build, ms", "build_ms")]
_GROWTH += [("walk, s", "walk_s"), *((head, f"tokens.{key}") for head, key in _TIMES.items())]
_GROWTH += [("peak memory / text", "peak_bytes_per_byte")]


def _head(columns: Sequence[tuple[str, str]]) -> str:
    return f"\n| {' | '.join(head for head, _ in columns)} |\n|{len(columns) * '---|'}"


def _line(record: dict[str, Any], columns: Sequence[tuple[str, str]]) -> str:
    """A row of a Markdown table; the first cell that a failure left empty says what happened."""
    failed, cells = record.get("failed", ""), []
    for _, column in columns:
        outer, _, inner = column.partition(".")
        value = record.get(outer, {}).get(inner, "") if inner else record.get(outer, "")
        if value == "" and failed:
            value, failed = failed, ""
        cells.append(str(value))
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    raise SystemExit(main())
