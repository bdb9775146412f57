"""Append JSON objects to a file, one per line, so that a process killed at any moment loses at most the last one."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from io import FileIO
from pathlib import Path
from typing import Any

from bioner_edge.errors import InputError

__all__ = ["append", "cut_broken_line", "lines", "write"]

_BLOCK = 1 << 16  # bytes


def lines(path: Path) -> Iterator[tuple[int, Any]]:
    """(line number from 1, value) of each complete line; nothing for a missing file.

    An incomplete last line is left out; `cut_broken_line` cuts it. Raises InputError for a line that is not JSON.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    for number, raw in enumerate(data.split(b"\n")[:-1], start=1):
        try:
            yield number, json.loads(raw)
        except (ValueError, RecursionError):
            raise InputError(f"{path}:{number}: not a line of JSON") from None


def cut_broken_line(stream: FileIO) -> None:
    """Cut what follows the last line break of a file open for reading and writing, and seek to its end."""
    end = stream.seek(0, os.SEEK_END)
    whole = 0
    for at in range((end - 1) // _BLOCK * _BLOCK, -1, -_BLOCK):
        stream.seek(at)
        if (found := (stream.read(_BLOCK) or b"").rfind(b"\n")) >= 0:
            whole = at + found + 1
            break
    stream.seek(whole)
    if whole < end:
        stream.truncate()


def append(stream: FileIO, line: Mapping[str, Any]) -> None:
    """Add a line to a file opened without a buffer, so that other processes see it at once."""
    write(stream, json.dumps(line, ensure_ascii=False, allow_nan=False).encode() + b"\n")


def write(stream: FileIO, data: bytes) -> None:
    """Write all of `data` to a file opened without a buffer: buffered data would fail again on closing."""
    rest = memoryview(data)
    try:
        while rest:
            rest = rest[stream.write(rest) or 0 :]
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(stream.name)) from None  # the system's names no file
