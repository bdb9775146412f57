"""JSON Lines: a document per line, `{"id": …, "text": …, "entities": [{"start", "end", "label", "text", …}, …]}`.

The keys are those of GLiNER and Prodigy; the keys of other tools are read too (`rows`).
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO

from bioner_edge.document import Document, entity_json
from bioner_edge.errors import InputError
from bioner_edge.io.contract import FileFormat, Source, Writer, WriteSettings
from bioner_edge.io.head import LINE_BYTES, Head
from bioner_edge.io.notice import Notice, NoticeHandler, lines
from bioner_edge.io.rows import KEYS, annotation_keys, annotation_rows, entities_of, is_integer, is_task
from bioner_edge.text.surrogates import surrogate_error

if TYPE_CHECKING:
    from bioner_edge.extraction import Extraction

__all__ = ["FILE_FORMAT", "read", "refuse_unannotated", "write"]

_NOT_ACCEPTED = ("reject", "ignore")
_MAX_KEYS = 12  # that a message names
_FIRST_KEY = re.compile(rb'\s*\{\s*"[^"\n]*"\s*:')


def _recognize(head: Head) -> bool:
    """Whether a stream begins with a JSON object; if its first line is broken, the second decides."""
    lines = head.lines()
    first = next(lines, b"")
    return _is_json(first) and (_is_record(first) or _is_record(next(lines, b"")))  # a bad line is reported later


def _is_json(line: bytes) -> bool:
    """Whether a line is a JSON array or object, or begins like an object: a record, perhaps a broken one."""
    if _FIRST_KEY.match(line):
        return True
    try:
        return line.lstrip()[:1] in (b"[", b"{") and json.loads(line) is not None
    except (ValueError, RecursionError):
        return False


def _is_record(line: bytes) -> bool:
    """Whether a line is a JSON object, or the beginning of one too long to be inspected whole."""
    if not _FIRST_KEY.match(line):
        return False
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return len(line) >= LINE_BYTES - len(codecs.BOM_UTF8)


def read(source: Source, report: NoticeHandler) -> Iterator[Document]:
    """Read the documents of a JSON Lines stream, one at a time; unusable lines go to `report` with their numbers.

    Raises InputError at the end if the source should be `annotated` and no document has annotations.
    """
    name = source.name
    keys, answers = _Keys(), _Answers()
    for number, line in lines(source.stream, name, report):
        if not line.strip():
            continue
        try:
            record = _parse(line)
            document = _document(record, f"{name}:{number}", partial(_complain, report, name, number))
        except ValueError as error:
            report(Notice(name, number, str(error), text_lost=True))
        else:
            keys.add(record)
            answers.add(record, number)
            yield document
    if source.annotated:
        keys.check(name)
    if remark := answers.remark():
        report(Notice(name, None, remark, remark=True))


def refuse_unannotated(stream: BinaryIO, name: str) -> None:
    """Raise InputError if no document of a stream has annotations; reads until one has."""
    keys = _Keys()
    for _, line in lines(stream, name, lambda notice: None):
        try:
            record = _parse(line)
            _text(record)
        except ValueError:
            continue
        keys.add(record)
        if keys.known:
            return
    keys.check(name)


class _Keys:
    """The keys of the documents so far, and whether any of them holds annotations."""

    def __init__(self) -> None:
        self._seen: dict[str, None] = {}
        self.known = False

    def add(self, record: dict[str, Any]) -> None:
        self.known = self.known or bool(annotation_keys(record)) or is_task(record)
        if not self.known:
            self._seen |= dict.fromkeys(record)

    def check(self, name: str) -> None:
        if self._seen and not self.known:
            message = f"no document has annotations under a key that is read ({', '.join(KEYS)})"
            raise InputError(f"{name}: {message}; the keys are {_list_keys(self._seen)}")


class _Answers:
    """The documents whose annotations were rejected or ignored by the annotator, as Prodigy records it."""

    def __init__(self) -> None:
        self._lines: list[int] = []

    def add(self, record: dict[str, Any], number: int) -> None:
        if record.get("answer") in _NOT_ACCEPTED and annotation_rows(record):
            self._lines.append(number)

    def remark(self) -> str | None:
        if not self._lines:
            return None
        message = (
            f'{len(self._lines)} of the lines have "answer": "reject" or "ignore", the first is line {self._lines[0]}'
        )
        return f"{message}; their annotations are read all the same: remove the lines that should not count"


def _list_keys(keys: Collection[str]) -> str:
    return ", ".join([*map(json.dumps, list(keys)[:_MAX_KEYS]), *(["…"] if len(keys) > _MAX_KEYS else [])])


def _complain(report: NoticeHandler, name: str, number: int, message: str) -> None:
    report(Notice(name, number, message))


def _parse(line: str) -> Any:
    """The value of one line. Raises ValueError if it is not JSON or cannot be a document."""
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise ValueError("not a document: brackets nested too deep") from None
    except ValueError:  # Python's limit on the digits of an integer
        raise ValueError("not a document: a number of thousands of digits") from None


def _text(record: Any) -> str:
    """The text of a record. Raises ValueError if it has none."""
    if isinstance(record, dict):
        data = record.get("data")
        inner = data.get("text") if isinstance(data, dict) else data
        text = record.get("text", inner)
        if isinstance(text, str):
            return text
        if record and "text" not in record:
            raise ValueError(f'a line must be an object with a "text"; this one has {_list_keys(record)}')
    raise ValueError('a line must be an object with a "text"')


def _document(record: Any, default_id: str, complain: Callable[[str], None]) -> Document:
    """One record as a Document. Raises ValueError if it has no readable text."""
    text = _text(record)
    if reason := surrogate_error(text):
        raise ValueError(reason)
    entities = []
    for index, row in enumerate(annotation_rows(record, complain)):
        try:
            entities += entities_of(row, text)
        except ValueError as error:
            complain(f"entity {index}: {error}")
    title_end = record.get("title_end")
    if title_end is not None and not (is_integer(title_end) and 0 <= title_end <= len(text)):
        complain(f'"title_end" must be an offset in the text of {len(text)} characters')
        title_end = None
    return Document(_identifier(record.get("id"), default_id, complain), text, tuple(entities), title_end)


def _identifier(value: Any, default: str, complain: Callable[[str], None]) -> str:
    """The record's id, or its file and line if it has none."""
    if value is None:
        return default
    if is_integer(value) or (isinstance(value, str) and not surrogate_error(value)):
        return str(value)
    complain(f'"id" must be a string or an integer; {default} is used instead')
    return default


def write(document: Document, stream: TextIO) -> None:
    """Write one document as one line."""
    stream.write(_line(document.to_json()))


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"


def _make_writer(settings: WriteSettings) -> Writer:
    def render(extraction: Extraction) -> bytes:
        record, document = extraction.to_json(), extraction.document
        if settings.with_gold:
            record["gold"] = [entity_json(entity, document.text) for entity in document.entities]
        return _line(record).encode()

    return Writer(render)


FILE_FORMAT = FileFormat(
    name="jsonl",
    title="JSON Lines",
    suffixes=(".jsonl", ".ndjson"),
    read=read,
    recognize=_recognize,
    refuse_unannotated=refuse_unannotated,
    writer=_make_writer,
    holds_gold=True,
)
