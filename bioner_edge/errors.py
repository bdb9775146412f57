"""The errors that a user can cause, under one base class.

    BionerError
    ├── UsageError       an unknown format, label or option, or a combination that is not allowed
    ├── InputError       a file or document that cannot be read; `ContextFull` of the back ends: one that does not fit
    ├── ModelError       a model file that is damaged, unlisted, or differs from its manifest
    └── CrashError       a native crash, or running out of memory, ended the process that read a document

A message is one line: what is wrong, where, and what to do. The command line prints it and exits with 2.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = [
    "BionerError",
    "CrashError",
    "InputError",
    "ModelError",
    "UsageError",
    "alternatives",
    "name_file",
    "printable",
    "unknown_name",
]


class BionerError(Exception):
    """The base class of all errors that the caller can fix."""


class UsageError(BionerError):
    """An invalid request: an unknown name, mutually exclusive options."""


class InputError(BionerError):
    """Text or annotations that cannot be read; names the file and the line."""


class ModelError(BionerError):
    """A model file or manifest that cannot be used; says which and why."""


class CrashError(BionerError):
    """A document crashed the process that read it; `how` says how, for instance "SIGSEGV"."""

    def __init__(self, message: str, how: str) -> None:
        super().__init__(message, how)
        self.how = how

    def __str__(self) -> str:
        return str(self.args[0])


def printable(text: str) -> str:
    """The text with every character that a terminal might interpret replaced by U+FFFD."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


def unknown_name(kind: str, name: str, choices: Iterable[object]) -> str:
    """The message for a name that is not in a table: 'unknown KIND NAME; known: A, B'."""
    return f"unknown {kind} {name!r}; known: {', '.join(map(str, choices))}"


def alternatives(names: Iterable[str]) -> str:
    """'A, B or C'."""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


@contextmanager
def name_file(path: Path) -> Iterator[None]:
    """Add `path` to an OSError from inside that names no file, such as that of a full disk."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
