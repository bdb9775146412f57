"""JSON Lines: a document a line, `{"id": …, "text": …, "entities": [{"start", "end", "label", "text", …}, …]}`.

The keys are those of GLiNER and Prodigy; `fragments` (pairs of offsets) stands for a discontinuous mention.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, BinaryIO, TextIO

from ..span import Document, Entity, Span
from .notice import Notice, Report, lines, surrogate

__all__ = ["read", "write", "write_record"]


def read(stream: BinaryIO, name: str, report: Report) -> Iterator[Document]:
    """The documents of a JSON Lines stream, one at a time; what cannot be used goes to `report` with its line."""
    for number, line in lines(stream, name, report):
        if not line.strip():
            continue
        try:
            document = _document(_parsed(line), f"{name}:{number}", partial(_complain, report, name, number))
        except ValueError as error:
            report(Notice(name, number, str(error), text_lost=True))
        else:
            yield document


def _complain(report: Report, name: str, number: int, message: str) -> None:
    report(Notice(name, number, message))


def _parsed(line: str) -> Any:
    """The value of one line. Raises ValueError where it is not JSON, or nothing that a document could be."""
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise ValueError("not a document: brackets nested too deep") from None
    except ValueError:  # Python's limit on the digits of an integer
        raise ValueError("not a document: a number of thousands of digits") from None


def _document(record: Any, default_id: str, complain: Callable[[str], None]) -> Document:
    """One record as a Document. Raises ValueError where there is no text to read."""
    if not isinstance(record, dict) or not isinstance(record.get("text"), str):
        raise ValueError('a line must be an object with a "text"')
    text: str = record["text"]
    if reason := surrogate(text):
        raise ValueError(reason)
    rows = record.get("entities")
    if rows is not None and not isinstance(rows, list):
        complain('"entities" must be a list')
        rows = None
    entities = []
    for index, row in enumerate(rows or []):
        try:
            entities.append(_entity(row, text))
        except ValueError as error:
            complain(f"entity {index}: {error}")
    title_end = record.get("title_end")
    if title_end is not None and not (_is_int(title_end) and 0 <= title_end <= len(text)):
        complain(f'"title_end" must be an offset in the text of {len(text)} characters')
        title_end = None
    return Document(_identifier(record.get("id"), default_id, complain), text, tuple(entities), title_end)


def _identifier(value: Any, default: str, complain: Callable[[str], None]) -> str:
    """The record's id, or the file and line where it has none."""
    if value is None:
        return default
    if _is_int(value) or (isinstance(value, str) and not surrogate(value)):
        return str(value)
    complain(f'"id" must be a string or an integer; {default} stands for it')
    return default


def _entity(row: Any, text: str) -> Entity:
    """One annotation. Raises ValueError, with what is wrong, where it does not fit the text."""
    if not isinstance(row, dict) or not {"start", "end", "label"} <= row.keys():
        raise ValueError('needs "start", "end" and "label"')
    label, start, end = row["label"], row["start"], row["end"]
    if not isinstance(label, str) or not label or surrogate(label):
        raise ValueError('"label" must be a string, and not empty')
    pairs = row.get("fragments") or [[start, end]]
    if not isinstance(pairs, list) or not all(map(_is_pair, pairs)):
        raise ValueError("offsets must be integers, fragments pairs of them")
    if min(pair[0] for pair in pairs) < 0 or max(pair[1] for pair in pairs) > len(text):
        raise ValueError(f"an offset is outside the text of {len(text)} characters")
    entity = Entity(label, tuple(Span(a, b) for a, b in pairs), _share(row, "score"), _share(row, "removed_mass"))
    if (start, end) != (entity.start, entity.end):
        raise ValueError(f'"start" and "end" are not those of the fragments, [{entity.start}, {entity.end})')
    if row.get("text", entity.mention(text)) != entity.mention(text):
        raise ValueError(f"the mention does not match the text at [{start}, {end})")
    return entity


def _share(row: dict[str, Any], key: str) -> float | None:
    value = row.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f'"{key}" must lie in [0, 1]')
    return float(value)


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_int, value))


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def write(document: Document, stream: TextIO) -> None:
    """Write one document as one line."""
    write_record(document.to_json(), stream)


def write_record(record: dict[str, Any], stream: TextIO) -> None:
    """Write one JSON object as one line."""
    stream.write(json.dumps(record, ensure_ascii=False) + "\n")
