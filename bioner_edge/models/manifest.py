"""Model manifests, written at conversion: JSON beside a file (`X.gguf`, `X.json`) or in a folder (`X/model.onnx`,
`X/manifest.json`)."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from bioner_edge.errors import ModelError, unknown_name

__all__ = [
    "PARTS",
    "UNITS",
    "Manifest",
    "current_keys",
    "digest",
    "digests",
    "is_sha256",
    "join_hashes",
    "manifest_path",
    "sha256",
    "size",
]

UNITS = ("sentence", "document")
PARTS = ("model.onnx", "model.onnx.data", "runtime.json", "tokenizer.json")
"""The files of an ONNX model; the second is missing if all tensors are small."""
_NAME = "manifest.json"
_MAX_BYTES = 1 << 24  # a manifest has some ten thousand


@dataclass(frozen=True, slots=True)
class Manifest:
    """The manifest of a model.

    `formats` are those that it was tuned to write, its default first; empty if it was not tuned. `unit` is how much
    text one prompt holds, "sentence" or "document". `guidelines` explains labels, if the model was tuned with
    explanations. `constraint` is its default constraint; empty for that of the package. `sources` are the SHA-256 of
    the files it was made from, `verification` the figures of each stage, `tensor_mix` the number of tensors of each
    type, `training` what is known of the tuning. `importance` says from which texts and how many tokens the importance
    matrix was measured, `fingerprint` what `bioner-edge verify` must reproduce, `base` the model and adapter that it
    was merged from, or the model that an adapter is for. `sha256` is that of the file; for a folder it is derived from
    `files`, SHA-256 by file name: see `digest`.
    """

    formats: tuple[str, ...]
    labels: tuple[str, ...]
    unit: str
    license: str
    sha256: str
    level: str
    bits_per_weight: float
    tensor_mix: Mapping[str, int]
    sources: Mapping[str, str]
    versions: Mapping[str, str]
    verification: tuple[Mapping[str, Any], ...] = ()
    guidelines: Mapping[str, str] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    importance: Mapping[str, Any] = field(default_factory=dict)
    fingerprint: Mapping[str, Any] = field(default_factory=dict)
    base: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    constraint: str = ""

    @classmethod
    def load(cls, path: Path) -> Manifest:
        """Read the manifest in `path`. Raises ModelError if it cannot be read or is malformed."""
        try:
            if path.stat().st_size > _MAX_BYTES:
                raise ModelError(f"{path}: more than {_MAX_BYTES} bytes, not a manifest; convert the model again")
            record = json.loads(path.read_text("utf-8"))
            json.dumps(record, ensure_ascii=False).encode()  # refuses lone surrogates, which no output can hold
        except OSError as error:
            raise ModelError(f"{path}: cannot be read: {error.strerror}") from None
        except (ValueError, RecursionError):
            raise ModelError(f"{path}: the manifest is not JSON; convert the model again") from None
        record = current_keys(record)
        if reason := _manifest_error(record):
            raise ModelError(f"{path}: malformed manifest: {reason}; convert the model again")
        record = {key: tuple(value) if isinstance(value, list) else value for key, value in record.items()}
        return cls(**record)

    def save(self, path: Path) -> None:
        """Write the manifest as JSON, atomically."""
        partial = path.with_name(path.name + ".partial")
        partial.write_text(json.dumps(asdict(self), ensure_ascii=False, indent=2) + "\n", "utf-8")
        os.replace(partial, path)


def _each(kind: type | tuple[type, ...], values: object) -> bool:
    return all(isinstance(value, kind) and not isinstance(value, bool) for value in values)  # type: ignore[attr-defined]


def _names(value: object) -> bool:
    return isinstance(value, list) and _each(str, value)


def _strings(value: object) -> bool:
    return isinstance(value, dict) and _each(str, value.values())


def _positive(value: object) -> bool:
    return isinstance(value, float | int) and not isinstance(value, bool) and 0 < value < math.inf


def _hashes(value: object) -> bool:
    """Whether all values are hashes, and all names those of files in the manifest's own folder."""
    return isinstance(value, dict) and all(map(_plain, value)) and all(map(is_sha256, value.values()))


