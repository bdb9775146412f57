"""The registry of file formats, looked up by the user's name for one or by the suffix of a file.

The same rule holds for input and output. A known suffix selects its file format. Any other suffix is refused:
otherwise a table or a web page would be read as text, and JSON Lines would be written under a misleading name. Without
a suffix, the content decides on input (`sniff`), and the standard file format is written. `--from` and `--to` take
precedence over the name.
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
"""One line for each; messages list the file formats, and content is recognized, in this order."""

FILE_FORMATS: dict[str, FileFormat] = {
    file_format.name: file_format for file_format in (import_module(module).FILE_FORMAT for module in MODULES)
}

PLAIN_TEXT = FILE_FORMATS["text"]
"""The file format of a stream that no other one recognizes."""

STANDARD = FILE_FORMATS["jsonl"]
"""The default output: it holds everything in an extraction."""

COMPRESSED = frozenset((".gz", ".bz2", ".xz", ".zst", ".lz4", ".z", ".zip", ".7z", ".tgz"))


def readable() -> list[FileFormat]:
    return [file_format for file_format in FILE_FORMATS.values() if file_format.read]


def writable() -> list[FileFormat]:
    return [file_format for file_format in FILE_FORMATS.values() if file_format.is_written]


def scorable() -> list[FileFormat]:
    """The file formats of predictions to score: those in which a malformed annotation still has a label."""
    return [known for known in readable() if known is STANDARD or known.row_label]


def find_reader(name: str, *, has_path: bool = True) -> FileFormat:
    """The file format of a name, for reading; without a path, annotations beside the text are not available.

    Raises UsageError for a name that is unknown, or needs a path."""
    found = FILE_FORMATS.get(name)
    if not (found and found.read):
        raise UsageError(unknown_name("input format", name, (known.name for known in readable())))
    if found.beside and not has_path:
        raise UsageError(f"{name} has its annotations in files beside the text: give a file or a folder")
    return found


def find_writer(name: str) -> FileFormat:
    """The file format of a name, for writing. Raises UsageError for one that is unknown or only read."""
    found = FILE_FORMATS.get(name)
    if not (found and found.is_written):
        raise UsageError(unknown_name("output format", name, (known.name for known in writable())))
    return found


def suffixes() -> dict[str, FileFormat]:
    """The file format of each known suffix."""
    return {suffix: known for known in FILE_FORMATS.values() for suffix in known.all_suffixes}


def suffix(name: str) -> str:
    """The suffix of a name in lower case, with its dot; `.pubtator.txt`, as in BC5CDR, becomes `.pubtator`."""
    lower = Path(name).name.lower()
    for known in FILE_FORMATS.values():
        for long in known.long_suffixes:
            if lower.endswith(long):
                lower = lower.removesuffix(long) + known.suffixes[0]
    found = Path(lower).suffix
    return "" if found == "." else found


def by_suffix(name: str) -> FileFormat | None:
    """The file format of a name's suffix, or None."""
    return suffixes().get(suffix(name))


def output_format(out: Path | None) -> FileFormat:
    """The file format for `out` without `--to`; None is standard output.

    Raises UsageError for a suffix of something else, for which the output would be mistaken.
    """
    own = suffix(out.name) if out else ""
    found = suffixes().get(own) if own else STANDARD
    if found and found.writer:
        return found
    if found and found.folder_writer:
        pairs, name = found.folder_of.partition(",")[0], found.name
        raise UsageError(f"{out}: {name} is written as a folder of {pairs}; give --to {name} and a folder as --out")
    if own in COMPRESSED:
        raise UsageError(f"{out}: compressed files are not written; leave out {own}, and compress it afterwards")
    known = ", ".join(suffix for suffix, known in suffixes().items() if known.writer)
    raise UsageError(
        f"{out}: {own} is not the suffix of an output format ({known}); rename it, or give the format with --to"
    )
