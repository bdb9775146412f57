"""Check the structure of a GGUF file in pure Python, before native code reads it.

llama.cpp's reader has had memory errors on crafted files, and aborts the process on an unexpected type. So every count,
length, type and offset of the header is first checked against the file's size here; a mismatch is a ModelError that
names the file, the byte and the reason. Arrays are walked but not built, except for the vocabulary's strings while they
are checked.

    magic | version | tensor count | key count | key, type, value … | name, shape, type, offset … | padding | data
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, NoReturn

from bioner_edge.errors import ModelError

__all__ = ["BLOCKS", "Array", "Header", "Tensor", "check", "read"]

# Tensor types of ggml.h: number -> (name, weights in a block, bytes of a block).
BLOCKS: dict[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 40),
    10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292), 16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136), 24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4),
    27: ("I64", 1, 8), 28: ("F64", 1, 8), 29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17), 40: ("NVFP4", 64, 36),
    41: ("Q1_0", 128, 18),
}  # fmt: skip
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_U32, _I32, _F32, _STRING, _ARRAY = 4, 5, 6, 8, 9
_TYPES = {0: "u8", 1: "i8", 2: "u16", 3: "i16", 4: "u32", 5: "i32", 6: "f32", 7: "bool", 8: "string", 9: "array"}
_TYPES |= {10: "u64", 11: "i64", 12: "f64"}

# Keys that llama.cpp reads without checking their type, and arrays that it indexes by token id.
_STRINGS = frozenset({"general.architecture", "tokenizer.ggml.model", "tokenizer.ggml.pre"})
_ARRAYS = {
    "tokenizer.ggml.tokens": _STRING,
    "tokenizer.ggml.merges": _STRING,
    "tokenizer.ggml.scores": _F32,
    "tokenizer.ggml.token_type": _I32,
}
_BY_TOKEN = ("tokenizer.ggml.scores", "tokenizer.ggml.token_type")
_MAX_LAYERS, _MAX_WORDS = 512, 1 << 22  # LLAMA_MAX_LAYERS; beyond any vocabulary, but cheap in memory
_MAX_KEY, _MAX_NAME, _MAX_STRING = 65535, 63, 1 << 20  # bytes; 63 is GGML_MAX_NAME without its final zero


@dataclass(frozen=True, slots=True)
class Array:
    """The element type and length of a metadata array, which is walked but not kept."""

    type: str
    length: int


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor: `shape` in ggml's order (the row length first), `bytes` in the file."""

    name: str
    type: str
    shape: tuple[int, ...]
    bytes: int

    @property
    def weights(self) -> int:
        return prod(self.shape)


@dataclass(frozen=True, slots=True)
class Header:
    """A file's metadata, in which arrays are an `Array`, and its tensors."""

    metadata: dict[str, Any]
    tensors: tuple[Tensor, ...]


def check(path: Path) -> dict[str, Any]:
    """The metadata of a valid file. Raises ModelError for a file that is damaged or not GGUF."""
    return read(path).metadata


def read(path: Path) -> Header:
    """Metadata and tensors of a valid file. Raises ModelError for a file that is damaged or not GGUF."""
    try:
        with path.open("rb") as stream:
            if not stream.seek(0, 2):
                raise ModelError(f"{path}: empty, not a GGUF file; fetch or convert it again")
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _Reader(path, data).header()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from None


