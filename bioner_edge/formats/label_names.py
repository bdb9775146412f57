"""How formats write the names of labels, and which labels they cannot write.

Each function takes the labels in the order asked and returns written name -> label in that order. All raise UsageError
for no label, a blank one, one with a lone surrogate, one that the format cannot write, and two that would share a name.
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
    """As they are."""
    return _named(labels, lambda label: label)


def only(labels: Sequence[str]) -> str:
    """The one label of an answer that holds one type."""
    (*others, label) = plain(labels)
    if others:
        raise UsageError(f"one answer of this format holds one type, not {len(labels)}: {', '.join(labels)}")
    return label


def classes(labels: Sequence[str]) -> dict[str, str]:
    """Python classes: "Anatomical site" is `AnatomicalSite`. Python itself reads identifiers in NFKC."""

    def spelled(label: str) -> str:
        kept = "".join(c if f"_{c}".isidentifier() else " " for c in unicodedata.normalize("NFKC", label))
        name = "".join(word[0].upper() + word[1:] for word in kept.split())
        if not name.isidentifier() or keyword.iskeyword(name):
            raise UsageError(f"label {label!r} cannot name a Python class: it must start with a letter; rename it")
        return unicodedata.normalize("NFKC", name)

    return _named(labels, spelled)


def tags(labels: Sequence[str]) -> dict[str, str]:
    """Tags in angle brackets: "Anatomical site" is `Anatomical_site`."""

    def spelled(label: str) -> str:
        name = "_".join(label.split())
        if not _TAG.fullmatch(name):
            message = "it must start with a letter and hold no '<', '>', backslash or control"
            raise UsageError(f"label {label!r} cannot be a tag: {message}")
        return name

    return _named(labels, spelled)


def types(labels: Sequence[str]) -> dict[str, str]:
    """Types in a column of their own, without white space: "Anatomical site" is `Anatomical_site`."""

    def spelled(label: str) -> str:
        name = "_".join(label.split())
        if not _TYPE.fullmatch(name):
            raise UsageError(f"label {label!r} cannot stand in a column: it may hold no backslash and no control")
        return name

    return _named(labels, spelled)


def _named(labels: Sequence[str], spell: Callable[[str], str]) -> dict[str, str]:
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
