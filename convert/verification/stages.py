"""Run the verification stages in order and report each figure; the first failure ends the conversion."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bioner_edge.convert import domain, vocabulary
from bioner_edge.convert.about import About
from bioner_edge.convert.assemble import SourceModel, prompting
from bioner_edge.convert.target import Target
from bioner_edge.convert.verification import measure, reference, verify
from bioner_edge.convert.verification.samples import DOCUMENTS, LINES
from bioner_edge.document import Document
from bioner_edge.errors import UsageError
from bioner_edge.questions import Question
from bioner_edge.report import Figure, Report

__all__ = ["Levels", "against_source", "load", "of_adapter"]


def load(model: SourceModel, report: Report) -> Any:
    """The torch reference model, with the adapter merged by peft."""
    report.step("loading the same model with transformers" + (" and peft" if model.adapter else ""))
    return reference.load(model.base, model.merged)


def against_source(
    model: SourceModel, theirs: Any, path: Path, target: Target, about: About, lines: Sequence[str], report: Report
) -> list[Figure]:
    """Compare the F32 model in `path` with the torch model `theirs`. Raises ModelError at the first stage that
    fails."""
    figures: list[Figure] = []

    def add(figure: Figure) -> None:
        report.figure(figure)
        figures.extend(verify.judge([figure], "the converted model differs from its source"))

    if model.whole.digests:  # an ONNX exporter reads an unmerged model from its files
        add(verify.weights(theirs, model.whole, model.adapter is not None))
    with measure.open_exact(path) as ours:
        encode = vocabulary.reference(model.tokens)
        add(verify.token_ids(ours, encode, [*lines, *vocabulary.specials(model.tokens)], report.step))
        tolerance = target.tolerance(model)
        add(verify.logits(theirs, ours, lines, tolerance=tolerance, kept=model.kept))
        prompts = [question.token_ids(ours, text) for question, text, _ in _examples(model, about)[: len(DOCUMENTS)]]
        add(verify.greedy(theirs, ours, prompts, tolerance=tolerance, kept=model.kept))
    return figures


def _examples(model: SourceModel, about: About) -> list[tuple[Question, str, str]]:
    """The questions about `DOCUMENTS` in the model's formats, with answers; only the documents where it has no
    formats."""
    documents = (Document(str(number), text) for number, text in enumerate(DOCUMENTS))
    return list(domain.examples(documents, prompting(model, about)))


def of_adapter(model: SourceModel, f32: Path, path: Path, tolerance: float, report: Report) -> list[Figure]:
    """Compare the adapter in `path` on its base `f32` with the merged torch model. Raises ModelError as above."""
    theirs = load(model, report)
    with measure.open_exact(f32, path) as ours:
        figures = [verify.logits(theirs, ours, LINES, tolerance=tolerance)]
    report.figure(figures[-1])
    return figures


class Levels:
    """Compares each level's file with the F32 file, on prompts and answers of the model's formats where it has some."""

    def __init__(self, f32: Path, model: SourceModel, about: About, lines: Sequence[str], report: Report) -> None:
        self._about, self._report = about, report
        with measure.open_exact(f32) as runtime:
            if about.formats:
                fed = (question.token_ids(runtime, *rest) for question, *rest in _examples(model, about))
                self._fed = measure.cut(fed, runtime.context)
            else:
                self._fed = measure.sequences(runtime, lines)
            self._expected = [measure.logits(runtime, ids) for ids in self._fed]
        self._found: list[verify.Found] | None = None
        self._extracted, self._found = self._extraction(f32, "F32") if about.formats else ([], None)

    def __call__(self, path: Path, level: str) -> list[Figure]:
        """The figures of the file in `path`, also reported. Raises ModelError where it loses too much."""
        figures = []
        if level != "F32":
            figures += measure.distance(path, level, self._fed, self._expected)
        if self._found is not None:
            figures += self._extracted if level == "F32" else self._extraction(path, level)[0]
        for figure in figures:
            self._report.figure(figure)
        return verify.judge(figures, f"the weights lose too much at {level}: use a larger level")

    def _extraction(self, path: Path, level: str) -> tuple[list[Figure], list[verify.Found] | None]:
        about = self._about
        try:
            return verify.extraction(
                path,
                level,
                self._found,
                format=about.formats[0],
                labels=about.labels,
                unit=about.unit,
                guidelines=about.guidelines,
            )
        except UsageError as error:  # the context is too small for a prompt: a toy model
            self._report.step(f"no documents were read with {path.name}: {error}")
            return [], None
