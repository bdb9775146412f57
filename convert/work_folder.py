"""The folder that a conversion works in, and how a finished folder replaces another.

A conversion holds a lock on its work folder, which ends with the process in any case. The folder's name contains an id
of this machine: on a shared disk a lock may not be visible to other machines, so each sweeps only its own leftovers.
Folders whose owner is unknown are reported, with the command that removes them.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

__all__ = ["create", "machine_id", "place", "recover"]

_PARTIAL = ".partial-"  # in a work folder's name, between the model's name and the machine id
_ASIDE = ".partial-replaced"  # after the name of a folder while another replaces it
_MACHINE = Path("/etc/machine-id")
_BOOT = Path("/proc/sys/kernel/random/boot_id")


@contextmanager
def create(out: Path, name: str, tell: Callable[[str], None]) -> Iterator[Path]:
    """A new folder in `out`, removed at the end; first, leftovers of killed conversions of this name are removed.

    `tell` receives notes on leftovers that stay because another machine may use them, or the disk has no locks.
    """
    prefix = f"{name}{_PARTIAL}{machine_id()}-"
    _sweep(out, name, prefix, tell)
    while True:
        new = TemporaryDirectory(prefix=prefix, dir=out, ignore_cleanup_errors=True)
        with new as folder, _lock(Path(folder)) as ours:
            if ours is not False and Path(folder).is_dir():  # otherwise another conversion is sweeping it
                yield Path(folder)
                return


def _sweep(out: Path, name: str, ours: str, tell: Callable[[str], None]) -> None:
    made_here = re.compile(f"{re.escape(name + _PARTIAL)}[0-9a-f]{{12}}-.*")
    for left in sorted(out.iterdir()):
        if not (made_here.fullmatch(left.name) and left.is_dir()):
            continue
        with _lock(left) as free:
            if free and left.name.startswith(ours):
                shutil.rmtree(left, ignore_errors=True)
            elif free is not False:
                note = "was left by a killed conversion, unless one is running on another machine"
                tell(f"{left} ({_size(left) / 1e9:.1f} GB) {note}; to remove it: rm -r {shlex.quote(str(left))}")


def _size(folder: Path) -> int:
    """Bytes of the files in a folder, which may change meanwhile."""
    found = 0
    for file in folder.rglob("*"):
        with suppress(OSError):
            found += file.stat().st_size if file.is_file() else 0
    return found


@contextmanager
def _lock(folder: Path) -> Iterator[bool | None]:
    """Lock a folder for the duration. Yields True with the lock, False where another process has it, None where that is
    unknown: the system or the disk (some network disks) has no such locks, or the folder may not be opened."""
    try:
        import fcntl

        descriptor = os.open(folder, os.O_RDONLY)
    except (ModuleNotFoundError, OSError):
        yield None
        return
    ours: bool | None = True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        ours = False
    except OSError:
        ours = None
    try:
        yield ours
    finally:
        os.close(descriptor)


def machine_id() -> str:
    """An id of this machine, stable across reboots. A container without an id has its host's boot id, shared with other
    containers there; where neither is available, it is derived from the host name."""
    number, name = _text(_MACHINE), socket.gethostname()
    identity = f"{number} {name}" if re.fullmatch("[0-9a-f]{32}", number) else _text(_BOOT) or name
    return sha256(identity.encode()).hexdigest()[:12]


def _text(path: Path) -> str:
    try:
        return path.read_text("ascii", errors="replace").strip()
    except OSError:
        return ""


def place(path: Path, target: Path) -> None:
    """Rename a folder to its final name. A folder that has the name is set aside first and removed afterwards.

    If the process is killed in between, no folder has the name, and `recover` restores the old one.
    """
    aside = target.with_name(target.name + _ASIDE)
    if target.is_dir():
        os.rename(target, aside)
    try:
        os.rename(path, target)
    except BaseException:
        recover(target)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def recover(target: Path) -> None:
    """Finish an interrupted `place`: restore the old folder, or remove it where the new one is in place."""
    aside = target.with_name(target.name + _ASIDE)
    if not aside.is_dir():
        return
    if target.exists():
        shutil.rmtree(aside, ignore_errors=True)
    else:
        os.rename(aside, target)
