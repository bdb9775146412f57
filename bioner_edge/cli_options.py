"""What the verbs of the command line share: how options are read, and how a message is told."""

from __future__ import annotations

import sys
from pathlib import Path

from .errors import UsageError

__all__ = ["complain", "guidelines", "names"]


def names(option: str, text: str | None) -> list[str] | None:
    """The names of a comma-separated option. Raises UsageError for an empty one and for one that is there twice."""
    if text is None:
        return None
    found = [name.strip() for name in text.split(",")]
    if not all(found) or len(set(found)) < len(found):
        raise UsageError(f"{option} {text!r}: names, each once, with commas between them")
    return found


def guidelines(path: Path | None) -> dict[str, str] | None:
    """The guidelines of a TOML file. Raises UsageError where it is not a table of texts."""
    if path is None:
        return None
    import tomllib

    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"--guidelines {path}: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"--guidelines {path}: {error}") from None
    if not all(isinstance(text, str) for text in table.values()):
        raise UsageError(f'--guidelines {path}: every line must be label = "text"')
    return table


def complain(message: str) -> None:
    """One line on standard error; what a file's name or a document's id could do to a terminal is shown as U+FFFD."""
    line = "".join(c if c.isprintable() else "\ufffd" for c in message)
    print(f"bioner-edge: {line}", file=sys.stderr)