class _Reader:
    """A position in the file; every step is checked against its end."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path, self.data, self.size, self.at = path, data, len(data), 0

    def fail(self, what: str, at: int | None = None) -> NoReturn:
        where = self.at if at is None else at
        raise ModelError(f"{self.path}: damaged GGUF at byte {where}: {what}; fetch or convert it again")

    def need(self, count: int, what: str) -> None:
        if count > self.size - self.at:
            self.fail(f"{what} needs {count} bytes, the file has {self.size - self.at} left")

    def scalar(self, code: str, what: str) -> Any:
        width = struct.calcsize("<" + code)
        self.need(width, what)
        (value,) = struct.unpack_from("<" + code, self.data, self.at)
        self.at += width
        return value

    def string(self, longest: int, what: str) -> str:
        length = self.scalar("Q", f"the length of {what}")
        if length > longest:
            self.fail(f"{what} claims {length} bytes, more than {longest}", self.at - 8)
        self.need(length, what)
        self.at += length
        return self.data[self.at - length : self.at].decode("utf-8", errors="replace")

    def header(self) -> Header:
        if self.data[:4] != b"GGUF":
            raise ModelError(f"{self.path}: not a GGUF file (it does not start with 'GGUF'); convert the model first")
        self.at = 4
        version = self.scalar("I", "the version")
        if version not in (2, 3):
            self.fail(f"version {version}, only 2 and 3 (little-endian) can be read", 4)
        tensors, keys = self.scalar("Q", "the tensor count"), self.scalar("Q", "the key count")
        self.need(tensors * 24 + keys * 13, f"a header of {tensors} tensors and {keys} keys")  # their minimal size
        metadata = self.metadata(keys)
        return Header(metadata, self.tensors(tensors, metadata.get("general.alignment", 32)))

    def metadata(self, count: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for _ in range(count):
            start = self.at
            key = self.string(_MAX_KEY, "a key")
            if key in found:
                self.fail(f"key {key!r} twice", start)
            found[key] = self.value(key)
        if not isinstance(found.get("general.architecture"), str):
            self.fail("no general.architecture")
        if found.get("split.count", 1) not in (0, 1):
            self.fail("one part of a split model; join the parts first")
        layers = found.get(f"{found['general.architecture']}.block_count", 1)
        if not isinstance(layers, int) or not 1 <= layers <= _MAX_LAYERS:
            self.fail(f"block_count {layers}, not a number from 1 to {_MAX_LAYERS}")
        for key, value in found.items():
            if key.endswith("_epsilon") and not (isinstance(value, float) and 0 <= value < 1):
                self.fail(f"{key} is {value}, not a small positive number")
        tokens = found.get("tokenizer.ggml.tokens")
        for key in _BY_TOKEN:
            if key in found and (tokens is None or found[key].length != tokens.length):
                self.fail(f"{key} has {found[key].length} elements for {tokens.length if tokens else 0} tokens")
        return found

    def value(self, key: str) -> Any:
        start = self.at
        kind = self.scalar("I", f"the type of {key!r}")
        if key in _STRINGS and kind != _STRING:
            self.fail(f"{key!r} must be a string, its type is {_TYPES.get(kind, kind)}", start)
        if key in _ARRAYS and kind != _ARRAY:
            self.fail(f"{key!r} must be an array, its type is {_TYPES.get(kind, kind)}", start)
        if key == "general.alignment":
            return self.alignment(kind)
        if kind == _STRING:
            return self.string(_MAX_STRING, f"the value of {key!r}")
        if kind == _ARRAY:
            return self.array(key)
        if kind not in _SCALARS:
            self.fail(f"unknown type {kind} of {key!r}", start)
        return self.scalar(_SCALARS[kind], f"the value of {key!r}")

    def alignment(self, kind: int) -> int:
        value = int(self.scalar("I", "the alignment"))
        if kind != _U32 or value < 1 or value & (value - 1):
            self.fail("general.alignment must be a u32 and a power of two", self.at - 4)
        return value

    def array(self, key: str) -> Array:
        start = self.at
        kind, count = self.scalar("I", f"the type of {key!r}"), self.scalar("Q", f"the length of {key!r}")
        if kind != _ARRAYS.get(key, kind):
            self.fail(f"{key!r} must hold {_TYPES[_ARRAYS[key]]}, not {_TYPES.get(kind, kind)}", start)
        if kind == _STRING:
            self.need(count * 8, f"{key!r} of {count} strings")
            if key in _ARRAYS and count > _MAX_WORDS:
                self.fail(f"{key!r} of {count} strings, more than {_MAX_WORDS}", start)
            self.words(self.skip_strings(count, key), key)
        elif kind in _SCALARS:
            width = count * struct.calcsize("<" + _SCALARS[kind])
            self.need(width, f"{key!r} of {count} values")
            self.at += width
        else:
            self.fail(f"{key!r} is an array of {_TYPES.get(kind, f'type {kind}')}, which no model uses", start)
        return Array(_TYPES[kind], count)

    def skip_strings(self, count: int, key: str) -> list[bytes]:
        """Skip `count` strings and return those of the vocabulary. The loop has no bounds check: a read past the end
        stops it, and so does a length that leads there, at the next read."""
        length, data, at = struct.Struct("<Q").unpack_from, self.data, self.at
        kept: list[bytes] = []
        keep = kept.append if key in _ARRAYS else None
        try:
            for _ in range(count):
                start = at + 8
                at = start + length(data, at)[0]
                if keep:
                    keep(data[start:at])
        except (struct.error, OverflowError, IndexError):
            at = self.size + 1
        if at > self.size:
            self.fail(f"the strings of {key!r} run past the end of the file")
        self.at = at
        return kept

    def words(self, words: list[bytes], key: str) -> None:
        """Refuse strings on which llama.cpp aborts or throws: it expects zero-terminated UTF-8, distinct tokens and
        non-empty merges. (They are decoded joined by line feeds, so that a truncated character stays invalid.)"""
        text = b"\n".join(words)
        try:
            text.decode()
        except UnicodeDecodeError:
            self.fail(f"a string of {key!r} is not UTF-8")
        if b"\0" in text:
            self.fail(f"a string of {key!r} holds a zero byte")
        if key.endswith("tokens") and len(set(words)) < len(words):
            self.fail(f"a string of {key!r} is duplicated")
        if key.endswith("merges") and b"" in words:
            self.fail(f"a string of {key!r} is empty")

    def tensors(self, count: int, alignment: int) -> tuple[Tensor, ...]:
        found: dict[str, Tensor] = {}
        expected = 0
        for _ in range(count):
            start = self.at
            tensor, offset = self.tensor()
            if tensor.name in found:
                self.fail(f"tensor {tensor.name!r} twice", start)
            if offset != expected:
                self.fail(f"tensor {tensor.name!r} has its data at {offset}, it must be at {expected}", start)
            found[tensor.name] = tensor
            expected += -(-tensor.bytes // alignment) * alignment
        self.at = -(-self.at // alignment) * alignment
        if found:  # the last tensor's padding may be missing
            last = next(reversed(found.values()))
            self.need(expected - (-last.bytes % alignment), "the tensors' data")
        return tuple(found.values())

    def tensor(self) -> tuple[Tensor, int]:
        """The next tensor and the offset of its data, in bytes from the start of the data section."""
        start = self.at
        name = self.string(_MAX_NAME, "a tensor's name")
        dimensions = self.scalar("I", f"the dimensions of {name!r}")
        if not 1 <= dimensions <= 4:
            self.fail(f"tensor {name!r} has {dimensions} dimensions", start)
        shape = tuple(self.scalar("Q", f"the shape of {name!r}") for _ in range(dimensions))
        kind, offset = self.scalar("I", f"the type of {name!r}"), self.scalar("Q", f"the offset of {name!r}")
        if kind not in BLOCKS:
            self.fail(f"tensor {name!r} has the unknown type {kind}", start)
        label, block, width = BLOCKS[kind]
        if 0 in shape or shape[0] % block:
            self.fail(f"tensor {name!r} of shape {shape} cannot be {label} (blocks of {block})", start)
        return Tensor(name, label, shape, prod(shape) // block * width), offset
