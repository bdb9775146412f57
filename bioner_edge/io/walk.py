"""List the files in a folder or matching a pattern, and the folders on the way that could not be listed.

Links to folders are followed. A folder that can be reached in several ways counts once, preferably by its own path: so
a link to a parent folder ends, while `glob` follows two of them forever.
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

FROM_A_MAC = "__MACOSX"  # metadata in archives made on macOS


def walk(folder: Path) -> tuple[list[Path], list[OSError]]:
    """(the files in a folder and its subfolders, the errors). Hidden files and folders are left out."""
    errors: list[OSError] = []
    files = [path for _, files in _folders(folder, errors) for path in files]
    return sorted(files), errors


def match(pattern: str) -> tuple[list[Path], list[OSError]]:
    """(the files that match a pattern, the errors). Hidden files match only a pattern that begins with a dot.

    `**` is any number of folders, and at the end of a pattern everything in them.
    """
    whole, errors = Path(pattern), list[OSError]()
    found = [Path(whole.anchor)]
    parts = whole.parts[1:] if whole.anchor else whole.parts
    for part in (*parts, "*") if parts and parts[-1] == "**" else parts:
        if part == "**":
            found = [folder for start in found if os.path.isdir(start) for folder, _ in _folders(start, errors)]
        elif glob.has_magic(part):
            hidden = part.startswith(".")
            listed = (
                path for folder in found if os.path.isdir(folder) for path in _list_folder(folder, errors, hidden)
            )
            found = [path for path in listed if fnmatch(path.name, part)]
        else:
            found = [path / part for path in found if os.path.lexists(path / part)]
    files: dict[tuple[str, str], Path] = {}
    for path in sorted(found, key=str):
        if not os.path.isdir(path) and (FROM_A_MAC not in path.parts or FROM_A_MAC in pattern):
            files.setdefault((os.path.realpath(path.parent), path.name), path)
    return list(files.values()), list({str(error.filename): error for error in errors}.values())


def _folders(top: Path, errors: list[OSError]) -> Iterator[tuple[Path, list[Path]]]:
    """A folder and its subfolders at any depth, each with its files."""
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
        for path in _list_folder(at, errors):
            if not os.path.isdir(path):
                files.append(path)
            elif path.name != FROM_A_MAC:
                (linked if path.is_symlink() else here).append(path)
        yield at, files


def _list_folder(folder: Path, errors: list[OSError], hidden: bool = False) -> list[Path]:
    """The sorted entries of a folder: those not hidden, or only the hidden ones."""
    try:
        return sorted(folder / name for name in os.listdir(folder) if name.startswith(".") == hidden)
    except OSError as error:
        errors.append(error)
        return []


def is_special(path: Path) -> bool:
    """Whether a path is a pipe, a device or a socket; False if unknown, since reading it reports the error."""
    try:
        return not stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False
