"""Compute a model's importance matrix by running the merged model on in-domain text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bioner_edge.backends.vocab_only import VocabOnly
from bioner_edge.convert import architectures, domain
from bioner_edge.convert.about import About
from bioner_edge.convert.assemble import SourceModel, prompting
from bioner_edge.convert.gguf import writer
from bioner_edge.convert.gguf.imatrix import importance
from bioner_edge.errors import UsageError
from bioner_edge.models.registry import sha256
from bioner_edge.report import Report

__all__ = ["calibrate"]

_LONGEST = 2048  # tokens of one sequence: an abstract with its prompt and its answer
_MOST = 1 << 15  # tokens in all; the usual order of magnitude with llama.cpp's tool


def calibrate(
    model: SourceModel, theirs: Any, f32: Path, texts: Sequence[Path], about: About, report: Report
) -> tuple[dict[str, NDArray[np.float32]], dict[str, Any]]:
    """(the matrix by tensor, its description for the manifest), from prompts about `texts` with their annotations as
    answers.

    `theirs` is the torch model, `f32` the file whose tokenizer is used. Raises UsageError where the texts are empty.
    """
    report.step(f"importance matrix from {', '.join(text.name for text in texts)}")
    sequences = _sequences(model, f32, texts, about, report)
    if not sequences:
        raise UsageError(f"--importance {texts[0]}: contains no text")
    written = writer.names(architectures.of(model.source.config), model.source.config)
    names = {theirs: ours for ours, theirs in written.items()}
    description = {
        "texts": {text.name: sha256(text) for text in texts if text.is_file()},
        "tokens": sum(map(len, sequences)),
    }
    if model.kept is not None:  # the torch model has the untrimmed vocabulary
        sequences = [model.kept[ids].tolist() for ids in sequences]
    return importance(theirs, names, sequences, report), description


def _sequences(model: SourceModel, f32: Path, texts: Sequence[Path], about: About, report: Report) -> list[list[int]]:
    found: list[list[int]] = []
    left, cut = _MOST, 0
    longest = min(_LONGEST, architectures.positive(model.source.config, "max_position_embeddings"))
    with VocabOnly(f32) as vocabulary:
        for question, text, answer in domain.examples(domain.documents(texts, report.step), prompting(model, about)):
            ids = question.token_ids(vocabulary, text, answer)
            cut += len(ids) > min(longest, left)
            ids = ids[: min(longest, left)]
            left -= len(ids)
            found += [ids] if ids else []
            if not left:
                break
    if cut:
        report.step(
            f"{cut} of {len(found)} examples are truncated: longer than {longest} tokens, or {_MOST} tokens reached"
        )
    return found
