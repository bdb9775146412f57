"""The beginning of a stream, which file formats inspect to recognize it without consuming it."""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterator
from itertools import dropwhile
from typing import BinaryIO

__all__ = ["HEAD_BYTES", "LINE_BYTES", "Head"]

HEAD_BYTES = 8192
LINE_BYTES = 1 << 20  # a longer first line is inspected only up to here
_EMPTY_OBJECT = re.compile(rb"\s*\{\s*\}\s*")


class Head:
    """The beginning of a stream, read only as far as asked for: the writer of a pipe may be waiting for an answer.

    Each method starts at the beginning, whatever was read before. `stream` then returns the whole stream.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._start = stream.tell() if stream.seekable() else None
        self._ended = False
        self._split = 0  # bytes of `data` whose lines are known
        self._lines: list[bytes] = []
        self.data = b""

    @property
    def waits(self) -> bool:
        """Whether more data may arrive only after an answer, as from a pipe."""
        return self._start is None

    def lines(self) -> Iterator[bytes]:
        """The lines without their ends (a lone CR is one), without blank lines and any `{}` before the first record."""
        return dropwhile(_EMPTY_OBJECT.fullmatch, self._all_lines())

    def begin(self) -> None:
        """Read to the end of the first non-blank line."""
        next(self._all_lines(), None)

    def _all_lines(self) -> Iterator[bytes]:
        at = 0
        while at < len(self._lines) or self._read_line():
            if at < len(self._lines):
                yield self._lines[at]
                at += 1

    def _read_line(self) -> bool:
        """Read to the end of one more line, blank or not; False at the end of the stream or of what is inspected."""
        end = self.data.find(b"\n", self._split) + 1
        if not end and len(self.data) < LINE_BYTES and not self._ended:
            more = self._stream.readline(LINE_BYTES)
            self._ended = not more
            self.data += more
        raw = self.data[self._split : end or len(self.data)]
        line = raw if self._split else raw.removeprefix(codecs.BOM_UTF8)
        self._split += len(raw)
        self._lines += [part for part in re.split(rb"[\r\n]+", line) if part.strip()]
        return bool(raw)

    def first_bytes(self) -> bytes:
        """The first 8 KiB, or the whole stream if it is shorter."""
        while len(self.data) < HEAD_BYTES and not self._ended:
            more = self._stream.read(HEAD_BYTES - len(self.data))
            self.data += more
            self._ended = not more
        return self.data[:HEAD_BYTES]

    def blocks(self) -> Iterator[bytes]:
        """The first MiB of the stream, or all of it if it is shorter, block by block."""
        yield self.data
        while len(self.data) < LINE_BYTES and not self._ended:
            more = self._stream.read(HEAD_BYTES)
            self.data += more
            self._ended = not more
            yield more

    def stream(self) -> BinaryIO:
        """The stream from its beginning."""
        if self._start is not None:
            self._stream.seek(self._start)
            return self._stream
        return io.BufferedReader(_Replay(self.data, self._stream), LINE_BYTES >> 4)


class _Replay(io.RawIOBase):
    """A stream of the data already read, followed by the rest as it arrives."""

    def __init__(self, data: bytes, rest: BinaryIO) -> None:
        self._data = memoryview(data)
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        part = self._data[: len(buffer)] or self._rest.read1(len(buffer))  # type: ignore[attr-defined]
        self._data = self._data[len(part) :]
        buffer[: len(part)] = part
        return len(part)
