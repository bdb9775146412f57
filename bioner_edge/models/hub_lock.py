"""The lock file of a pulled base model: its commit and files, and whether the files match their hashes.

A pull records what the hub states about them in `.bioner-pull.json` before it downloads the first one.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from bioner_edge.errors import ModelError
from bioner_edge.models.models_toml import Base

__all__ = ["FOLDER", "LOCK", "File", "Hashes", "Pull", "check_manual_copy", "file_error", "is_wanted"]

FOLDER = Path("models")  # the default of `bioner-edge models pull --to`
LOCK = ".bioner-pull.json"
_CHUNK = 1 << 20  # bytes read at once
_INDEX = "model.safetensors.index.json"
_DIGITS = {"sha256": 64, "git-sha1": 40}  # digest -> hexadecimal digits
_MAX_HEADER = 100_000_000  # bytes; the limit of the safetensors library
# Weights, configuration, tokenizer, chat templates and the license, in the repository's root; no pickled files.
_WANTED = re.compile(
    r"(?!consolidated|pytorch_model|[\w.-]*\.bin\b)[A-Za-z0-9][\w.-]{0,150}\.(safetensors|json|jinja)"
    r"|merges\.txt|vocab\.txt|tokenizer\.model|(LICENSE|LICENCE|NOTICE|USE_POLICY)(\.txt|\.md)?",
    re.ASCII,
)


def is_wanted(name: str) -> bool:
    """Whether a file of a repository is downloaded. Such a name has no slash and cannot leave its folder."""
    return _WANTED.fullmatch(name) is not None


@dataclass(frozen=True, slots=True)
class File:
    """A file's expected size and hexadecimal digests, by "sha256" or "git-sha1" (git's blob id)."""

    name: str
    bytes: int
    digests: Mapping[str, str]

    @property
    def partial(self) -> str:
        """Its name until it is complete."""
        return f"{self.name}.{next(iter(self.digests.values()))[:12]}.partial"


class Hashes:
    """The digests of a file, updated while it grows."""

    def __init__(self, file: File) -> None:
        self._expected = file.digests
        self._hashes = {kind: hashlib.sha1() if kind == "git-sha1" else hashlib.sha256() for kind in file.digests}
        if "git-sha1" in self._hashes:
            self._hashes["git-sha1"].update(b"blob %d\0" % file.bytes)

    def update(self, data: bytes) -> None:
        for hash in self._hashes.values():
            hash.update(data)

    def read(self, stream: BinaryIO) -> None:
        while data := stream.read(_CHUNK):
            self.update(data)

    def error(self) -> str | None:
        """Which digest differs, in words; None if all match."""
        for kind, hash in self._hashes.items():
            if hash.hexdigest() != self._expected[kind]:
                return f"its {kind} is {hash.hexdigest()[:12]}…, it must be {self._expected[kind][:12]}…"
        return None


def file_error(path: Path, file: File) -> str | None:
    """Why the file at `path` is not `file`, or None. Raises ModelError if it cannot be read."""
    try:
        with path.open("rb") as stream:
            if (there := os.fstat(stream.fileno()).st_size) != file.bytes:
                return f"it has {there} bytes, it must have {file.bytes}"
            hashes = Hashes(file)
            hashes.read(stream)
            return hashes.error()
    except FileNotFoundError:
        return "it is missing"
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from None


@dataclass(frozen=True, slots=True)
class Pull:
    """The contents of a pull: a repository's commit, whether models.toml pins it, and its files."""

    repo: str
    revision: str
    pinned: bool
    files: tuple[File, ...]

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)

    @classmethod
    def load(cls, folder: Path) -> Pull | None:
        """Read the record in a folder; None if there is none. Raises ModelError if it cannot be read."""
        path = folder / LOCK
        try:
            record = json.loads(path.read_text("utf-8"))
            files = tuple(_file(name, row) for name, row in record["files"].items())
            pulled = cls(record["repo"], record["revision"], record["pinned"], files)
            if not (files and isinstance(pulled.repo, str) and isinstance(pulled.pinned, bool)):
                raise ValueError
            if not re.fullmatch("[0-9a-f]{40}", pulled.revision):
                raise ValueError
            return pulled
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise ModelError(f"{path}: cannot be read: {error.strerror}") from None
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise ModelError(f"{path}: malformed; delete it and pull the model again") from None

    def save(self, folder: Path) -> None:
        """Write the record into a folder, atomically. Raises OSError."""
        rows = {file.name: {"bytes": file.bytes, **file.digests} for file in self.files}
        record = {"repo": self.repo, "revision": self.revision, "pinned": self.pinned, "files": rows}
        partial = folder / f"{LOCK}.partial"
        partial.write_text(json.dumps(record, indent=2) + "\n", "utf-8")
        os.replace(partial, folder / LOCK)

    def missing(self, folder: Path) -> list[File]:
        """The files that are missing or of another size; their hashes are not checked."""
        return [file for file in self.files if _size(folder / file.name) != file.bytes]

    def there(self, folder: Path) -> int:
        """The bytes that are there already, of complete and of partial files."""
        return sum(_size(folder / name) or 0 for file in self.files for name in (file.name, file.partial))


def _file(name: str, row: dict[str, Any]) -> File:
    """A file of the record. Raises ValueError or TypeError for values that a pull would not have written."""
    digests = {kind: row[kind] for kind in _DIGITS if kind in row}
    sound = all(re.fullmatch(f"[0-9a-f]{{{_DIGITS[kind]}}}", digest) for kind, digest in digests.items())
    if not (is_wanted(name) and digests and sound and isinstance(row["bytes"], int) and row["bytes"] >= 0):
        raise ValueError
    return File(name, row["bytes"], digests)


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def check_manual_copy(folder: Path, base: Base) -> tuple[list[str], list[str]]:
    """Check files that were copied in by hand: (the error of each bad file, weights without a hash in models.toml).

    Without a hash, a file of weights can be checked for truncation but not for identity.
    """
    weights = _weights(folder)
    errors = [f"{folder / name}: it is missing" for name in ("config.json", *weights) if _size(folder / name) is None]
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model")):
        errors.append(f"{folder / 'tokenizer.json'}: it is missing")
    for name, digest in base.files.items():
        if (size := _size(folder / name)) is not None and (
            reason := file_error(folder / name, File(name, size, {"sha256": digest}))
        ):
            errors.append(f"{folder / name}: {reason}")
    unknown = [name for name in weights if name not in base.files and _size(folder / name) is not None]
    errors += [f"{folder / name}: it is incomplete" for name in unknown if not _is_complete(folder / name)]
    return errors, unknown


def _weights(folder: Path) -> list[str]:
    """The names of the weight files: the single one, or those of the index, in transformers' order of precedence."""
    if (folder / "model.safetensors").is_file() or not (folder / _INDEX).is_file():
        return ["model.safetensors"]
    try:
        names = json.loads((folder / _INDEX).read_text("utf-8"))["weight_map"].values()
        found = sorted({name for name in names if is_wanted(name)})
        return found or ["model.safetensors"]
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise ModelError(f"{folder / _INDEX}: cannot be read; fetch it again") from None


def _is_complete(path: Path) -> bool:
    """Whether a safetensors file ends where its header says."""
    try:
        with path.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(min(length, _MAX_HEADER)))
        ends = [row["data_offsets"][1] for name, row in header.items() if name != "__metadata__"]
        return bool(8 + length + max(ends, default=0) == path.stat().st_size)
    except (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, struct.error, RecursionError):
        return False
