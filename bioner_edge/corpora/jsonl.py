"""JSON Lines: a document a line, `{"id": …, "text": …, "entities": [{"start", "end", "label", "text", …}, …]}`.

The keys are those of GLiNER and Prodigy; `fragments` (pairs of offsets) stands for a discontinuous mention. What other
tools write with half-open offsets of characters is read too:

    entities    GLiNER, spaCy's training data ([[0, 8, "Chemical"]]), doccano with relations (start_offset, end_offset),
                Flair's Sentence.to_dict (start_pos, end_pos)
    spans       Prodigy; what its annotator answered is told, and the spans are read as they stand
    ents        spaCy's Doc.to_json
    label       doccano ([[0, 8, "Chemical"]], its text perhaps under `data`), Label Studio's JSON_MIN; `labels` too
    denotations PubAnnotation ({"span": {"begin": 0, "end": 8}, "obj": "Chemical"})
    annotations whoever calls them so; of a task of Label Studio, whose text is under `data`, the first's `result`

Offsets of tokens, or of last characters, are not read. Where a row has its mention, that must be the text there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import Any, BinaryIO, TextIO

from ..errors import InputError
from ..span import Document, Entity, Span
from .notice import Notice, Report, lines, surrogate

__all__ = ["annotation_rows", "labels_of", "read", "refuse_unannotated", "write", "write_record"]

_ROWS = ("entities", "spans", "ents", "label", "labels", "annotations", "denotations")
_MAY_BE_OTHER = ("label", "labels", "annotations")  # of a text as a whole, strings
_START = ("start_char", "start_offset", "start_pos", "start", "begin")
_END = ("end_char", "end_offset", "end_pos", "end")
_LABEL = ("label", "labels", "entity_group", "entity_type", "type", "obj")
_NOT_ACCEPTED = ("reject", "ignore")
_MOST_KEYS = 12  # that a message names


def read(stream: BinaryIO, name: str, report: Report, *, annotated: bool = False) -> Iterator[Document]:
    """The documents of a JSON Lines stream, one at a time; what cannot be used goes to `report` with its line.

    Raises InputError at the end where it should be `annotated` and no document has annotations that are read.
    """
    keys, answers = _Keys(), _Answers()
    for number, line in lines(stream, name, report):
        if not line.strip():
            continue
        try:
            record = _parsed(line)
            document = _document(record, f"{name}:{number}", partial(_complain, report, name, number))
        except ValueError as error:
            report(Notice(name, number, str(error), text_lost=True))
        else:
            keys.add(record)
            answers.add(record, number)
            yield document
    if annotated:
        keys.check(name)
    if told := answers.told():
        report(Notice(name, None, told, remark=True))


def refuse_unannotated(stream: BinaryIO, name: str) -> None:
    """Raise InputError where no document of a stream has annotations that are read; reads on until one has."""
    keys = _Keys()
    for _, line in lines(stream, name, lambda notice: None):
        try:
            record = _parsed(line)
            _text(record)
        except ValueError:
            continue
        keys.add(record)
        if keys.known:
            return
    keys.check(name)


class _Keys:
    """The keys of the documents so far, and whether one of them is read for annotations."""

    def __init__(self) -> None:
        self._seen: dict[str, None] = {}
        self.known = False

    def add(self, record: dict[str, Any]) -> None:
        self.known = self.known or bool(_annotation_keys(record)) or _task(record) is not None
        if not self.known:
            self._seen |= dict.fromkeys(record)

    def check(self, name: str) -> None:
        if self._seen and not self.known:
            told = f"no document has annotations under a key that is read ({', '.join(_ROWS)})"
            raise InputError(f"{name}: {told}; the keys are {_listed(self._seen)}")


class _Answers:
    """The documents whose annotator did not accept their annotations, as Prodigy tells."""

    def __init__(self) -> None:
        self._lines: list[int] = []

    def add(self, record: dict[str, Any], number: int) -> None:
        if record.get("answer") in _NOT_ACCEPTED and annotation_rows(record):
            self._lines.append(number)

    def told(self) -> str | None:
        if not self._lines:
            return None
        told = f'"answer" is "reject" or "ignore" in {len(self._lines)} lines, the first of them {self._lines[0]}'
        return f"{told}; their annotations are read as they stand: remove the lines that should not count"


def _listed(keys: Collection[str]) -> str:
    return ", ".join([*map(json.dumps, list(keys)[:_MOST_KEYS]), *(["…"] if len(keys) > _MOST_KEYS else [])])


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


def _text(record: Any) -> str:
    """The text of a record. Raises ValueError where there is none."""
    if isinstance(record, dict):
        data = record.get("data")
        inner = data.get("text") if isinstance(data, dict) else data
        text = record.get("text", inner)
        if isinstance(text, str):
            return text
        if record and "text" not in record:
            raise ValueError(f'a line must be an object with a "text"; this one has {_listed(record)}')
    raise ValueError('a line must be an object with a "text"')


def _document(record: Any, default_id: str, complain: Callable[[str], None]) -> Document:
    """One record as a Document. Raises ValueError where there is no text to read."""
    text = _text(record)
    if reason := surrogate(text):
        raise ValueError(reason)
    entities = []
    for index, row in enumerate(annotation_rows(record, complain)):
        try:
            entities += _entities(row, text)
        except ValueError as error:
            complain(f"entity {index}: {error}")
    title_end = record.get("title_end")
    if title_end is not None and not (_is_int(title_end) and 0 <= title_end <= len(text)):
        complain(f'"title_end" must be an offset in the text of {len(text)} characters')
        title_end = None
    return Document(_identifier(record.get("id"), default_id, complain), text, tuple(entities), title_end)


def annotation_rows(record: dict[str, Any], complain: Callable[[str], None] = lambda message: None) -> list[Any]:
    """The rows of a record that stand for its entities, whatever they hold.

    They lie under one key: the first of `_ROWS` under which there are any.
    """
    task = _task(record)
    if task is not None:
        if len(task) > 1:
            complain(f"{len(task)} annotations of one text; the first is read")
        return [row for row in (task[0] if task else []) if not isinstance(row, dict) or row.get("type") == "labels"]
    keys = _annotation_keys(record)
    for key in keys:
        if not isinstance(record[key], list):
            complain(f'"{key}" must be a list')
    filled = [key for key in keys if isinstance(record[key], list) and record[key]]
    for key in filled[1:]:
        complain(f'"{key}" is passed over: the annotations are read from "{filled[0]}"')
    return list(record[filled[0]]) if filled else []


def _annotation_keys(record: dict[str, Any]) -> list[str]:
    """The keys of a record that hold entities."""
    keys = [key for key in _ROWS if record.get(key) is not None]
    return [key for key in keys if key not in _MAY_BE_OTHER or _holds_rows(record[key])]


def _holds_rows(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(row, list | dict) for row in value)


def _task(record: dict[str, Any]) -> list[list[Any]] | None:
    """The results of a task of Label Studio, one for each annotation that was not cancelled; None for other records."""
    found = record.get("annotations")
    if not isinstance(record.get("data"), dict) or not isinstance(found, list):
        return None
    kept = [a for a in found if isinstance(a, dict) and not a.get("was_cancelled")]
    return [a["result"] for a in kept if isinstance(a.get("result"), list)]


def _identifier(value: Any, default: str, complain: Callable[[str], None]) -> str:
    """The record's id, or the file and line where it has none."""
    if value is None:
        return default
    if _is_int(value) or (isinstance(value, str) and not surrogate(value)):
        return str(value)
    complain(f'"id" must be a string or an integer; {default} stands for it')
    return default


