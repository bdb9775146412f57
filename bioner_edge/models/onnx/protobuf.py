"""Read the protobuf wire format in pure Python from a mapped file, without a schema or copies of the data.

A message is a series of fields, each a tag (field number and wire type) and a value; its length is given only before
it. See https://protobuf.dev/programming-guides/encoding. Every length is checked against the enclosing message, and the
depth and number of fields are limited, so that a crafted file costs seconds at most. Ambiguous encodings are refused:
groups, which no current writer uses, and a message in two pieces, which the library would merge.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from bioner_edge.errors import ModelError

__all__ = ["ByteRange", "File", "Message"]

ByteRange = tuple[int, int]
"""The position of a value's bytes in the file, half-open."""

_VARINT, _BYTES = 0, 2
_FIXED = {1: 8, 5: 4}  # bytes
_MAX_DEPTH = 64  # nested messages; the library's limit is 100
_MAX_NAME, _MAX_MESSAGE = 65535, 300  # bytes of a name, characters of an error message
_MAX_FIELDS = 1_000_000  # in a file: three seconds; optimum writes 3,000 per layer, others fewer


class File:
    """A mapped file of one message; malformed data are reported as damage of `kind` at a byte of `path`."""

    def __init__(self, path: Path, data: mmap.mmap, kind: str) -> None:
        self.path, self.data, self.kind, self.fields = path, data, kind, 0

    def message(self) -> Message:
        """The whole file as a message. Raises ModelError if it is not one."""
        return Message(self, (0, len(self.data)), "the file", 0)

    def fail(self, what: str, at: int) -> NoReturn:
        what = what if len(what) <= _MAX_MESSAGE else what[:_MAX_MESSAGE] + "…"
        raise ModelError(f"{self.path}: damaged {self.kind} at byte {at}: {what}; fetch or convert it again")

    def varint(self, at: int, end: int) -> tuple[int, int]:
        """(an unsigned number of at most 64 bits, the offset of the next value)."""
        value = shift = 0
        start = at
        while at < end and shift < 70:
            byte: int = self.data[at]
            at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value & 0xFFFFFFFFFFFFFFFF, at
            shift += 7
        self.fail("a number of more than 10 bytes" if shift >= 70 else "a number is cut off", start)

    def count(self, at: int) -> None:
        self.fields += 1
        if self.fields > _MAX_FIELDS:
            self.fail(f"more than {_MAX_FIELDS} fields", at)

    def split(self, span: ByteRange, what: str) -> Iterator[tuple[int, int | ByteRange]]:
        """The fields of a message: (field number, an integer or a byte range). Floats are skipped."""
        at, end = span
        while at < end:
            start = at
            self.count(start)
            tag, at = self.varint(at, end)
            number, wire = tag >> 3, tag & 7
            if not 0 < number < 1 << 29:
                self.fail(f"{what} has the invalid field number {number}", start)
            if wire == _VARINT:
                value, at = self.varint(at, end)
                yield number, value
                continue
            if wire == _BYTES:
                size, at = self.varint(at, end)
            elif wire in _FIXED:
                size = _FIXED[wire]
            else:
                self.fail(f"{what} has a field of the unknown wire type {wire}", start)
            if size > end - at:
                self.fail(f"a field of {what} needs {size} bytes, {end - at} are left", start)
            if wire == _BYTES:
                yield number, (at, at + size)
            at += size


class Message:
    """The fields of one message by number; unknown ones are ignored. `name` is for errors."""

    __slots__ = ("_depth", "_fields", "file", "name", "span")

    def __init__(self, file: File, span: ByteRange, name: str, depth: int) -> None:
        if depth > _MAX_DEPTH:
            file.fail(f"more than {_MAX_DEPTH} nested messages", span[0])
        self.file, self.span, self.name, self._depth = file, span, name, depth
        self._fields: dict[int, list[int | ByteRange]] = {}
        for number, value in file.split(span, name):
            self._fields.setdefault(number, []).append(value)

    def fail(self, what: str) -> NoReturn:
        self.file.fail(what, self.span[0])

    def spans(self, number: int) -> list[ByteRange]:
        """The byte ranges of a field of strings or messages; values of another wire type are ignored."""
        return [value for value in self._fields.get(number, ()) if isinstance(value, tuple)]

    def messages(self, number: int, name: str) -> Iterator[Message]:
        """The messages of a field, read one by one."""
        for span in self.spans(number):
            yield Message(self.file, span, name, self._depth + 1)

    def message(self, number: int, name: str) -> Message | None:
        """The only message of a field, or None."""
        spans = self.spans(number)
        if len(spans) > 1:
            self.file.fail(f"{self.name} has {name} in {len(spans)} pieces", spans[1][0])
        return Message(self.file, spans[0], name, self._depth + 1) if spans else None

    def texts(self, number: int) -> list[str]:
        """The strings of a field; bytes that are not UTF-8 become U+FFFD."""
        found = []
        for start, end in self.spans(number):
            if end - start > _MAX_NAME:
                self.file.fail(f"a name in {self.name} of {end - start} bytes, more than {_MAX_NAME}", start)
            found.append(self.file.data[start:end].decode("utf-8", errors="replace"))
        return found

    def text(self, number: int) -> str:
        """The string of a field, or "". Of several, the last counts, as protobuf specifies."""
        texts = self.texts(number)
        return texts[-1] if texts else ""

    def integers(self, number: int) -> list[int]:
        """The signed integers of a field, packed or not."""
        found: list[int] = []
        for value in self._fields.get(number, ()):
            if isinstance(value, int):
                found.append(_signed(value))
                continue
            at, end = value
            while at < end:
                self.file.count(at)
                one, at = self.file.varint(at, end)
                found.append(_signed(one))
        return found

    def integer(self, number: int, default: int = 0) -> int:
        """The signed integer of a field; of several, the last counts."""
        values = [value for value in self._fields.get(number, ()) if isinstance(value, int)]
        return _signed(values[-1]) if values else default


def _signed(value: int) -> int:
    """Interpret 64 bits as two's complement."""
    return value - (1 << 64) if value >= 1 << 63 else value
