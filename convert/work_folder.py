"""The folder that a conversion works in, and how a folder that it made takes the place of another.

Whoever works in a folder holds a lock on it, which goes with the process, however it ends. The folder's name has this
machine in it: on a shared disk a lock may say nothing of other machines, so what these left is theirs to sweep. What
nobody can tell whose it is, is named, with the command that removes it.
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

__all__ = ["machine_id", "place", "recover", "working"]

_PARTIAL = ".partial-"  # between the name of a conversion and the machine, in the name of its folder
_ASIDE = ".partial-replaced"  # behind the name of a folder while another takes its place
_MACHINE = Path("/etc/machine-id")
_BOOT = Path("/proc/sys/kernel/random/boot_id")


@contextmanager
def working(out: Path, name: str, tell: Callable[[str], None]) -> Iterator[Path]:
    """A new folder in `out`, which goes away. What killed conversions of this name left there goes first.

    `tell` hears of what is left because it may be in use, by another machine or on a disk without locks.
    """
    prefix = f"{name}{_PARTIAL}{machine_id()}-"
    _sweep(out, name, prefix, tell)
    while True:
        new = TemporaryDirectory(prefix=prefix, dir=out, ignore_cleanup_errors=True)
        with new as folder, _locked(Path(folder)) as ours:
            if ours is not False and Path(folder).is_dir():  # else another conversion is sweeping it
                yield Path(folder)
                return


def _sweep(out: Path, name: str, ours: str, tell: Callable[[str], None]) -> None:
    made_here = re.compile(f"{re.escape(name + _PARTIAL)}[0-9a-f]{{12}}-.*")
    for left in sorted(out.iterdir()):
        if not (made_here.fullmatch(left.name) and left.is_dir()):
            continue
        with _locked(left) as free:
            if free and left.name.startswith(ours):
                shutil.rmtree(left, ignore_errors=True)
            elif free is not False:
                told = "was left by a conversion that was killed, unless one is at work there on another machine"
                tell(f"{left} ({_size(left) / 1e9:.1f} GB) {told}; to remove it: rm -r {shlex.quote(str(left))}")


def _size(folder: Path) -> int:
    """Bytes of the files in a folder, where somebody may be at work."""
    found = 0
    for file in folder.rglob("*"):
        with suppress(OSError):
            found += file.stat().st_size if file.is_file() else 0
    return found


@contextmanager
def _locked(folder: Path) -> Iterator[bool | None]:
    """Whether this process has the folder to itself, while it lasts; False where another one has it, None where nothing
    tells: the system or the disk has no such locks, as some of a network, or it may not be opened."""
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
    """This machine, over its starts. A container that has no number of its own has that of the start of its host, as
    the others there; where the system tells neither, it is the machine's name."""
    number, name = _text(_MACHINE), socket.gethostname()
    told = f"{number} {name}" if re.fullmatch("[0-9a-f]{32}", number) else _text(_BOOT) or name
    return sha256(told.encode()).hexdigest()[:12]


def _text(path: Path) -> str:
    try:
        return path.read_text("ascii", errors="replace").strip()
    except OSError:
        return ""


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