def labels_of(row: Any) -> list[str]:
    """The labels that a row gives its mention, as they are written; one that is empty where it gives none."""
    value = row[2] if isinstance(row, list) and len(row) == 3 else _first(_flat(row), _LABEL)
    found = value if isinstance(value, list) and value else [value]
    found = [label.get("value") if isinstance(label, dict) else label for label in found]
    return [label if isinstance(label, str) else "" for label in found]


def _flat(row: Any) -> dict[str, Any]:
    """A row with the offsets and the label that some tools put one level deeper."""
    if not isinstance(row, dict):
        return {}
    inner = [row[key] for key in ("value", "span") if isinstance(row.get(key), dict)]
    return {key: value for part in (row, *inner) for key, value in part.items()}


def _first(row: dict[str, Any], keys: tuple[str, ...]) -> Any:
    return next((row[key] for key in keys if key in row), None)


def _entities(row: Any, text: str) -> list[Entity]:
    """What a row annotates, an entity for each label. Raises ValueError, with what is wrong, where it does not fit."""
    if isinstance(row, list):
        if len(row) != 3:
            raise ValueError("needs [start, end, label]")
        row = dict(zip(("start", "end", "label"), row, strict=True))
    flat = _flat(row)
    if not all(any(key in flat for key in keys) for keys in (_START, _END, _LABEL)):
        raise ValueError('needs "start", "end" and "label"')
    start, end = _first(flat, _START), _first(flat, _END)
    if not all(label and not surrogate(label) for label in labels_of(row)):
        raise ValueError('"label" must be a string, and not empty')
    pairs = flat.get("fragments") or [[start, end]]
    if not isinstance(pairs, list) or not all(map(_is_pair, pairs)):
        raise ValueError("offsets must be integers, fragments pairs of them")
    if min(pair[0] for pair in pairs) < 0 or max(pair[1] for pair in pairs) > len(text):
        raise ValueError(f"an offset is outside the text of {len(text)} characters")
    fragments, shares = tuple(Span(a, b) for a, b in pairs), (_share(flat, "score"), _share(flat, "removed_mass"))
    found = [Entity(label, fragments, *shares) for label in labels_of(row)]
    if (start, end) != (found[0].start, found[0].end):
        raise ValueError(f'"start" and "end" are not those of the fragments, [{found[0].start}, {found[0].end})')
    if flat.get("text", found[0].mention(text)) != found[0].mention(text):
        raise ValueError(f"the mention does not match the text at [{start}, {end})")
    return found


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
