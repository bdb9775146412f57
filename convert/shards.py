"""Safetensors files: read one tensor at a time as float32, and write tensors as they come.

Neither torch nor the safetensors library is needed: a file is a JSON header and raw bytes. Memory holds the requested
tensor and a few megabytes, whatever its type in the file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bioner_edge.errors import ModelError

__all__ = ["Shapes", "Shards", "write"]

Shapes = Mapping[str, tuple[int, ...]]  # name of a tensor -> its shape

_LONGEST_HEADER = 100_000_000  # bytes; the limit of the safetensors library
_PIECE = 1 << 20  # values read at a time
# Type in the header -> how its bytes are read.
_TYPES = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}


@dataclass(frozen=True, slots=True)
class _Place:
    """Location and type of a tensor's bytes."""

    file: Path
    type: str
    shape: tuple[int, ...]
    offset: int  # bytes from the file's start


class Shards:
    """The tensors of some safetensors files. Raises ModelError for invalid headers."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = tuple(files)
        self._places: dict[str, _Place] = {}
        for file in files:
            for name, place in _header(file).items():
                if name in self._places:
                    raise ModelError(
                        f"{file}: tensor {name!r} is in {self._places[name].file.name} too; fetch them again"
                    )
                self._places[name] = place

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of every tensor."""
        return {name: place.shape for name, place in self._places.items()}

    def tensor(self, name: str) -> NDArray[np.float32]:
        """One tensor, owned by the caller. Raises ModelError for a value that is not finite, or a file that was
        truncated since."""
        values = np.empty(prod(self._places[name].shape), np.float32)
        start = 0
        for piece in self.pieces(name):
            values[start : start + piece.size] = piece
            start += piece.size
        return values.reshape(self._places[name].shape)

    def pieces(self, name: str) -> Iterator[NDArray[np.float32]]:
        """A tensor's values in order, in pieces. Raises as `tensor` does."""
        place = self._places[name]
        kind, left = np.dtype(_TYPES[place.type]), prod(place.shape)
        try:
            with place.file.open("rb") as stream:
                stream.seek(place.offset)
                while left:
                    raw = np.empty(min(left, _PIECE), kind)
                    if stream.readinto(raw.view(np.uint8)) != raw.nbytes:  # type: ignore[arg-type]
                        raise ModelError(f"{place.file}: ends inside tensor {name!r}; fetch it again")
                    yield _finite(raw, place, name)
                    left -= raw.size
        except OSError as error:
            raise ModelError(f"{place.file}: cannot be read: {error.strerror}") from None


def _finite(raw: NDArray[Any], place: _Place, name: str) -> NDArray[np.float32]:
    if place.type == "BF16":  # a bfloat16 is the upper half of a float32
        values = (raw.astype(np.uint32) << 16).view(np.float32)
    else:
        values = raw.astype(np.float32, copy=False)
    if not np.isfinite(values).all():
        raise ModelError(f"{place.file}: tensor {name!r} holds NaN or infinity; its training diverged")
    return values


def _header(file: Path) -> dict[str, _Place]:
    """The tensors of a file; their byte ranges are checked against its size and against each other."""
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 2 <= length <= min(size - 8, _LONGEST_HEADER):
                message = f"damaged safetensors header ({length} bytes in a file of {size})"
                raise ModelError(f"{file}: {message}; fetch it again")
            rows = json.loads(stream.read(length))
        rows.pop("__metadata__", None)
        places = {name: _place(file, row, 8 + length, size, name) for name, row in rows.items()}
    except OSError as error:
        raise ModelError(f"{file}: cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ModelError(f"{file}: damaged safetensors header; fetch it again") from None
    end = 0
    for name, place in sorted(places.items(), key=lambda item: item[1].offset):
        if place.offset < end:
            raise ModelError(f"{file}: tensor {name!r} shares its bytes with another; fetch it again")
        end = place.offset + prod(place.shape) * np.dtype(_TYPES[place.type]).itemsize
    return places


def _place(file: Path, row: dict[str, Any], data: int, size: int, name: str) -> _Place:
    kind, shape, (start, end) = row["dtype"], tuple(row["shape"]), row["data_offsets"]
    if any(type(number) is not int for number in (*shape, start, end)):
        raise TypeError(shape)
    if kind not in _TYPES:
        raise ModelError(f"{file}: tensor {name!r} has type {kind}; only {', '.join(_TYPES)} can be converted")
    if min(shape, default=1) < 0 or start < 0 or end - start != prod(shape) * np.dtype(_TYPES[kind]).itemsize:
        raise ModelError(f"{file}: tensor {name!r} has shape {shape} but bytes {start} to {end}; fetch it again")
    if data + end > size:
        raise ModelError(f"{file}: ends inside tensor {name!r}; fetch it again")
    return _Place(file, kind, shape, data + start)


def write(path: Path, shapes: Shapes, tensor: Callable[[str], NDArray[np.float32]]) -> None:
    """Write the tensors of `shapes` as float32, calling `tensor` for one after the other."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}  # transformers requires it
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + 4 * prod(shape)
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that the values are aligned
    with path.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for name, shape in shapes.items():
            values = np.asarray(tensor(name), "<f4", order="C")
            if values.shape != shape:
                raise ModelError(
                    f"{path}: tensor {name!r} of shape {shape} came as {values.shape}; this is a bug, please report it"
                )
            stream.write(values.data)
            del values  # before the next one is made
