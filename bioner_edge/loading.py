"""Load a model by name or path as an extractor, with the format and labels of its manifest by default."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bioner_edge import __version__, formats
from bioner_edge.backends.loading import load_backend
from bioner_edge.constraints import CONSTRAINTS, DEFAULT, Constraint, find_constraint
from bioner_edge.errors import ModelError, UsageError
from bioner_edge.extract import Extractor
from bioner_edge.extraction import About, FileState
from bioner_edge.models import memory, registry
from bioner_edge.models.manifest import Manifest

__all__ = ["load", "open_reader"]


def load(
    model: str | Path | None = None,
    *,
    format: str | None = None,
    labels: Sequence[str] | None = None,
    constraint: str | Constraint | None = None,
    guidelines: Mapping[str, str] | None = None,
    unit: str | None = None,
    min_score: float = 0.0,
    threads: int | None = None,
    adapter: str | Path | None = None,
    force: bool = False,
) -> Extractor:
    """Load a model by name or path as an extractor, with the first format and the labels of its manifest by default.

    Without `model` the bundled one is loaded or, if that was not tuned for `format`, a bundled one that was.
    `constraint` and `unit` default to the manifest's, else to "grounded" and "document". `adapter` is the path of a
    GGUF LoRA file that was tuned on the model; the manifest beside it then replaces the model's. `force` loads a model
    even if it seems larger than the free memory.

    Warns about a format or label that the model was not tuned for. Raises UsageError for an unknown name and ModelError
    for a file that cannot be trusted or loaded.
    """
    source = _Source.find(model, adapter, format)
    choice = source.choose(format, labels)
    settings = _Settings(*choice, source.constraint(constraint), guidelines or {}, unit, min_score)
    return _extractor(source, settings, threads=threads, force=force)


@dataclass(frozen=True, slots=True)
class _Settings:
    """The settings of an extractor; a `unit` of None is the manifest's."""

    format: str
    labels: Sequence[str]
    constraint: Constraint
    guidelines: Mapping[str, str]
    unit: str | None
    min_score: float


def _extractor(source: _Source, settings: _Settings, *, threads: int | None, force: bool) -> Extractor:
    if settings.constraint.llama_only and source.model.is_dir():
        raise UsageError(f"{source.model}: {settings.constraint.name} needs llama.cpp; use gbnf, or a GGUF model")
    if isinstance(settings.labels, str):
        raise UsageError(f"labels must be a list of names, not the string {settings.labels!r}")
    formats.get(settings.format)
    for message in source.mismatches(settings.format, settings.labels, settings.guidelines):
        warnings.warn(message, stacklevel=3)
    memory.refuse_larger(source.model, force)
    manifest = source.manifest
    backend = load_backend(source.model, threads=threads, adapter=source.adapter)
    try:
        return Extractor(
            backend,
            format=settings.format,
            labels=settings.labels,
            constraint=settings.constraint,
            guidelines=settings.guidelines or (manifest.guidelines if manifest else None),
            unit=settings.unit or (manifest.unit if manifest else "document"),
            min_score=settings.min_score,
        )
    except BaseException:
        backend.close()
        raise


@dataclass(frozen=True, slots=True)
class _Source:
    """A model and its adapter, if any, each with its manifest."""

    model: Path
    model_manifest: Manifest | None
    adapter: Path | None = None
    adapter_manifest: Manifest | None = None

    @classmethod
    def find(cls, model: str | Path | None, adapter: str | Path | None, format: str | None) -> _Source:
        path, manifest = registry.find(str(model) if model is not None else None, format)
        if adapter is None:
            return cls(path, manifest)
        file, adapter_manifest = registry.check(Path(adapter))
        registry.refuse_other_base(file, adapter_manifest, path, manifest)
        return cls(path, manifest, file, adapter_manifest)

    @property
    def manifest(self) -> Manifest | None:
        """The manifest of what was tuned: the adapter's if there is one, else the model's."""
        return self.adapter_manifest if self.adapter else self.model_manifest

    @property
    def tuned(self) -> Path:
        """The file that was tuned for formats and labels."""
        return self.adapter or self.model

    def choose(self, format: str | None, labels: Sequence[str] | None) -> tuple[str, Sequence[str]]:
        """The format and labels, from the manifest unless given. Raises UsageError if the manifest has none."""
        manifest = self.manifest
        if not (manifest and manifest.formats) and not (format and labels):
            message = "its manifest names no format" if manifest else "no manifest beside it"
            raise UsageError(f"{self.tuned}: {message}, so --format and --labels must be given")
        return format or (manifest.formats[0] if manifest else ""), labels or (manifest.labels if manifest else ())

    def constraint(self, given: str | Constraint | None) -> Constraint:
        """The given constraint, else the manifest's, else the default.

        Raises UsageError for an unknown name, ModelError for one in the manifest.
        """
        own = self.manifest.constraint if self.manifest else ""
        if own and not given and own not in CONSTRAINTS:
            message = f"{self.tuned}: its manifest names the constraint {own!r}, which this version does not know"
            raise ModelError(f"{message}; choose one with --constraint: {', '.join(CONSTRAINTS)}")
        return find_constraint(given or own or DEFAULT)

    def mismatches(self, format: str, labels: Sequence[str], guidelines: Mapping[str, str]) -> Iterator[str]:
        """Warnings about a format and labels that the model was not tuned for, and about guidelines without a label."""
        manifest, name = self.manifest, self.tuned.name
        if manifest and manifest.formats:
            if format not in manifest.formats:
                yield f"{name} was not tuned for the format {format}; it knows {', '.join(manifest.formats)}"
            if new := [label for label in labels if label not in manifest.labels]:
                known_labels = ", ".join(manifest.labels)
                yield f"{name} was not tuned for the labels {', '.join(new)}; it knows {known_labels}"
        for label in sorted(guidelines.keys() - labels):
            yield f"the guideline for {label!r} is not used: it is not one of the labels {', '.join(labels)}"


# --- For a reader in another process


def open_reader(
    model: str | None,
    adapter: Path | None,
    format: str | None,
    labels: Sequence[str] | None,
    constraint: str | None,
    guidelines: Mapping[str, str] | None,
    *,
    min_score: float = 0.0,
    threads: int | None = None,
    force: bool = False,
) -> tuple[Extractor, About]:
    """Load an extractor as `load` does, and describe it; see `guard.Opening`."""
    source = _Source.find(model, adapter, format)
    chosen_format, chosen_labels = source.choose(format, labels)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", UserWarning)  # ours; those of libraries keep their filters
        row = source.constraint(constraint)
        settings = _Settings(chosen_format, chosen_labels, row, guidelines or {}, None, min_score)
        extractor = _extractor(source, settings, threads=threads, force=force)
    fingerprint = {
        "version": __version__,
        "model": _identity(source.model, source.model_manifest),
        "adapter": _identity(source.adapter, source.adapter_manifest) if source.adapter else None,
        "format": chosen_format,
        "labels": list(chosen_labels),
        "constraint": row.name,
        "prompt": hashlib.sha256(json.dumps(extractor.prompts).encode()).hexdigest(),
        "unit": extractor.unit,
        "min_score": extractor.min_score,
        "runtime": extractor.backend.runtime,
        "threads": extractor.backend.threads,
    }
    return extractor, About(tuple(chosen_labels), tuple(str(w.message) for w in warned), fingerprint)


def _identity(path: Path, manifest: Manifest | None) -> str | FileState:
    """The SHA-256 of a model from its checked manifest; without one, the file's state, since it was not hashed yet."""
    return manifest.sha256 if manifest else FileState.of(path)
