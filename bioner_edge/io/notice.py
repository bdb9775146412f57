"""Notices about lines that a reader could not use, and the reading of lines: nothing is dropped silently."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

__all__ = ["Notice", "NoticeHandler", "annotation_lines", "decode_message", "lines"]


@dataclass(frozen=True, slots=True)
class Notice:
    """A row that was not used. `text_lost` means that text, not only an annotation, will be missing from the output.

    A `remark` is no loss: it says how something was read. `row` is the raw line, for callers that interpret it; no
    message shows it.
    """

    file: str
    line: int | None
    message: str
    text_lost: bool = False
    remark: bool = False
    row: str = field(default="", repr=False, compare=False)

    def __str__(self) -> str:
        where = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{where}: {self.message}"


NoticeHandler = Callable[[Notice], None]


def lines(
    stream: BinaryIO, name: str, report: NoticeHandler, row: re.Pattern[str] | None = None
) -> Iterator[tuple[int, str]]:
    """(line number from 1, line without its end) of a UTF-8 stream, split on LF alone.

    A CR before the LF and a BOM at the start of the stream are cut. A line that is not UTF-8 is reported and left out.
    A CR also ends a line if it is followed by a `row` of the file format: old files have no other line ends.
    """
    ended_by_cr = 0
    for at, raw in enumerate(stream, start=1):
        number = at + ended_by_cr
        try:
            line = raw.decode("utf-8-sig" if at == 1 else "utf-8")
        except UnicodeDecodeError as error:
            row_read = raw.decode("utf-8", "replace").rstrip("\r\n")
            report(Notice(name, number, decode_message(error), text_lost=True, row=row_read))
            continue
        line = line.rstrip("\n").removesuffix("\r")
        ends = [found.start() for found in re.finditer("\r", line) if row and row.match(line, found.end())]
        ended_by_cr += len(ends)
        for n, (start, end) in enumerate(pairwise([-1, *ends, len(line)])):
            yield number + n, line[start + 1 : end]


def annotation_lines(
    path: Path, name: str, report: NoticeHandler, row: re.Pattern[str] | None = None
) -> Iterator[tuple[int, str]]:
    """`lines` of a file with annotations only: its unreadable lines are reported, but not as lost text."""

    def report_kept(notice: Notice) -> None:
        report(replace(notice, text_lost=False))

    try:
        with path.open("rb") as stream:
            yield from lines(stream, name, report_kept, row)
    except OSError as error:
        report_kept(Notice(name, None, f"cannot be read: {error.strerror}"))


def decode_message(error: UnicodeDecodeError) -> str:
    return f"not UTF-8: byte 0x{error.object[error.start]:02x} at byte offset {error.start}; convert the file to UTF-8"
