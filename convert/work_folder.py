"""The folder that a conversion works in, and how a folder that it made takes the place of another.

Whoever works in a folder holds a lock on it, which goes with the process, however it ends. The folder's name has this
machine's start in it: on a shared disk a lock may say nothing of other machines, so what these left is theirs to sweep.
"""

from __future__ import annotations

import glob
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

__all__ = ["place", "recover", "working"]

_PARTIAL = ".partial-"  # between the name of a conversion and the machine, in the name of its folder
_ASIDE = ".partial-replaced"  # behind the name of a folder while another takes its place
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_LOCKS = find_spec("fcntl") is not None


@contextmanager
def working(out: Path, name: str) -> Iterator[Path]:
    """A new folder in `out`, which goes away. What killed conversions of this name left there goes first."""
    prefix = f"{name}{_PARTIAL}{_machine()}-"
    for left in out.glob(f"{glob.escape(prefix)}*"):
        with _locked(left) as ours:
            if ours:
                shutil.rmtree(left, ignore_errors=True)
    while True:
        new = TemporaryDirectory(prefix=prefix, dir=out, ignore_cleanup_errors=True)
        with new as folder, _locked(Path(folder)) as ours:
            if (ours or not _LOCKS) and Path(folder).is_dir():  # else another conversion is sweeping it
                yield Path(folder)
                return


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Whether this process has the folder to itself, while it lasts; false where the system has no such locks."""
    try:
        import fcntl

        descriptor = os.open(folder, os.O_RDONLY)
    except (ModuleNotFoundError, OSError):
        yield False
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        ours = True
    except OSError:
        ours = False
    try:
        yield ours
    finally:
        os.close(descriptor)


def _machine() -> str:
    """This start of this machine, the same in its containers; where the system does not tell, the machine's name."""
    try:
        told = _BOOT.read_text("ascii")
    except OSError:
        told = socket.gethostname()
    return sha256(told.encode()).hexdigest()[:12]


def place(path: Path, target: Path) -> None:
    """Give a folder its name. One that has the name is set aside, and goes away only then.

    Killed between the two, there is no folder of that name, and `recover` gives the old one its name again.
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
    """Finish what was broken off in `place`: the old folder has its name again, or goes away where there is a new."""
    aside = target.with_name(target.name + _ASIDE)
    if not aside.is_dir():
        return
    if target.exists():
        shutil.rmtree(aside, ignore_errors=True)
    else:
        os.rename(aside, target)