def _plain(name: str) -> bool:
    """Whether a name is a plain file name on any system."""
    return name.isprintable() and not set(name) & set("/\\:") and name.strip(" .") != ""


def is_sha256(value: object) -> bool:
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")


# Key -> (whether a value is valid, what is expected).
_EXPECTED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "formats": (_names, "a list of strings"),
    "labels": (_names, "a list of strings"),
    "unit": (lambda v: v in UNITS, " or ".join(UNITS)),
    "license": (lambda v: isinstance(v, str), "a string"),
    "sha256": (is_sha256, "64 hexadecimal digits"),
    "level": (lambda v: isinstance(v, str), "a string"),
    "bits_per_weight": (_positive, "a positive number"),
    "tensor_mix": (lambda v: isinstance(v, dict) and _each(int, v.values()), "counts by type"),
    "sources": (_strings, "hashes by name"),
    "versions": (_strings, "versions by name"),
    "verification": (lambda v: isinstance(v, list) and _each(dict, v), "a list of objects"),
    "guidelines": (_strings, "texts by label"),
    "training": (lambda v: isinstance(v, dict), "an object"),
    "importance": (lambda v: isinstance(v, dict), "an object"),
    "fingerprint": (lambda v: isinstance(v, dict), "an object"),
    "base": (lambda v: isinstance(v, dict), "an object"),
    "files": (_hashes, "SHA-256 by file name"),
    "constraint": (lambda v: isinstance(v, str), "a string"),
}


def current_keys(record: Any) -> Any:
    """Rename old keys of a record: `license` was once `licence`, in manifests and in models.toml."""
    if isinstance(record, dict) and "licence" in record and "license" not in record:
        return {"license" if key == "licence" else key: value for key, value in record.items()}
    return record


def _manifest_error(record: object) -> str | None:
    """Why a manifest's JSON is refused, or None."""
    if not isinstance(record, dict):
        return "it must be an object"
    if unknown := sorted(record.keys() - _EXPECTED.keys()):
        return unknown_name("key", unknown[0], _EXPECTED)
    optional = {f.name for f in fields(Manifest) if f.default is not MISSING or f.default_factory is not MISSING}
    for key, (fits, expected) in _EXPECTED.items():
        if key not in record and key in optional:
            continue
        if key not in record or not fits(record[key]):
            return f"{key!r} must be {expected}"
    return None


def manifest_path(model: Path) -> Path:
    """The path of a model's manifest: beside a file, inside a folder."""
    return model / _NAME if model.is_dir() else model.with_suffix(".json")


def sha256(path: Path) -> str:
    """The SHA-256 of a file, as 64 hexadecimal digits. Raises ModelError if it cannot be read."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from None


def digests(folder: Path) -> dict[str, str]:
    """The SHA-256 of the existing files of an ONNX model, by name."""
    return {path.name: sha256(path) for path in _parts(folder)}


def digest(path: Path) -> str:
    """The SHA-256 of a model: a file's own; for a folder, that of the output of `sha256sum` on its files."""
    return join_hashes(digests(path)) if path.is_dir() else sha256(path)


def size(path: Path) -> int:
    """The bytes of a model: a file's, or those of the existing files of an ONNX model. Raises OSError for a missing
    file."""
    return sum(part.stat().st_size for part in _parts(path)) if path.is_dir() else path.stat().st_size


def _parts(folder: Path) -> list[Path]:
    return [folder / name for name in PARTS if (folder / name).is_file()]


def join_hashes(hashes: Mapping[str, str]) -> str:
    """One SHA-256 for several files: that of the lines "HASH  NAME", sorted by name."""
    lines = "".join(f"{hashes[name]}  {name}\n" for name in sorted(hashes))
    return hashlib.sha256(lines.encode()).hexdigest()
