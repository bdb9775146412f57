"""Plan a run: models × corpora × formats × constraints, each a cell, determined before anything is measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bioner_edge import formats
from bioner_edge.benchmarks.baselines import ROWS
from bioner_edge.benchmarks.results import Key
from bioner_edge.constraints import DEFAULT
from bioner_edge.corpora.named import Corpus
from bioner_edge.errors import BionerError, ModelError, UsageError, unknown_name
from bioner_edge.models import memory, models_toml, registry
from bioner_edge.models.gguf_header import check
from bioner_edge.models.manifest import Manifest, digest, size
from bioner_edge.models.onnx import folder as onnx_folder

__all__ = ["Candidate", "Task", "find_models", "left_out", "tasks"]

_OWN = "default"
_FORMATS = ("tuned", "default", "all")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model to measure; `broken` says why it cannot be."""

    name: str
    path: Path
    manifest: Manifest | None = None
    level: str = ""
    sha256: str = ""
    bytes: int = 0
    needed_bytes: int = 0
    broken: str | None = None

    @property
    def runtime(self) -> str:
        return "onnxruntime" if self.path.is_dir() else "llama.cpp"

    @property
    def constraint(self) -> str:
        """The constraint that `extract` uses for it."""
        return (self.manifest.constraint if self.manifest else "") or DEFAULT

    def to_json(self) -> dict[str, Any]:
        """The `model` line of the results."""
        known = self.manifest
        return {
            "kind": "model",
            "model": self.name,
            "path": str(self.path),
            "level": self.level,
            "runtime": self.runtime,
            "bytes": self.bytes,
            "sha256": self.sha256,
            "bits_per_weight": known.bits_per_weight if known else None,
            "formats": list(known.formats) if known else [],
            "labels": list(known.labels) if known else [],
            "needed_bytes": self.needed_bytes,
        }


@dataclass(frozen=True, slots=True)
class Task:
    """A cell to measure. `corpus` has its labels mapped to the model's, `asked` are the labels asked of the model,
    `scored` those of them that the corpus has, `unscored` those of the corpus that are not asked for. `broken` says why
    it cannot be measured."""

    key: Key
    model: Candidate
    corpus: Corpus
    asked: tuple[str, ...] = ()
    scored: tuple[str, ...] = ()
    unscored: tuple[str, ...] = ()
    guidelines: Mapping[str, str] | None = None
    tuned: bool = False
    broken: str | None = None


def find_models(names: Sequence[str]) -> list[Candidate]:
    """The models of names, files and folders; by default the bundled one.

    A model that exists but cannot be used is included, with the reason. Raises ModelError for one that does not exist.
    """
    listed = registry.listed_models()
    every: list[Candidate] = []
    for name in names or [registry.default() or ""]:
        path = Path(name)
        if name in listed:
            every.append(_model(listed[name].path))
        elif path.is_dir() and not onnx_folder.is_model(path):
            inside = models_toml.converted_models(path)
            if not inside:
                raise ModelError(f"{path}: no GGUF file and no ONNX folder in it; convert a model into it first")
            every += sorted(map(_model, inside), key=_by_bits)
        elif path.exists():
            every.append(_model(path))
        else:
            registry.find(name)  # which raises with the reason
    return _with_unique_names(list({model.path: model for model in every}.values()))


def _by_bits(model: Candidate) -> tuple[str, float]:
    """Sort key: models by name, levels of one from most to fewest bits per weight."""
    stem = model.name.removesuffix("-onnx").removesuffix(f"-{model.level}")
    return stem, -model.manifest.bits_per_weight if model.manifest else 0.0


def _model(path: Path) -> Candidate:
    name = path.name.removesuffix(".gguf")
    row = next((row for row in registry.listed_models().values() if row.path == path), None)
    try:
        checked, manifest = registry.check(path, row)
        level = manifest.level if manifest else _level(checked)
        digested = manifest.sha256 if manifest else digest(checked)
        return Candidate(name, checked, manifest, level, digested, size(checked), memory.estimate(checked))
    except ModelError as error:
        return Candidate(name, path, broken=str(error))


