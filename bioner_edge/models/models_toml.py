"""Read, check and write models.toml, a list of models."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from bioner_edge.errors import ModelError, UsageError, unknown_name
from bioner_edge.models import gguf_header
from bioner_edge.models.manifest import Manifest, current_keys, is_sha256, manifest_path
from bioner_edge.models.onnx import folder as onnx_folder

__all__ = ["NAME", "Base", "List", "Listing", "converted_models", "entry", "name_error", "read", "write_list"]

NAME = "models.toml"
_HEAD = "# Converted models. Set BIONER_MODELS to this folder, and bioner-edge knows them by these names.\n"


@dataclass(frozen=True, slots=True)
class Listing:
    """A row [models.NAME] of the list `listed_in`: `file`, a file or folder in `folder`, and its properties."""

    file: str
    sha256: str
    formats: tuple[str, ...]
    labels: tuple[str, ...]
    license: str
    description: str
    folder: Path
    listed_in: str

    @property
    def path(self) -> Path:
        return self.folder / self.file


@dataclass(frozen=True, slots=True)
class Base:
    """A row [bases.NAME]: a base model on the hub.

    `revision` is the pinned commit, None if none is pinned. `bytes` are those of the weights. `files` are the known
    SHA-256 by file name at that commit.
    """

    repo: str
    license: str
    architecture: str
    description: str
    gated: bool
    revision: str | None = None
    bytes: int | None = None
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class List:
    """The contents of a models.toml."""

    models: Mapping[str, Listing]
    bases: Mapping[str, Base]
    default: str | None


def _text(value: object) -> bool:
    return isinstance(value, str) and not re.search("[\ud800-\udfff]", value)


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(map(_text, value))


def _inside(value: object) -> bool:
    """Whether a relative path stays in its folder on any system."""
    if not isinstance(value, str) or not value.isprintable() or "\\" in value or ":" in value:
        return False
    path = PurePosixPath(value)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts


_Expected = Mapping[str, tuple[Callable[[Any], bool], str]]
# Key -> (whether a value is valid, what is expected); optional keys have a table of their own.
_MODEL: _Expected = {
    "file": (_inside, "a file in the list's folder, relative and without '..'"),
    "sha256": (is_sha256, "64 hexadecimal digits"),
    "formats": (_texts, "a list of strings"),
    "labels": (_texts, "a list of strings"),
    "license": (_text, "a string"),
    "description": (_text, "a string"),
}
_BASE: _Expected = {
    "repo": (lambda v: isinstance(v, str) and bool(re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", v)), "OWNER/NAME on the hub"),
    "license": (_text, "a string"),
    "architecture": (_text, "a string"),
    "description": (_text, "a string"),
    "gated": (lambda v: isinstance(v, bool), "true or false"),
}
_BASE_OPTIONAL: _Expected = {
    "revision": (lambda v: isinstance(v, str) and bool(re.fullmatch("[0-9a-f]{40}", v)), "40 hexadecimal digits"),
    "bytes": (lambda v: isinstance(v, int) and not isinstance(v, bool) and v > 0, "a number of bytes"),
    "files": (
        lambda v: isinstance(v, dict) and all(map(_inside, v)) and all(map(is_sha256, v.values())),
        "SHA-256 by file name",
    ),
}


def read(path: Path, folder: Path, tables: tuple[str, ...] = ("models",)) -> List:
    """Read the list in `path`, of files in `folder`; `tables` are the top-level keys that it may have.

    Raises ModelError if it cannot be read or a row is invalid.
    """
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ModelError(f"{path}: the list of models cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: the list of models is not TOML: {error}") from None
    if unknown := sorted(table.keys() - set(tables)):
        raise ModelError(f"{path}: {unknown_name('key', unknown[0], tables)}")
    rows = {
        name: Listing(**_tuples(row), folder=folder, listed_in=str(path))
        for name, row in _rows(path, table, "models", _MODEL, {}).items()
    }
    bases = {name: Base(**row) for name, row in _rows(path, table, "bases", _BASE, _BASE_OPTIONAL).items()}
    default = table.get("default")
    if default is not None and not isinstance(default, str):
        raise ModelError(f"{path}: 'default' must be a model's name")
    return List(rows, bases, default)


def _rows(
    path: Path, table: Mapping[str, Any], key: str, expected: _Expected, optional: _Expected
) -> dict[str, dict[str, Any]]:
    rows = table.get(key, {})
    if not isinstance(rows, dict):
        raise ModelError(f"{path}: {key!r} must be rows [{key}.NAME]")
    rows = {name: current_keys(row) for name, row in rows.items()}
    for name, row in rows.items():
        if reason := name_error(name) or _row_error(row, expected, optional):
            raise ModelError(f"{path}: [{key}.{name}] {reason}")
    return rows


def _row_error(row: object, expected: _Expected, optional: _Expected) -> str | None:
    """Why a row is refused, or None."""
    if not isinstance(row, dict):
        return "must be a table"
    both = {**expected, **optional}
    if unknown := sorted(row.keys() - both.keys()):
        return unknown_name("key", unknown[0], both)
    for key, (fits, what) in both.items():
        if key not in row and key in optional:
            continue
        if key not in row or not fits(row[key]):
            return f"{key!r} must be {what}"
    return None


def name_error(name: str) -> str | None:
    """Why a name is refused for a model, or None."""
    if not name.isprintable() or not name.strip() or "/" in name or "\\" in name:
        return "the name must be printable, without slashes"
    return None


def _tuples(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}


def entry(name: str, path: Path, manifest: Manifest, description: str) -> str:
    """Render the models.toml row of a converted model. Raises UsageError for an invalid name or row."""
    if reason := name_error(name):
        raise UsageError(f"{name!r} cannot be the name of a model: {reason}")
    row: dict[str, str | list[str]] = {
        "file": path.name,
        "sha256": manifest.sha256,
        "formats": list(manifest.formats),
        "labels": list(manifest.labels),
        "license": manifest.license,
        "description": " ".join(description.split()),
    }
    if reason := _row_error(row, _MODEL, {}):
        raise UsageError(f"{path}: cannot be listed: {reason}")
    key = name if re.fullmatch("[A-Za-z0-9_-]+", name) else _toml(name)
    return "".join([f"[models.{key}]\n", *(f"{key} = {_toml(value)}\n" for key, value in row.items())])


def _toml(value: str | list[str]) -> str:
    """A string or a list of strings in TOML, which escapes like JSON, and DEL too."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def write_list(folder: Path) -> Path:
    """Write the models.toml of a folder of converted models from their manifests, and return its path.

    Names and descriptions of an earlier list are kept. Adapters are left out: they are not models by themselves. Raises
    ModelError if the folder's list is not one of converted models, or a manifest cannot be read.
    """
    path = folder / NAME
    rows = read(path, folder).models if path.exists() else {}
    before = {row.file: (name, row.description) for name, row in rows.items()}
    taken = {name for name, _ in before.values()}
    entries: dict[str, str] = {}
    for model in converted_models(folder):
        if not manifest_path(model).is_file() or _is_adapter(model):
            continue
        manifest = Manifest.load(manifest_path(model))
        fresh = (model.stem, model.name) if model.suffix == ".gguf" else (model.name, f"{model.name}.onnx")
        name = fresh[fresh[0] in taken or fresh[0] in entries]
        name, description = before.get(model.name, (name, _description(manifest)))
        entries[name] = entry(name, model, manifest, description)
    partial = path.with_name(path.name + ".partial")
    partial.write_text("\n".join([_HEAD, *entries.values()]), "utf-8")
    os.replace(partial, path)
    return path


def converted_models(folder: Path) -> list[Path]:
    """The models in a folder: its GGUF files, with or without a manifest, and its ONNX folders."""
    return sorted([*folder.glob("*.gguf"), *filter(onnx_folder.is_model, folder.iterdir())])


def _is_adapter(model: Path) -> bool:
    return model.is_file() and gguf_header.check(model).get("general.type") == "adapter"


def _description(manifest: Manifest) -> str:
    tuned = f"{', '.join(manifest.labels)} as {', '.join(manifest.formats)}" if manifest.formats else "not tuned"
    return f"{tuned}; {manifest.level}, {manifest.bits_per_weight:.2f} bits per weight"
