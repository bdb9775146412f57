"""Code shared by the verbs of the command line: parse options, print messages and tables."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from bioner_edge.errors import UsageError, printable

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["complain", "guidelines", "names", "print_table", "write"]

_PIPED_WIDTH = 100  # characters, for a table in a file or a pipe


def names(option: str, text: str | None) -> list[str] | None:
    """The names in a comma-separated option. Raises UsageError for an empty name and for a duplicate."""
    if text is None:
        return None
    found = [name.strip() for name in text.split(",")]
    if not all(found) or len(set(found)) < len(found):
        raise UsageError(f"{option} {text!r}: must be distinct names, separated by commas")
    return found


def guidelines(path: Path | None) -> dict[str, str] | None:
    """The guidelines in a TOML file. Raises UsageError if it is not a table of strings."""
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
    """Print one line on standard error, control characters (as in a file's name or a document's id) shown as U+FFFD."""
    print(f"bioner-edge: {printable(message)}", file=sys.stderr)


def print_table(table: Table) -> None:
    """Print a table on standard output, as wide as the terminal, or 100 characters."""
    from rich.console import Console

    terminal = sys.stdout.isatty()
    drawn = io.StringIO()
    console = Console(file=drawn, force_terminal=terminal, width=None if terminal else _PIPED_WIDTH, highlight=False)
    console.print(table)
    write("".join(f"{line.rstrip()}\n" for line in drawn.getvalue().split("\n")[:-1]))


def write(text: str) -> None:
    """Write text to standard output, as UTF-8. Raises UsageError if it cannot be written."""
    sys.stdout.reconfigure(encoding="utf-8", newline="\n")  # type: ignore[union-attr]
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        from bioner_edge.io.sinks import forget_stdout

        forget_stdout()
        if isinstance(error, BrokenPipeError):  # `| head` has seen enough
            raise typer.Exit(0) from None
        raise UsageError(f"standard output: cannot be written: {error.strerror}") from None
