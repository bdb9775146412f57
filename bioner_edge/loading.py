"""Load a model as an extractor: by name or path, for the format and the labels that its manifest names."""

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
    """An extractor for a model by name or path, for the first format and the labels of its manifest.

    Without a model it is the bundled one, or, where that was not tuned for `format`, a bundled one that was.
    `constraint` and `unit` are the manifest's unless given, "grounded" and "document" where it names none.
    `adapter` is the path of a GGUF LoRA file that was tuned on the model: what it was tuned for stands in the manifest
    beside it, and the model's own counts no more. `force` loads a model that seems larger than the memory that is free.

    Warns where a format or label is asked for that the model was not tuned for. Raises UsageError for a name that is
    not known and ModelError for a file that cannot be trusted or loaded.
    """
    source = _Source.find(model, adapter, format)
    asked = source.chosen(format, labels)
    settings = _Settings(*asked, source.constraint(constraint), guidelines or {}, unit, min_score)
    return _extractor(source, settings, threads=threads, force=force)


@dataclass(frozen=True, slots=True)
class _Settings:
    """What an extractor is asked for; a `unit` of None is the manifest's."""

    format: str
    labels: Sequence[str]
    constraint: Constraint
    guidelines: Mapping[str, str]
    unit: str | None
    min_score: float


def _extractor(source: _Source, asked: _Settings, *, threads: int | None, force: bool) -> Extractor:
    if asked.constraint.llama_only and source.model.is_dir():
        raise UsageError(f"{source.model}: {asked.constraint.name} needs llama.cpp; take gbnf, or a GGUF model")
    if isinstance(asked.labels, str):
        raise UsageError(f"labels must be a list of names, not the string {asked.labels!r}")
    formats.get(asked.format)
    for message in source.unusual(asked.format, asked.labels, asked.guidelines):
        warnings.warn(message, stacklevel=3)
    memory.refuse_larger(source.model, force)
    manifest = source.manifest
    backend = load_backend(source.model, threads=threads, adapter=source.adapter)
    try:
        return Extractor(
            backend,
            format=asked.format,
            labels=asked.labels,
            constraint=asked.constraint,
            guidelines=asked.guidelines or (manifest.guidelines if manifest else None),
            unit=asked.unit or (manifest.unit if manifest else "document"),
            min_score=asked.min_score,
        )
    except BaseException:
        backend.close()
        raise


@dataclass(frozen=True, slots=True)
class _Source:
    """The files of a model, each with its manifest."""

    model: Path
    of_model: Manifest | None
    adapter: Path | None = None
    of_adapter: Manifest | None = None

    @classmethod
    def find(cls, model: str | Path | None, adapter: str | Path | None, format: str | None) -> _Source:
        path, manifest = registry.find(str(model) if model is not None else None, format)
        if adapter is None:
            return cls(path, manifest)
        file, its = registry.check(Path(adapter))
        registry.refuse_other_base(file, its, path, manifest)
        return cls(path, manifest, file, its)

    @property
    def manifest(self) -> Manifest | None:
        """That of what was tuned: the adapter's, where there is one."""
        return self.of_adapter if self.adapter else self.of_model

    @property
    def tuned(self) -> Path:
        """The file that knows formats and labels."""
        return self.adapter or self.model

    def chosen(self, format: str | None, labels: Sequence[str] | None) -> tuple[str, Sequence[str]]:
        """The format and the labels, of the manifest where they are not given. Raises UsageError where nothing says."""
        manifest = self.manifest
        if not (manifest and manifest.formats) and not (format and labels):
            message = "its manifest knows no format" if manifest else "no manifest beside it"
            raise UsageError(f"{self.tuned}: {message}, so --format and --labels must be given")
        return format or (manifest.formats[0] if manifest else ""), labels or (manifest.labels if manifest else ())

    def constraint(self, given: str | Constraint | None) -> Constraint:
        """The constraint that is asked for, else the manifest's, else the default one.

        Raises UsageError for an unknown name, ModelError for one in the manifest.
        """
        own = self.manifest.constraint if self.manifest else ""
        if own and not given and own not in CONSTRAINTS:
            message = f"{self.tuned}: its manifest names the constraint {own!r}, which this version does not know"
            raise ModelError(f"{message}; choose one with --constraint: {', '.join(CONSTRAINTS)}")
        return find_constraint(given or own or DEFAULT)

    def unusual(self, format: str, labels: Sequence[str], guidelines: Mapping[str, str]) -> Iterator[str]:
        """What is asked of the model that it was not tuned for, and guidelines that no label has."""
        manifest, name = self.manifest, self.tuned.name
        if manifest and manifest.formats:
            if format not in manifest.formats:
                yield f"{name} was not tuned for the format {format}; it knows {', '.join(manifest.formats)}"
            if new := [label for label in labels if label not in manifest.labels]:
                known_labels = ", ".join(manifest.labels)
                yield f"{name} was not tuned for the labels {', '.join(new)}; it knows {known_labels}"
        for label in sorted(guidelines.keys() - labels):
            yield f"the guideline for {label!r} is not used: it is none of the labels {', '.join(labels)}"


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
    """An extractor as `load` opens it, and what to know of it; see `guard.Opening`."""
    source = _Source.find(model, adapter, format)
    chosen, asked = source.chosen(format, labels)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", UserWarning)  # ours; a library's own stay as they are
        row = source.constraint(constraint)
        settings = _Settings(chosen, asked, row, guidelines or {}, None, min_score)
        extractor = _extractor(source, settings, threads=threads, force=force)
    fingerprint = {
        "version": __version__,
        "model": _identity(source.model, source.of_model),
        "adapter": _identity(source.adapter, source.of_adapter) if source.adapter else None,
        "format": chosen,
        "labels": list(asked),
        "constraint": row.name,
        "prompt": hashlib.sha256(json.dumps(extractor.prompts).encode()).hexdigest(),
        "unit": extractor.unit,
        "min_score": extractor.min_score,
        "runtime": extractor.backend.runtime,
        "threads": extractor.backend.threads,
    }
    return extractor, About(tuple(asked), tuple(str(w.message) for w in warned), fingerprint)


def _identity(path: Path, manifest: Manifest | None) -> str | FileState:
    """The SHA-256 of a model, from its manifest, which was checked against it; without one, nobody has read it yet."""
    return manifest.sha256 if manifest else FileState.of(path)
