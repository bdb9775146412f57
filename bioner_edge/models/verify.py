"""Check models against their hashes in models.toml, in their manifests, or as stated by the hub."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bioner_edge.errors import ModelError, UsageError, unknown_name
from bioner_edge.models import models_toml, registry
from bioner_edge.models.hub_lock import FOLDER, Pull, check_manual_copy, file_error
from bioner_edge.models.models_toml import Base, Listing
from bioner_edge.models.onnx import folder as onnx_folder

__all__ = ["Check", "verify_files"]


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check, in one line, and whether it passed."""

    message: str
    holds: bool


def verify_files(targets: Sequence[str]) -> Iterator[Check]:
    """Check names, files and folders; by default all listed and pulled models.

    Raises UsageError for a target that is neither a known name nor an existing path.
    """
    listed, bases = registry.listed_models(), registry.bases()
    for target in targets:
        if target not in listed and target not in bases and not Path(target).exists():
            raise UsageError(f"{unknown_name('model', target, [*listed, *bases])}; or give a file or a folder")
    for target in targets or [*listed, *(name for name in bases if (FOLDER / name).is_dir())]:
        try:
            yield from _checks(target, listed, bases)
        except ModelError as error:
            yield Check(str(error), False)


def _checks(target: str, listed: Mapping[str, Listing], bases: Mapping[str, Base]) -> Iterator[Check]:
    path = Path(target)
    if target in listed:
        yield _model(listed[target].path, listed[target])
    elif target in bases and not path.exists():
        if not (FOLDER / target).is_dir():
            raise ModelError(f"{FOLDER / target}: not there; fetch it with: bioner-edge models pull {target}")
        yield from _folder(FOLDER / target, bases)
    elif path.is_dir() and not onnx_folder.is_model(path):
        yield from _folder(path, bases)
    else:
        yield _model(path, next((row for row in listed.values() if row.path.resolve() == path.resolve()), None))


def _model(path: Path, row: Listing | None) -> Check:
    """Check a model against its list and its manifest. Raises ModelError for a difference."""
    _, manifest = registry.check(path, row)
    if manifest is None:
        raise ModelError(f"{path}: no manifest beside it and not in a list: its hash is not known")
    listed_in = f"{row.listed_in} and " if row else ""
    return Check(f"{path}: SHA-256 {manifest.sha256[:12]}… as in {listed_in}{registry.manifest_path(path)}", True)


def _folder(folder: Path, bases: Mapping[str, Base]) -> Iterator[Check]:
    """Check what is in a folder: a base model, pulled or copied by hand, or converted models."""
    if pulled := Pull.load(folder):
        base = next((base for base in bases.values() if base.repo == pulled.repo), None)
        yield from _check_pull(folder, pulled, base)
    elif any(folder.glob("*.safetensors")):
        yield from _check_manual_copy(folder, bases)
    elif found := models_toml.converted_models(folder):
        path = folder / models_toml.NAME
        rows = {row.path: row for row in (models_toml.read(path, folder).models if path.is_file() else {}).values()}
        for model in sorted({*found, *rows}):
            try:
                yield _model(model, rows.get(model))
            except ModelError as error:
                yield Check(str(error), False)
    else:
        raise ModelError(onnx_folder.no_model_message(folder))


def _check_pull(folder: Path, pulled: Pull, base: Base | None) -> Iterator[Check]:
    """Check each file against the hash that the hub stated, and against models.toml if that pins the same commit."""
    errors = [f"{folder / f.name}: {why}" for f in pulled.files if (why := file_error(folder / f.name, f))]
    if base and base.revision == pulled.revision:
        stated = {file.name: file.digests.get("sha256") for file in pulled.files}
        for name, digest in base.files.items():
            if stated.get(name, digest) != digest:
                errors.append(f"{folder / name}: the hub stated another SHA-256 than models.toml; do not use it")
    yield from (Check(error, False) for error in errors)
    if not errors:
        yield Check(f"{folder}: {len(pulled.files)} files as {pulled.repo} has them at {pulled.revision}", True)


def _check_manual_copy(folder: Path, bases: Mapping[str, Base]) -> Iterator[Check]:
    """Check files that were copied by hand against the base model with the folder's name."""
    if folder.resolve().name not in bases:
        raise ModelError(f"{folder}: not pulled, and not named like a base model: its hashes are not known")
    base = bases[folder.resolve().name]
    errors, unknown = check_manual_copy(folder, base)
    yield from (Check(error, False) for error in errors)
    if not errors and unknown:
        message = f"no hash of {', '.join(unknown)} is known; a pull with a connection checks it"
        yield Check(f"{folder}: complete, but {message}", True)
    elif not errors:
        yield Check(f"{folder}: the weights are those of {base.repo} at {base.revision} in models.toml", True)
