"""Which file is meant by a model's name, and whether it is the file that was meant.

`models.toml` lists models with their hashes; every converted file has a manifest beside it (`X.gguf`, `X.json`) that
says what it was made from and what it can do. A listed file whose hash is another is refused, as is a file that is
not what its manifest says; an unlisted file is used only where its path is given.
"""

from __future__ import annotations

import hashlib
import json
import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from . import gguf_header
from .errors import ModelError, known

__all__ = ["UNITS", "Listing", "Manifest", "default", "find", "listed", "manifest_path", "sha256"]

_PACKAGE = Path(__file__).parent
UNITS = ("sentence", "document")


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a model file is: the JSON beside it.

    `formats` are those that the model was tuned to write, its default first. `unit` is how much text one prompt holds,
    "sentence" or "document". `guidelines` explains labels, where the model was tuned with explanations. `sources` are
    SHA-256 of what it was made from, `verification` the figures of each stage, `tensor_mix` how many tensors have which
    type, `training` whatever is known of the tuning.
    """

    formats: tuple[str, ...]
    labels: tuple[str, ...]
    unit: str
    licence: str
    sha256: str
    level: str
    bits_per_weight: float
    tensor_mix: Mapping[str, int]
    sources: Mapping[str, str]
    versions: Mapping[str, str]
    verification: tuple[Mapping[str, Any], ...] = ()
    guidelines: Mapping[str, str] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> Manifest:
        """The manifest in `path`. Raises ModelError where it cannot be read or lacks something."""
        try:
            record = json.loads(path.read_text("utf-8"))
        except OSError as error:
            raise ModelError(f"{path}: cannot be read: {error.strerror}") from None
        except (ValueError, RecursionError):
            raise ModelError(f"{path}: the manifest is not JSON; convert the model again") from None
        if reason := _malformed(record):
            raise ModelError(f"{path}: malformed manifest: {reason}; convert the model again")
        record = {key: tuple(value) if isinstance(value, list) else value for key, value in record.items()}
        return cls(**record)

    def save(self, path: Path) -> None:
        """Write the manifest as JSON; `path` never holds half of one."""
        partial = path.with_name(path.name + ".partial")
        partial.write_text(json.dumps(asdict(self), ensure_ascii=False, indent=2) + "\n", "utf-8")
        os.replace(partial, path)


def _each(kind: type | tuple[type, ...], values: object) -> bool:
    return all(isinstance(value, kind) for value in values)  # type: ignore[attr-defined]


def _names(value: object) -> bool:
    return isinstance(value, list) and bool(value) and _each(str, value)


def _strings(value: object) -> bool:
    return isinstance(value, dict) and _each(str, value.values())


# Key -> (whether a value will do, what is expected).
_EXPECTED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "formats": (lambda v: _names(v), "a list of strings, not empty"),
    "labels": (lambda v: _names(v), "a list of strings, not empty"),
    "unit": (lambda v: v in UNITS, " or ".join(UNITS)),
    "licence": (lambda v: isinstance(v, str), "a string"),
    "sha256": (lambda v: _is_sha256(v), "64 hexadecimal digits"),
    "level": (lambda v: isinstance(v, str), "a string"),
    "bits_per_weight": (lambda v: isinstance(v, float | int) and v > 0, "a positive number"),
    "tensor_mix": (lambda v: isinstance(v, dict) and _each(int, v.values()), "counts by type"),
    "sources": (_strings, "hashes by name"),
    "versions": (_strings, "versions by name"),
    "verification": (lambda v: isinstance(v, list) and _each(dict, v), "a list of objects"),
    "guidelines": (_strings, "texts by label"),
    "training": (lambda v: isinstance(v, dict), "an object"),
}


def _malformed(record: object) -> str | None:
    """What is wrong with a manifest's JSON, or None."""
    if not isinstance(record, dict):
        return "it must be an object"
    if unknown := sorted(record.keys() - _EXPECTED.keys()):
        return known("key", unknown[0], _EXPECTED)
    optional = {f.name for f in fields(Manifest) if f.default is not MISSING or f.default_factory is not MISSING}
    for key, (fits, expected) in _EXPECTED.items():
        if key not in record and key in optional:
            continue
        if key not in record or not fits(record[key]):
            return f"{key!r} must be {expected}"
    return None


