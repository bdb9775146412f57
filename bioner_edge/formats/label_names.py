"""How formats spell labels, and which labels they refuse.

Each function takes the labels in the order of the question and returns written name -> label in that order. All raise
UsageError if there are no labels, if a label is blank, has a lone surrogate or cannot be written in the format, and if
two labels would be written alike.
"""

from __future__ import annotations

import keyword
import re
import unicodedata
from collections.abc import Callable, Sequence

from bioner_edge.errors import UsageError
from bioner_edge.text.surrogates import surrogate_error

__all__ = ["classes", "only", "plain", "tags", "types"]

_TAG = re.compile(r"[A-Za-z\x80-\U0010ffff][^<>\\\x00-\x1f\x7f]*")
_TYPE = re.compile(r"[^\\\x00-\x1f\x7f]+")


def plain(labels: Sequence[str]) -> dict[str, str]:
    """Labels written as they are."""
    return _name_labels(labels, lambda label: label)


def only(labels: Sequence[str]) -> str:
    """The label of a question about a single type. Raises UsageError for several."""
    (*others, label) = plain(labels)
    if others:
        raise UsageError(f"an answer in this format holds one type, not {len(labels)}: {', '.join(labels)}")
    return label


def classes(labels: Sequence[str]) -> dict[str, str]:
    """Labels as Python classes: "Anatomical site" is `AnatomicalSite`, in NFKC, as Python itself reads identifiers."""

    def spell(label: str) -> str:
        kept = "".join(c if f"_{c}".isidentifier() else " " for c in unicodedata.normalize("NFKC", label))
        name = "".join(word[0].upper() + word[1:] for word in kept.split())
        if not name.isidentifier() or keyword.iskeyword(name):
            raise UsageError(f"label {label!r} cannot name a Python class: it must start with a letter; rename it")
        return unicodedata.normalize("NFKC", name)

    return _name_labels(labels, spell)


def tags(labels: Sequence[str]) -> dict[str, str]:
    """Labels as tags in angle brackets: "Anatomical site" is `Anatomical_site`."""

    def spell(label: str) -> str:
        name = "_".join(label.split())
        if not _TAG.fullmatch(name):
            message = "it must start with a letter and contain no '<', '>', backslash or control character"
            raise UsageError(f"label {label!r} cannot be a tag: {message}")
        return name

    return _name_labels(labels, spell)


def types(labels: Sequence[str]) -> dict[str, str]:
    """Labels in a column of their own, without white space: "Anatomical site" is `Anatomical_site`."""

    def spell(label: str) -> str:
        name = "_".join(label.split())
        if not _TYPE.fullmatch(name):
            message = "it must not contain a backslash or control character"
            raise UsageError(f"label {label!r} cannot be written in a column: {message}")
        return name

    return _name_labels(labels, spell)


def _name_labels(labels: Sequence[str], spell: Callable[[str], str]) -> dict[str, str]:
    names: dict[str, str] = {}
    for label in labels:
        if reason := surrogate_error(label):
            raise UsageError(f"label {label!r}: {reason}")
        if not label.strip():
            raise UsageError("a label must not be blank")
        name = spell(label)
        if name in names:
            message = (
                "is given twice" if names[name] == label else f"and {names[name]!r} would both be written {name!r}"
            )
            raise UsageError(f"label {label!r} {message}; rename one")
        names[name] = label
    if not names:
        raise UsageError("at least one label is needed")
    return names
