"""Whether models are what was written down: each against its list, its manifest, or what the hub said."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bioner_edge.errors import ModelError, UsageError, unknown_name
from bioner_edge.models import models_toml, registry
from bioner_edge.models.hub_lock import FOLDER, Pulled, brought, differs
from bioner_edge.models.models_toml import Base, Listing
from bioner_edge.models.onnx import folder as onnx_folder

__all__ = ["Check", "verify_files"]


@dataclass(frozen=True, slots=True)
class Check:
    """What was found of one thing, in a line, and whether it is as it must be."""

    told: str
    holds: bool


def verify_files(targets: Sequence[str]) -> Iterator[Check]:
    """Check names, files and folders; where none is given, whatever the lists name and what was pulled.

    Raises UsageError for what is neither a name nor there.
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
    """A model against its list and its manifest. Raises ModelError for what differs."""
    _, manifest = registry.check(path, row)
    if manifest is None:
        raise ModelError(f"{path}: no manifest beside it and no list names it: nothing says what its hash must be")
    said = f"{row.said_by} and " if row else ""
    return Check(f"{path}: SHA-256 {manifest.sha256[:12]}… as in {said}{registry.manifest_path(path)}", True)


def _folder(folder: Path, bases: Mapping[str, Base]) -> Iterator[Check]:
    """Whatever can be checked in a folder: a pulled or brought base model, or converted models."""
    if pulled := Pulled.load(folder):
        base = next((base for base in bases.values() if base.repo == pulled.repo), None)
        yield from _pulled(folder, pulled, base)
    elif any(folder.glob("*.safetensors")):
        yield from _brought(folder, bases)
    elif found := models_toml.converted_models(folder):
        path = folder / models_toml.NAME
        rows = {row.path: row for row in (models_toml.read(path, folder).models if path.is_file() else {}).values()}
        for model in sorted({*found, *rows}):
            try:
                yield _model(model, rows.get(model))
            except ModelError as error:
                yield Check(str(error), False)
    else:
        raise ModelError(onnx_folder.no_model(folder))


def _pulled(folder: Path, pulled: Pulled, base: Base | None) -> Iterator[Check]:
    """Each file against what the hub said of it, and against the list where the commit is the list's."""
    wrong = [f"{folder / f.name}: {why}" for f in pulled.files if (why := differs(folder / f.name, f))]
    if base and base.revision == pulled.revision:
        said = {file.name: file.digests.get("sha256") for file in pulled.files}
        for name, digest in base.files.items():
            if said.get(name, digest) != digest:
                wrong.append(f"{folder / name}: the hub said another SHA-256 than models.toml; do not use it")
    yield from (Check(why, False) for why in wrong)
    if not wrong:
        yield Check(f"{folder}: {len(pulled.files)} files as {pulled.repo} has them at {pulled.revision}", True)


def _brought(folder: Path, bases: Mapping[str, Base]) -> Iterator[Check]:
    """Files that no pull brought: what the list knows of a model with the folder's name."""
    if folder.resolve().name not in bases:
        raise ModelError(
            f"{folder}: not pulled, and not called as a base model is: nothing says what its hashes must be"
        )
    base = bases[folder.resolve().name]
    wrong, unknown = brought(folder, base)
    yield from (Check(why, False) for why in wrong)
    if not wrong and unknown:
        message = f"no hash of {', '.join(unknown)} is known; a pull with a connection checks it"
        yield Check(f"{folder}: whole, but {message}", True)
    elif not wrong:
        yield Check(f"{folder}: the weights are those of {base.repo} at {base.revision} in models.toml", True)
