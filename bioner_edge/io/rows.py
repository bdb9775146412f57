"""The entities of a JSON object as common tools write them, with half-open character offsets.

    entities    GLiNER, and this project; spaCy's training data ([[0, 8, "Chemical"]]); doccano with relations
                (start_offset, end_offset); Flair's Sentence.to_dict (start_pos, end_pos)
    spans       Prodigy
    ents        spaCy's Doc.to_json
    label       doccano ([[0, 8, "Chemical"]]), Label Studio's JSON_MIN; `labels` too
    annotations any tool; in a Label Studio task, which has its text under `data`, the `result` of the first one
    denotations PubAnnotation ({"span": {"begin": 0, "end": 8}, "obj": "Chemical"})

`fragments`, pairs of offsets, make a discontinuous mention. Token offsets and inclusive ends are not supported. If a
row has a `text`, it must equal the mention at its offsets.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bioner_edge.document import Entity, Span
from bioner_edge.text.surrogates import surrogate_error

__all__ = ["KEYS", "annotation_keys", "annotation_rows", "entities_of", "is_integer", "is_task", "labels_of"]

KEYS = ("entities", "spans", "ents", "label", "labels", "annotations", "denotations")
_MAY_BE_OTHER = ("label", "labels", "annotations")  # may also be strings that classify the whole text
_START = ("start_char", "start_offset", "start_pos", "start", "begin")
_END = ("end_char", "end_offset", "end_pos", "end")
_LABEL = ("label", "labels", "entity_group", "entity_type", "type", "obj")


def annotation_rows(record: dict[str, Any], complain: Callable[[str], None] = lambda message: None) -> list[Any]:
    """The annotation rows of a record, not validated: those under the first of `KEYS` that has any."""
    task = _task(record)
    if task is not None:
        if len(task) > 1:
            complain(f"{len(task)} annotations of one text; only the first is read")
        return [row for row in (task[0] if task else []) if not isinstance(row, dict) or row.get("type") == "labels"]
    keys = annotation_keys(record)
    for key in keys:
        if not isinstance(record[key], list):
            complain(f'"{key}" must be a list')
    filled = [key for key in keys if isinstance(record[key], list) and record[key]]
    for key in filled[1:]:
        complain(f'"{key}" is ignored: the annotations are read from "{filled[0]}"')
    return list(record[filled[0]]) if filled else []


def is_task(record: dict[str, Any]) -> bool:
    """Whether a record is a Label Studio task."""
    return _task(record) is not None


def annotation_keys(record: dict[str, Any]) -> list[str]:
    """The keys of a record that hold entities."""
    keys = [key for key in KEYS if record.get(key) is not None]
    return [key for key in keys if key not in _MAY_BE_OTHER or _holds_rows(record[key])]


def _holds_rows(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(row, list | dict) for row in value)


def _task(record: dict[str, Any]) -> list[list[Any]] | None:
    """The results of a Label Studio task, one for each annotation that was not cancelled; None for other records."""
    found = record.get("annotations")
    if not isinstance(record.get("data"), dict) or not isinstance(found, list):
        return None
    kept = [a for a in found if isinstance(a, dict) and not a.get("was_cancelled")]
    return [a["result"] for a in kept if isinstance(a.get("result"), list)]


def labels_of(row: Any) -> list[str]:
    """The labels of a row as written; a label that is not a string becomes ""."""
    value = row[2] if isinstance(row, list) and len(row) == 3 else _first(_flat(row), _LABEL)
    found = value if isinstance(value, list) and value else [value]
    found = [label.get("value") if isinstance(label, dict) else label for label in found]
    return [label if isinstance(label, str) else "" for label in found]


def _flat(row: Any) -> dict[str, Any]:
    """A row merged with the object in which some tools nest its offsets and label."""
    if not isinstance(row, dict):
        return {}
    inner = [row[key] for key in ("value", "span") if isinstance(row.get(key), dict)]
    return {key: value for part in (row, *inner) for key, value in part.items()}


def _first(row: dict[str, Any], keys: tuple[str, ...]) -> Any:
    return next((row[key] for key in keys if key in row), None)


def entities_of(row: Any, text: str) -> list[Entity]:
    """The entities of a row, one for each label. Raises ValueError, with the reason, if it does not fit the text."""
    if isinstance(row, list):
        if len(row) != 3:
            raise ValueError("needs [start, end, label]")
        row = dict(zip(("start", "end", "label"), row, strict=True))
    flat = _flat(row)
    if not all(any(key in flat for key in keys) for keys in (_START, _END, _LABEL)):
        raise ValueError('needs "start", "end" and "label"')
    start, end = _first(flat, _START), _first(flat, _END)
    if not all(label and not surrogate_error(label) for label in labels_of(row)):
        raise ValueError('"label" must be a non-empty string')
    pairs = flat.get("fragments") or [[start, end]]
    if not isinstance(pairs, list) or not all(map(_is_pair, pairs)):
        raise ValueError("offsets must be integers, and fragments pairs of integers")
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
    return isinstance(value, list) and len(value) == 2 and all(map(is_integer, value))


def is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
