"""Resolve a model's name or path to a file or folder, and check its hash against models.toml and its manifest.

`models.toml` lists models with their hashes; every converted model has a manifest about its sources and capabilities,
beside a GGUF file (`X.gguf`, `X.json`) or inside an ONNX folder (`X/manifest.json`). A model whose hash differs from
its list or manifest is refused; an unlisted one is used only by path. An ONNX model without a manifest is never used.

The package has its own list. $BIONER_MODELS can name a folder with another one, for the user's files.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

from bioner_edge.errors import ModelError, unknown_name
from bioner_edge.models import gguf_header, models_toml
from bioner_edge.models.manifest import UNITS, Manifest, manifest_path, sha256
from bioner_edge.models.models_toml import Base, Listing, entry, write_list
from bioner_edge.models.onnx import folder as onnx_folder

__all__ = [
    "UNITS",
    "Base",
    "Listing",
    "Manifest",
    "bases",
    "check",
    "default",
    "entry",
    "find",
    "listed_models",
    "manifest_path",
    "refuse_other_base",
    "sha256",
    "write_list",
]

_PACKAGE = Path(__file__).parents[1]
_OWN = "BIONER_MODELS"
_GIVE = "give the path of a GGUF file or an ONNX folder"


def _bundled() -> models_toml.List:
    """The package's list: inside the installed package, or at the root of a checkout."""
    inside = _PACKAGE / models_toml.NAME
    path = inside if inside.exists() else _PACKAGE.parent / models_toml.NAME
    return models_toml.read(path, _PACKAGE / "data", ("default", "models", "bases"))


def listed_models() -> dict[str, Listing]:
    """The models that can be loaded by name: the bundled ones, then those of $BIONER_MODELS.

    Raises ModelError for a list that cannot be read, and for a name in both lists.
    """
    bundled = _bundled()
    rows = dict(bundled.models)
    if folder := os.environ.get(_OWN):
        path = Path(folder, models_toml.NAME)
        for name, row in models_toml.read(path, Path(folder)).models.items():
            if name in rows or name in bundled.bases:
                raise ModelError(f"{path}: [models.{name}] bioner-edge has a model of this name; choose another")
            rows[name] = row
    return rows


def bases() -> dict[str, Base]:
    """The base models that can be pulled by name. Raises ModelError for a list that cannot be read."""
    return dict(_bundled().bases)


def default(format: str | None = None) -> str | None:
    """The name of the default model; None if no model is bundled.

    If the default was not tuned for `format`, it is the first listed model that was, if any; without llama.cpp, one
    that runs without it is preferred.
    """
    name = _bundled().default
    rows = listed_models()
    if name is None or name not in rows:
        return name
    required = format or next(iter(rows[name].formats), None)
    tuned = [other for other in (name, *rows) if required in rows[other].formats]
    runs = tuned if _has_llama() else [other for other in tuned if rows[other].path.is_dir()]
    return next(iter([*runs, *tuned]), name)


def _has_llama() -> bool:
    return find_spec("llama_cpp") is not None


def find(name_or_path: str | None, format: str | None = None) -> tuple[Path, Manifest | None]:
    """Find the file or folder of a model and its manifest, both checked; None means the default model (of a format).

    A listed name takes precedence over a path. A path may be any GGUF file, with None for a missing manifest, or an
    ONNX folder. Raises ModelError for an unknown name, a missing or damaged file, or a hash that differs.
    """
    rows = listed_models()
    name = name_or_path if name_or_path is not None else default(format)
    if name is None:
        raise ModelError(f"no model is bundled with this installation; {_GIVE}")
    if name in rows:
        return check(rows[name].path, rows[name])
    path = Path(name)
    if not (path.exists() or path.suffix == ".gguf" or "/" in name or os.sep in name):
        pull = f"; {name!r} is a base model: pull and convert it" if name in bases() else ""
        raise ModelError(f"{unknown_name('model', name, rows or ['none'])}; or {_GIVE}{pull}")
    return check(path)


def check(path: Path, row: Listing | None = None) -> tuple[Path, Manifest | None]:
    """Check a model's structure and its hash, against its manifest and its `row` in a list; `path` and the manifest.

    Raises ModelError if a check fails; all files of an ONNX folder are checked.
    """
    if path.is_dir():
        manifest = onnx_folder.check(path).manifest
        _refuse_other(path, manifest.sha256, row)
        return path, manifest
    if not path.is_file():
        raise ModelError(f"{path}: no such model file")
    if path.suffix == ".onnx":
        raise ModelError(f"{path}: one file of an ONNX model; give the folder {path.parent}")
    gguf_header.check(path)
    beside = manifest_path(path)
    found = Manifest.load(beside) if beside.is_file() else None
    actual = sha256(path) if row or found else ""
    _refuse_other(path, actual, row)
    if found and found.sha256 != actual:
        raise ModelError(_hash_message(path, actual, str(beside), found.sha256))
    if row and found is None:
        again = "install bioner-edge" if row.folder == _PACKAGE / "data" else "convert the model"
        raise ModelError(f"{beside}: the manifest of a listed model is missing; {again} again")
    return path, found


def _refuse_other(path: Path, actual: str, row: Listing | None) -> None:
    """Raise ModelError if the list has another hash."""
    if row and row.sha256 != actual:
        raise ModelError(_hash_message(path, actual, row.listed_in, row.sha256))


def _hash_message(path: Path, actual: str, where: str, promised: str) -> str:
    message = f"SHA-256 {actual[:12]}…, but {where} says {promised[:12]}…"
    return f"{path}: {message}; the file was changed or is incomplete: fetch or convert it again"


def refuse_other_base(
    adapter: Path, adapter_manifest: Manifest | None, model: Path, model_manifest: Manifest | None
) -> None:
    """Raise ModelError if the manifests show that the adapter was tuned on other weights of the same shape."""
    sources = adapter_manifest.sources if adapter_manifest else {}
    tuned_on = {name: digest for name, digest in sources.items() if name.startswith("base/")}
    for name, digest in tuned_on.items():
        mine = model_manifest.sources.get(name.removeprefix("base/")) if model_manifest else None
        if name.endswith(".safetensors") and mine not in (None, digest):
            raise ModelError(f"{adapter}: was tuned on another model than {model}; give the one that it was tuned on")