def _level(path: Path) -> str:
    """The level in the file name of a model without manifest, else empty."""
    check(path)
    return path.stem.rpartition("-")[2] if "-" in path.stem else ""


def _with_unique_names(found: Sequence[Candidate]) -> list[Candidate]:
    """The models, renamed so that no two have the same name."""
    often = Counter(model.name for model in found)
    return [
        replace(model, name=f"{model.name}@{model.path.parent}") if often[model.name] > 1 else model for model in found
    ]


def tasks(
    models: Sequence[Candidate],
    corpora: Sequence[Corpus],
    asked_formats: str,
    constraints: Sequence[str],
    labels: Sequence[str] | None = None,
) -> Iterator[Task]:
    """The cells in measuring order. The constraint "default" is each model's own.

    Raises UsageError for an unknown format or constraint.
    """
    if unknown := [name for name in constraints if name not in (_OWN, *ROWS)]:
        raise UsageError(unknown_name("constraint", unknown[0], [_OWN, *ROWS]))
    if asked_formats not in _FORMATS:
        for name in asked_formats.split(","):
            if name not in formats.FORMATS:
                raise UsageError(unknown_name("format", name, [*_FORMATS, *formats.FORMATS]))
    for corpus in corpora:
        for model in models:
            for form in _formats(model, asked_formats):
                for constraint in dict.fromkeys(model.constraint if name == _OWN else name for name in constraints):
                    if not (model.path.is_dir() and ROWS[constraint].llama_only):
                        yield _task(model, corpus, form, constraint, labels)


def _formats(model: Candidate, asked: str) -> list[str]:
    """The formats of a model; "" where it names none."""
    if asked == "all":
        return list(formats.FORMATS)
    if asked not in _FORMATS:
        return asked.split(",")
    known = model.manifest.formats if model.manifest else ()
    return list(known[:1] if asked == "default" else known) or [""]


def _task(model: Candidate, corpus: Corpus, form: str, constraint: str, labels: Sequence[str] | None) -> Task:
    task = Task(Key(model.name, corpus.name, form, constraint), model, corpus)
    manifest = model.manifest
    if model.broken:
        return replace(task, broken=model.broken)
    if not form:
        return replace(task, broken="it says of no format that it was tuned for it; name one with --formats")
    asked = tuple(labels or (manifest.labels if manifest else ()) or corpus.labels)
    try:
        formats.get(form).questions(asked)
        renamed, scored, unscored = corpus.for_labels(asked)
    except BionerError as error:
        return replace(task, broken=str(error))
    tuned = manifest is not None and form in manifest.formats
    # A fine-tuned model uses the guidelines of its manifest; any other gets those of the corpus.
    notes = manifest.guidelines if manifest and manifest.labels else corpus.guidelines
    guidelines = {label: notes[label] for label in asked if label in notes}
    labelled = replace(task, corpus=renamed, asked=asked, scored=scored, unscored=unscored)
    return replace(labelled, guidelines=guidelines, tuned=tuned)


def left_out(models: Sequence[Candidate], tasks: Sequence[Task], constraints: Sequence[str]) -> list[str]:
    """What was requested, or is in a corpus, and will not be measured; a line each."""
    onnx = any(model.path.is_dir() for model in models)
    llama_only = [name for name in constraints if name in ROWS and ROWS[name].llama_only]
    lines = [f"{name} is left out for ONNX models: it is llama.cpp's" for name in llama_only if onnx]
    for task in tasks:
        if task.unscored:
            lines.append(
                f"{task.key.corpus}: not scored, as {task.model.name} is not asked for it: {', '.join(task.unscored)}"
            )
    return list(dict.fromkeys(lines))
