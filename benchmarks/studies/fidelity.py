"""How far is each level from the F32 file, on prompts and gold answers of a corpus?

    python -m bioner_edge.benchmarks.studies.fidelity NAME-F32.gguf NAME-Q8_0.gguf NAME-Q4_K_M.gguf --corpus FILE

Every file gets the same tokens: each of `--documents` documents, sentence by sentence where the model was tuned so, as
prompt and gold answer in the manifest's first format. Prints a Markdown table: size, bits per weight, mean KL
divergence from F32 in nats and share of positions with the same best token, over all positions and over those of the
answers. It tells what quantization did to the distribution; what it did to the entities, `accuracy` tells.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bioner_edge.convert import domain
from bioner_edge.convert.gguf.quantize import tensor_mix
from bioner_edge.convert.verification import measure
from bioner_edge.errors import BionerError, UsageError
from bioner_edge.io.reading import read_file
from bioner_edge.models import registry

__all__ = ["Example", "Row", "examples", "main", "rows"]


@dataclass(frozen=True, slots=True)
class Example:
    """Tokens to feed; the answer's are predicted from position `answer` on."""

    ids: list[int]
    answer: int


@dataclass(frozen=True, slots=True)
class Row:
    """One file: mean divergence in nats and agreement, each over (all positions, those of the answers)."""

    name: str
    bytes: int
    bits_per_weight: float
    divergence: tuple[float, float]
    agreement: tuple[float, float]


def examples(f32: Path, corpus: Path, documents: int) -> list[Example]:
    """The examples of the first documents. Raises UsageError for a file whose manifest has no format."""
    path, manifest = registry.find(str(f32))
    if manifest is None or not manifest.formats:
        raise UsageError(f"{path}: its manifest must name a format, to know what to ask")
    with measure.open_exact(path) as model:
        asked = domain.Prompting(
            manifest.formats[:1],
            manifest.labels,
            manifest.guidelines,
            manifest.unit,
            model.chat_template,
            model.template_tokens,
        )
        found = []
        for question, *rest in domain.examples(islice(read_file(corpus, lambda notice: None), documents), asked):
            before = len(question.token_ids(model, rest[0]))
            ids = question.token_ids(model, *rest)[: model.context]
            if before < len(ids):
                found.append(Example(ids, before - 1))
        return found


def rows(f32: Path, files: Sequence[Path], asked: Sequence[Example]) -> list[Row]:
    """A row for each file, the F32 file's own left out."""
    expected = _log_probabilities(f32, asked)
    inside = np.concatenate([np.arange(len(e.ids)) >= e.answer for e in asked])
    found = []
    for path in files:
        divergence, same = [], []
        for theirs, ours in zip(expected, _log_probabilities(path, asked), strict=True):
            divergence.append((np.exp(theirs) * (theirs - ours)).sum(axis=1))  # (positions,)
            same.append(theirs.argmax(axis=1) == ours.argmax(axis=1))
        d, s = np.concatenate(divergence), np.concatenate(same)
        found.append(
            Row(
                path.name,
                path.stat().st_size,
                tensor_mix(path)[1],
                (float(d.mean()), float(d[inside].mean())),
                (float(s.mean()), float(s[inside].mean())),
            )
        )
    return found


def _log_probabilities(path: Path, asked: Sequence[Example]) -> list[NDArray[np.float32]]:
    """Of every token after each position. Shape of one: (positions, vocabulary)"""
    with measure.open_exact(path) as model:
        return [measure.log_softmax(measure.logits(model, e.ids)).astype(np.float32) for e in asked]


def main(arguments: Sequence[str] | None = None) -> int:
    """The script. Returns 0, or 2 where a file cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m bioner_edge.benchmarks.studies.fidelity", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("f32", type=Path, help="the F32 file")
    parser.add_argument("files", type=Path, nargs="+", help="files of other levels")
    parser.add_argument("--corpus", type=Path, required=True, help="annotated documents")
    parser.add_argument("--documents", type=int, default=20, help="how many of them [default: 20]")
    given = parser.parse_args(arguments)
    try:
        asked = examples(given.f32, given.corpus, given.documents)
        print(f"{len(asked)} answers, {sum(len(e.ids) for e in asked):,} tokens\n")
        print("| file | MB | bits per weight | KL, all | same best, all | KL, answers | same best, answers |")
        print("|---|---|---|---|---|---|---|")
        for row in rows(given.f32, given.files, asked):
            print(f"| {row.name} | {row.bytes / 1e6:.1f} | {row.bits_per_weight:.2f} ", end="")
            print("".join(f"| {d:.5f} | {s:.4f} " for d, s in zip(row.divergence, row.agreement, strict=True)) + "|")
    except BionerError as error:
        print(f"fidelity: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
