"""One process at a time: a file that is written to is locked until the process ends, however it ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from .errors import UsageError

__all__ = ["appending"]


@contextmanager
def appending(path: Path) -> Iterator[BinaryIO]:
    """The file, opened to read and append to, by this process alone. Raises UsageError where another one has it.

    A lock of the system's that goes with its process, so that none is left behind; without effect on Windows.
    """
    with path.open("a+b") as stream:
        try:
            import fcntl

            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ModuleNotFoundError:
            pass
        except OSError:
            raise UsageError(
                f"{path}: another process is writing to it; wait for it, or choose another --out"
            ) from None
        yield stream
