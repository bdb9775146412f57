"""Split a folder into parts of bounded size and back, to copy checkpoints from machines that allow only small files."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

from bioner_edge.errors import InputError

__all__ = ["PART_BYTES", "join", "split"]

PART_BYTES = 16 * 1000 * 1000


def split(folder: Path, out: Path, *, without: str = "", size: int = PART_BYTES) -> list[Path]:
    """Write `folder` to `out`/NAME.00, NAME.01 … of at most `size` bytes, and NAME.sha256 of the whole.

    Files named `without` are left out.
    """
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as archive:
        for file in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != without):
            archive.add(file, file.relative_to(folder).as_posix())
    data = whole.getbuffer()
    out.mkdir(parents=True, exist_ok=True)
    parts = []
    for number, start in enumerate(range(0, len(data), size)):
        part = out / f"{folder.name}.{number:02}"
        part.write_bytes(data[start : start + size])
        parts.append(part)
    (out / f"{folder.name}.sha256").write_text(hashlib.sha256(data).hexdigest() + "\n", "utf-8")
    return parts


def join(source: Path, folder: Path) -> None:
    """Rebuild `folder` from the parts with its name in `source`. Raises InputError if one is missing or damaged."""
    data = b"".join(p.read_bytes() for p in sorted(source.glob(f"{folder.name}.[0-9][0-9]")))
    stated = source / f"{folder.name}.sha256"
    if not stated.is_file() or hashlib.sha256(data).hexdigest() != stated.read_text("utf-8").strip():
        raise InputError(f"{source}: parts of {folder.name} are missing or damaged; copy them again")
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        archive.extractall(folder, filter="data")
