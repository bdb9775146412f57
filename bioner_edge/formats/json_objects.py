"""JSON objects with a list under each label, in the order of the question: code shared by grouped formats."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

from bioner_edge.formats.grammar import grammar, literal
from bioner_edge.formats.reading import Cursor, Item
from bioner_edge.formats.terms import quote

__all__ = ["begins", "object_grammar", "objects", "under_keys"]


def begins(labels: Iterable[str]) -> list[str]:
    """What precedes the items of each list, including the end of the previous list."""
    first, *others = (f"{quote(label)}: [" for label in labels)
    return [f"{{{first}", *(f"], {other}" for other in others)]


def objects(cursor: Cursor, labels: Sequence[str], item: Callable[[str], tuple[str, Any]]) -> Iterator[Item]:
    """Read the items of all lists; `item` reads one item of a label's list."""
    before = "{"
    for label in labels:
        cursor.expect(f"{before}{quote(label)}: ")
        yield from cursor.listing(lambda label=label: item(label))  # type: ignore[misc]
        before = ", "
    cursor.expect("}")


def under_keys(answer: str, labels: Sequence[str]) -> Iterator[tuple[str, int, int]]:
    """For each key found in an answer, its label and the span up to the next key: (label, start, end)."""
    keys = {quote(label): label for label in labels}
    pattern = re.compile(rf"({'|'.join(re.escape(key) for key in keys)})\s*:")
    found = [(keys[m[1]], m.start(), m.end()) for m in pattern.finditer(answer)]
    for (label, _, end), (_, following, _) in pairwise([*found, ("", len(answer), 0)]):
        yield label, end, following


def object_grammar(labels: Iterable[str], *rules: str) -> str:
    """The grammar of the object; `rules` define `list`."""
    lists = ' ", " '.join(f"{literal(f'{quote(label)}: ')} list" for label in labels)
    return grammar(f'root ::= "{{" {lists} "}}"', *rules)
