"""What a file's name tells of its format: one rule for what is read and for what is written.

A suffix of the table names a format. Any other suffix is refused: a table or a page of markup would otherwise be read
as a text, and JSON Lines would lie under the name of something else. A name without a suffix tells nothing: what is
read is then known by its content (`sniff`), and what is written is JSON Lines. `--from` and `--to` go before the name.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from bioner_edge.errors import UsageError

__all__ = ["COMPRESSED", "SUFFIXES", "file_format", "output_format", "suffix"]

SUFFIXES = {
    ".txt": "text",
    ".text": "text",
    ".md": "text",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".pubtator": "pubtator",
    ".ann": "brat",
    ".a1": "brat",
    ".a2": "brat",
}
COMPRESSED = frozenset((".gz", ".bz2", ".xz", ".zst", ".lz4", ".z", ".zip", ".7z", ".tgz"))


def suffix(name: str) -> str:
    """The suffix of a name in lower case, with its dot; `.pubtator.txt`, as BC5CDR is published, is `.pubtator`."""
    lower = Path(name).name.lower()
    found = Path(lower.removesuffix(".txt") if lower.endswith(".pubtator.txt") else lower).suffix
    return "" if found == "." else found


def file_format(name: str) -> str | None:
    """The format that a file's name tells, or None."""
    return SUFFIXES.get(suffix(name))


def output_format(out: Path | None, files: Collection[str]) -> str:
    """The format to write into `out`, which no `--to` names; None is standard output. `files` are those of one file.

    Raises UsageError where the name is that of something else: what was written would be taken for it.
    """
    told = suffix(out.name) if out else ""
    kind = SUFFIXES.get(told) if told else "jsonl"
    if kind and kind in files:
        return kind
    if kind == "brat":
        raise UsageError(f"{out}: brat is written as a folder of pairs; give --to brat and a folder as --out")
    if told in COMPRESSED:
        raise UsageError(f"{out}: compressed files are not written; leave out {told}, and compress it afterwards")
    known = ", ".join(suffix for suffix, kind in SUFFIXES.items() if kind in files)
    raise UsageError(
        f"{out}: {told} names no format that is written ({known}); rename it, or name the format with --to"
    )
