"""Do two files of one model find the same? On llama.cpp and on onnxruntime, say, or at two levels.

    python -m bioner_edge.benchmarks.studies.agreement MODEL OTHER CORPUS [--documents 100] [--near 1e-3]

Both read the same documents, in the first format of the first model's manifest or in `--format`. A document that
differs is listed with the choice at which the answers part, and the margin there: by how much, in logits, each of them
preferred what it wrote to what the other wrote. Where both margins are below `--near` the model itself hardly knew.
Strict F1 of both is printed too; the exit code is 1 where an answer differs by more than a near tie.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from bioner_edge.backends.contract import CachedSequence, Logits
from bioner_edge.backends.loading import load_backend
from bioner_edge.benchmarks.measuring import machine
from bioner_edge.benchmarks.scoring.accuracy import score
from bioner_edge.decoding.loop import Decoding
from bioner_edge.document import Document
from bioner_edge.errors import BionerError, UsageError
from bioner_edge.extract import Extractor
from bioner_edge.extraction import Extraction
from bioner_edge.io.reading import read_file
from bioner_edge.models import registry

__all__ = ["Difference", "difference", "main"]

_LIBRARIES = ("bioner-edge", "llama-cpp-python", "numpy", "onnxruntime")


@dataclass(frozen=True, slots=True)
class Difference:
    """Where two answers part: which step it is, what each wrote, and by how much each preferred that, in logits."""

    step: int
    wrote: tuple[bytes, bytes]
    margins: tuple[float, float]


def main(arguments: Sequence[str] | None = None) -> int:
    """The script: 0 where the models agree but for near ties, 1 where they do not, 2 for what cannot be compared."""
    parser = argparse.ArgumentParser(prog="python -m bioner_edge.benchmarks.studies.agreement", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("models", nargs=2, metavar="MODEL", help="a listed model's name, a GGUF file or an ONNX folder")
    parser.add_argument("corpus", type=Path, help="documents in any form that `extract` reads")
    parser.add_argument("--documents", type=int, help="the first ones only [default: all]")
    parser.add_argument("--near", type=float, default=1e-3, help="margin of a near tie, in logits [default: 1e-3]")
    parser.add_argument("--format", help="output format [default: that of the first model]")
    parser.add_argument("--threads", type=int, help="threads [default: the cores of this process]")
    asked = parser.parse_args(arguments)
    try:
        return _report(asked)
    except BionerError as error:
        print(f"agreement: {error}", file=sys.stderr)
        return 2


def _report(asked: argparse.Namespace) -> int:
    documents = list(islice(read_file(asked.corpus, lambda notice: None), asked.documents))
    print(
        "\n".join(f"- {line}" for line in machine.describe(("bioner-edge", "llama-cpp-python", "numpy", "onnxruntime")))
    )
    found: list[list[Extraction]] = []
    differ, far = 0, 0
    with _loaded(asked.models[0], asked) as one, _loaded(asked.models[1], asked) as other:
        for document in documents:
            pair = [one(document), other(document)]
            found.append(pair)
            if {e.key for e in pair[0].entities} == {e.key for e in pair[1].entities}:
                continue
            place = difference(one, other, document)
            near = place is not None and max(place.margins) < asked.near
            differ, far = differ + 1, far + (not near)
            print(f"- {document.id}: {_told(place)}{', a near tie' if near else ''}")
    print(f"- {len(documents)} documents, {differ} differ, {far} of them by more than a near tie of {asked.near:g}")
    for name, column in zip(asked.models, zip(*found, strict=True), strict=True):
        pairs = ((extraction.entities, extraction.document.entities) for extraction in column)
        print(f"- {name}: strict micro-F1 {score(pairs).micro.f1:.4f}")
    return 1 if far else 0


def _loaded(name: str, asked: argparse.Namespace) -> Extractor:
    """As `bioner_edge.load` does, but with a cache in float32 on llama.cpp too, so that the weights alone differ."""
    path, manifest = registry.find(name)
    if manifest is None or not manifest.formats:
        raise UsageError(f"{path}: no manifest that says what it was tuned for; give a converted model")
    backend = load_backend(path, threads=asked.threads, exact=True)
    format = asked.format or manifest.formats[0]
    return Extractor(backend, format=format, labels=manifest.labels, unit=manifest.unit, guidelines=manifest.guidelines)


def _told(place: Difference | None) -> str:
    if place is None:
        return "the models were not asked the same: they have other tokens"
    (first, second), (ours, theirs) = place.wrote, place.margins
    return f"at step {place.step} one wrote {first!r} by {ours:.2g}, the other {second!r} by {theirs:.2g} logits"


def difference(one: Extractor, other: Extractor, document: Document) -> Difference | None:
    """The first choice at which two models part on a document; None where that is no choice between two tokens.

    Both are asked anew. Up to there they have read the same tokens, so that the logits can be compared.
    """
    runs = [_steps(extractor, document) for extractor in (one, other)]
    pieces = one.engine.vocabulary().pieces
    for number, (ours, theirs) in enumerate(zip(*runs, strict=False)):
        if ours.ids != theirs.ids:  # other tokens of the same text
            return None
        if ours.chosen != theirs.chosen:
            a, b = ours.chosen, theirs.chosen
            if a is None or b is None:
                return None
            margins = float(ours.logits[a] - ours.logits[b]), float(theirs.logits[b] - theirs.logits[a])
            return Difference(number, (pieces[a] or b"the end", pieces[b] or b"the end"), margins)
    return None


@dataclass(slots=True)
class _Step:
    """What a model read in one step, and the token that was chosen then; -1 where nothing was asked, None where a
    mention was taken back instead."""

    ids: list[int]
    logits: Logits
    chosen: int | None = -1


def _steps(extractor: Extractor, document: Document) -> list[_Step]:
    """Every step of reading a document."""
    steps: list[_Step] = []
    evaluate, choose = extractor.backend.eval, Decoding.choose

    def evaluated(sequence: CachedSequence, ids: Sequence[int]) -> Logits:
        logits = evaluate(sequence, ids)
        steps.append(_Step(list(ids), np.array(logits)))
        return logits

    def chosen(answer: Decoding, logits: Logits, candidates: Any, allowed: Any) -> int | None:
        token = choose(answer, logits, candidates, allowed)
        steps[-1].chosen = token
        return token

    extractor.backend.eval = evaluated  # type: ignore[method-assign]
    Decoding.choose = chosen  # type: ignore[method-assign,assignment]
    try:
        extractor(document)
    finally:
        del extractor.backend.eval
        Decoding.choose = choose  # type: ignore[method-assign]
    return steps


if __name__ == "__main__":
    raise SystemExit(main())
