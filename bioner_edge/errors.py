"""Every error that a user can cause, under one root.

    BionerError
    ├── UsageError       an unknown format, label, option, or one that cannot be combined
    ├── InputError       a file or document that cannot be read; `ContextFull` of the back ends, one that has no room
    ├── ModelError       a model file that is damaged, unlisted, or not what its manifest says
    └── CrashError       native code, or the want of memory, ended the process that read a document

A message is one line: what was wrong, where, and what to do. The command line prints it and exits with 2.
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
    """The root of all errors that are the caller's to mend."""


class UsageError(BionerError):
    """A request that makes no sense: an unknown name, options that exclude each other."""


class InputError(BionerError):
    """Text or annotations that cannot be read; says the file and the line."""


class ModelError(BionerError):
    """A model file or its manifest cannot be used; says which and why."""


class CrashError(BionerError):
    """A document ended the process that read it; `how` says by what, for instance "SIGSEGV"."""

    def __init__(self, message: str, how: str) -> None:
        super().__init__(message, how)
        self.how = how

    def __str__(self) -> str:
        return str(self.args[0])


def printable(text: str) -> str:
    """The text without what could do something to a terminal, which is shown as U+FFFD."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


def unknown_name(kind: str, name: str, choices: Iterable[object]) -> str:
    """'unknown KIND NAME; known: A, B', the one wording for a name that is not in a table."""
    return f"unknown {kind} {name!r}; known: {', '.join(map(str, choices))}"


def alternatives(names: Iterable[str]) -> str:
    """'A, B or C'."""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


@contextmanager
def name_file(path: Path) -> Iterator[None]:
    """An OSError from inside says which file it is about, also where the system does not: a disk that fills up."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