def _is_sha256(value: object) -> bool:
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")


@dataclass(frozen=True, slots=True)
class Listing:
    """A row of models.toml."""

    file: str
    sha256: str
    formats: tuple[str, ...]
    labels: tuple[str, ...]
    licence: str
    description: str

    @property
    def path(self) -> Path:
        return _PACKAGE / "data" / self.file


def _table() -> dict[str, Any]:
    """models.toml: a copy lies in the installed package, in a checkout it stands at the root."""
    inside = _PACKAGE / "models.toml"
    path = inside if inside.exists() else _PACKAGE.parent / "models.toml"
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: the list of models cannot be read: {error}; install bioner-edge again") from None


def listed() -> dict[str, Listing]:
    """The models that can be named. Raises ModelError for a row that cannot be read."""
    rows = {}
    for name, row in _table().get("models", {}).items():
        try:
            if not (_names(row["formats"]) and _names(row["labels"])):
                raise TypeError
            rows[name] = Listing(**{**row, "formats": tuple(row["formats"]), "labels": tuple(row["labels"])})
        except (KeyError, TypeError):
            wanted = ", ".join(f.name for f in fields(Listing))
            told = f"must have exactly {wanted}; formats and labels are lists, not empty"
            raise ModelError(f"models.toml: [models.{name}] {told}") from None
    return rows


def default(format: str | None = None) -> str | None:
    """The name of the model that is used where none is named; None where no model is bundled.

    Where it was not tuned for `format`, the first listed one that was takes its place, if there is one.
    """
    name: str | None = _table().get("default")
    if format is None or name is None:
        return name
    rows = listed()
    if name not in rows or format in rows[name].formats:
        return name
    return next((other for other, row in rows.items() if format in row.formats), name)


def manifest_path(model: Path) -> Path:
    """Where the manifest of a model file lies."""
    return model.with_suffix(".json")


def sha256(path: Path) -> str:
    """The SHA-256 of a file, as 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def find(name_or_path: str | None, format: str | None = None) -> tuple[Path, Manifest | None]:
    """The file of a model and its manifest, both checked; None stands for the default model (of a format).

    A listed name is that file and no other. A path may be any GGUF file; its manifest is None where none
    lies beside it. Raises ModelError for an unknown name, a missing or damaged file, or a hash that is not
    the one written down.
    """
    rows = listed()
    name = name_or_path if name_or_path is not None else default(format)
    if name is None:
        raise ModelError("no model is bundled with this installation; give the path of a GGUF file")
    if name in rows:
        return _found(rows[name].path, rows[name].sha256, "models.toml")
    path = Path(name)
    if not (path.exists() or path.suffix == ".gguf" or "/" in name or os.sep in name):
        raise ModelError(f"{known('model', name, rows or ['none'])}; or give the path of a GGUF file")
    return _found(path)


def _found(path: Path, digest: str | None = None, said_by: str = "") -> tuple[Path, Manifest | None]:
    """`path` and its manifest, once header and hashes hold; `digest` is the hash that `said_by` promises."""
    if not path.is_file():
        raise ModelError(f"{path}: no such model file")
    gguf_header.check(path)
    beside = manifest_path(path)
    manifest = Manifest.load(beside) if beside.is_file() else None
    promises = [(digest, said_by)] if digest else []
    promises += [(manifest.sha256, str(beside))] if manifest else []
    actual = sha256(path) if promises else ""
    for promised, where in promises:
        if promised != actual:
            told = f"SHA-256 {actual[:12]}…, but {where} says {promised[:12]}…"
            raise ModelError(f"{path}: {told}; the file was changed or is incomplete: fetch or convert it again")
    if digest and manifest is None:
        raise ModelError(f"{beside}: the manifest of a listed model is missing; install bioner-edge again")
    return path, manifest
