"""One process at a time: a file that is written to is locked until the process ends, however it ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from bioner_edge.errors import UsageError

__all__ = ["appending"]


@contextmanager
def appending(path: Path) -> Iterator[FileIO]:
    """The file, opened without a buffer to read and append to, by this process alone.

    A lock of the system's that goes with its process, so that none is left behind; where the system or the disk has no
    locks, as some of a network, without effect. Raises UsageError where another process has it.
    """
    with path.open("a+b", buffering=0) as stream:
        try:
            import fcntl

            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"{path}: another process is writing to it; wait for it, or choose another --out"
            ) from None
        except (ModuleNotFoundError, OSError):
            pass
        yield stream
