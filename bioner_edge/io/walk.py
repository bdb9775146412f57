"""Which files lie in a folder, or match a pattern, and which folders on the way could not be looked into.

Links to folders are followed. A folder that can be reached in several ways counts once, first as what it is, then by a
link: so a link to a folder above it ends, where `glob` follows two of them for ever.
"""

from __future__ import annotations

import glob
import os
import stat
from collections import deque
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

__all__ = ["FROM_A_MAC", "is_special", "match", "walk"]

FROM_A_MAC = "__MACOSX"  # what an archive made there holds beside the files


def walk(folder: Path) -> tuple[list[Path], list[OSError]]:
    """(what is in a folder and the folders in it and is no folder, what went wrong). What is hidden is left out."""
    errors: list[OSError] = []
    files = [path for _, files in _folders(folder, errors) for path in files]
    return sorted(files), errors


def match(pattern: str) -> tuple[list[Path], list[OSError]]:
    """(the files that match a pattern, what went wrong on the way). What is hidden matches only where it says so.

    `**` is any number of folders, and all that is in them where nothing follows it.
    """
    whole, errors = Path(pattern), list[OSError]()
    found = [Path(whole.anchor)]
    parts = whole.parts[1:] if whole.anchor else whole.parts
    for part in (*parts, "*") if parts and parts[-1] == "**" else parts:
        if part == "**":
            found = [folder for start in found if os.path.isdir(start) for folder, _ in _folders(start, errors)]
        elif glob.has_magic(part):
            hidden = part.startswith(".")
            listed = (path for folder in found if os.path.isdir(folder) for path in _listed(folder, errors, hidden))
            found = [path for path in listed if fnmatch(path.name, part)]
        else:
            found = [path / part for path in found if os.path.lexists(path / part)]
    files: dict[tuple[str, str], Path] = {}
    for path in sorted(found, key=str):
        if not os.path.isdir(path) and (FROM_A_MAC not in path.parts or FROM_A_MAC in pattern):
            files.setdefault((os.path.realpath(path.parent), path.name), path)
    return list(files.values()), list({str(error.filename): error for error in errors}.values())


def _folders(top: Path, errors: list[OSError]) -> Iterator[tuple[Path, list[Path]]]:
    """A folder and all in it, at any depth, each with what is no folder in it."""
    seen: set[tuple[int, int]] = set()
    here, linked = [top], deque[Path]()
    while here or linked:
        at = here.pop() if here else linked.popleft()
        try:
            status = at.stat()
        except OSError as error:
            errors.append(error)
            continue
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        files = []
        for path in _listed(at, errors):
            if not os.path.isdir(path):
                files.append(path)
            elif path.name != FROM_A_MAC:
                (linked if path.is_symlink() else here).append(path)
        yield at, files


def _listed(folder: Path, errors: list[OSError], hidden: bool = False) -> list[Path]:
    """What is in a folder, in order; of what is hidden nothing, or nothing else."""
    try:
        return sorted(folder / name for name in os.listdir(folder) if name.startswith(".") == hidden)
    except OSError as error:
        errors.append(error)
        return []


def is_special(path: Path) -> bool:
    """Whether a path is a pipe, a device or a socket; what cannot be told is told when it is read."""
    try:
        return not stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False
