"""Lock a file for one writing process, until that process ends, however it ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from bioner_edge.errors import UsageError

__all__ = ["open_locked"]


@contextmanager
def open_locked(path: Path) -> Iterator[FileIO]:
    """Open a file for reading and appending, without a buffer and for this process alone.

    The system releases the lock when the process ends, so no stale lock remains. Without effect on systems and
    network disks that have no locks. Raises UsageError if another process holds the lock.
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
