"""The file formats, and which of them a name means: one that the user gives, or the suffix of a file.

There is one rule for the suffixes of what is read and of what is written. A suffix that a format has names it. Any
other suffix is refused: a table or a page of markup would otherwise be read as a text, and JSON Lines would lie under
the name of something else. A name without a suffix tells nothing: what is read is then known by its content (`sniff`),
and what is written is of the standard format. `--from` and `--to` go before the name.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from bioner_edge.errors import UsageError, unknown_name
from bioner_edge.io.contract import FileFormat

__all__ = [
    "COMPRESSED",
    "FILE_FORMATS",
    "MODULES",
    "PLAIN_TEXT",
    "STANDARD",
    "by_suffix",
    "find_reader",
    "find_writer",
    "output_format",
    "readable",
    "scorable",
    "suffix",
    "suffixes",
    "writable",
]

MODULES = (
    "bioner_edge.io.plain",
    "bioner_edge.io.jsonl",
    "bioner_edge.io.pubtator",
    "bioner_edge.io.brat",
    "bioner_edge.io.bc2gm",
)
"""A line for each; messages name the formats in this order, and content is recognized in it."""

FILE_FORMATS: dict[str, FileFormat] = {
    file_format.name: file_format for file_format in (import_module(module).FILE_FORMAT for module in MODULES)
}

PLAIN_TEXT = FILE_FORMATS["text"]
"""What a stream is that is of no other format."""

STANDARD = FILE_FORMATS["jsonl"]
"""What is written where nothing names a format: it holds all that an extraction tells."""

COMPRESSED = frozenset((".gz", ".bz2", ".xz", ".zst", ".lz4", ".z", ".zip", ".7z", ".tgz"))


def readable() -> list[FileFormat]:
    return [file_format for file_format in FILE_FORMATS.values() if file_format.read]


def writable() -> list[FileFormat]:
    return [file_format for file_format in FILE_FORMATS.values() if file_format.is_written]


def scorable() -> list[FileFormat]:
    """Those in which predictions are read to be scored: an annotation in them has its label also where it is wrong."""
    return [known for known in readable() if known is STANDARD or known.row_label]


def find_reader(name: str, *, has_path: bool = True) -> FileFormat:
    """The format of a name, to read; without a path there is nothing beside the stream. Raises UsageError."""
    found = FILE_FORMATS.get(name)
    if not (found and found.read):
        raise UsageError(unknown_name("input format", name, (known.name for known in readable())))
    if found.beside and not has_path:
        raise UsageError(f"{name} has its annotations in files beside the text: name a file or a folder to read")
    return found


def find_writer(name: str) -> FileFormat:
    """The format of a name, to write. Raises UsageError for one that is unknown, or only read."""
    found = FILE_FORMATS.get(name)
    if not (found and found.is_written):
        raise UsageError(unknown_name("output format", name, (known.name for known in writable())))
    return found


def suffixes() -> dict[str, FileFormat]:
    """The format of each known suffix."""
    return {suffix: known for known in FILE_FORMATS.values() for suffix in known.all_suffixes}


def suffix(name: str) -> str:
    """The suffix of a name in lower case, with its dot; `.pubtator.txt`, as BC5CDR is published, is `.pubtator`."""
    lower = Path(name).name.lower()
    for known in FILE_FORMATS.values():
        for long in known.long_suffixes:
            if lower.endswith(long):
                lower = lower.removesuffix(long) + known.suffixes[0]
    found = Path(lower).suffix
    return "" if found == "." else found


def by_suffix(name: str) -> FileFormat | None:
    """The format that a file's name tells, or None."""
    return suffixes().get(suffix(name))


def output_format(out: Path | None) -> FileFormat:
    """The format to write into `out`, which no `--to` names; None is standard output.

    Raises UsageError where the name is that of something else: what was written would be taken for it.
    """
    told = suffix(out.name) if out else ""
    found = suffixes().get(told) if told else STANDARD
    if found and found.writer:
        return found
    if found and found.folder_writer:
        pairs, name = found.folder_of.partition(",")[0], found.name
        raise UsageError(f"{out}: {name} is written as a folder of {pairs}; give --to {name} and a folder as --out")
    if told in COMPRESSED:
        raise UsageError(f"{out}: compressed files are not written; leave out {told}, and compress it afterwards")
    known = ", ".join(suffix for suffix, known in suffixes().items() if known.writer)
    raise UsageError(
        f"{out}: {told} names no format that is written ({known}); rename it, or name the format with --to"
    )
