"""Recognize binary data by their first bytes, and say what to do before they can be read."""

from __future__ import annotations

import codecs
import re

__all__ = ["binary_error"]

_MAX_CONTROLS = 0.1  # share of control characters in UTF-8 text with NUL; binary data have more
_TEXT = "save its text first"
_UNPACK = "unpack it first"
_EXPORT = "export its texts first"
_NOTHING = "there are no characters in it to read"
_ICONV = "convert it: iconv -f {0} -t UTF-8"
_ZIP = rb"PK\x03\x04.*?"

_MAGIC = [
    (re.compile(pattern, re.DOTALL), what, advice)
    for pattern, what, advice in (
        (rb"\s*%PDF-\d", "a PDF", "save its text first, as pdftotext does"),
        (_ZIP + rb"word/", "a Word document (DOCX)", _TEXT),
        (_ZIP + rb"xl/", "an Excel workbook (XLSX)", _EXPORT),
        (_ZIP + rb"ppt/", "a PowerPoint presentation (PPTX)", _TEXT),
        (_ZIP + rb"\[Content_Types\]\.xml", "an Office document (DOCX, XLSX or PPTX)", _TEXT),
        (_ZIP + rb"application/vnd\.oasis\.opendocument", "an OpenDocument file", _TEXT),
        (_ZIP + rb"application/epub", "an EPUB", _TEXT),
        (rb"PK(\x03\x04|\x05\x06|\x07\x08)", "a ZIP archive", _UNPACK),
        (rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office document (DOC, XLS, PPT or MSG)", _TEXT),
        (rb"\{\\rtf", "RTF", _TEXT),
        (rb"\x1f\x8b", "compressed with gzip", _UNPACK),
        (rb"BZh[1-9]1AY&SY", "compressed with bzip2", _UNPACK),
        (rb"\xfd7zXZ\x00", "compressed with xz", _UNPACK),
        (rb"\x28\xb5\x2f\xfd", "compressed with zstd", _UNPACK),
        (rb"\x04\x22\x4d\x18", "compressed with lz4", _UNPACK),
        (rb"\x1f\x9d", "compressed with compress", _UNPACK),
        (rb"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
        (rb"Rar!\x1a\x07", "a RAR archive", _UNPACK),
        (rb".{257}ustar[\x00 ]", "a tar archive", _UNPACK),
        (rb"SQLite format 3\x00", "an SQLite database", _EXPORT),
        (rb"PAR1", "a Parquet table", _EXPORT),
        (rb"ARROW1\x00", "an Arrow table", _EXPORT),
        (rb"Obj\x01", "an Avro table", _EXPORT),
        (rb"\x89HDF\r\n", "an HDF5 file", _EXPORT),
        (rb"\x80[\x02-\x05][\x00-\xff]", "a Python pickle", _EXPORT),
        (rb"\x93NUMPY", "a NumPy array", _NOTHING),
        (rb"\x89PNG\r\n", "an image (PNG)", _NOTHING),
        (rb"\xff\xd8\xff", "an image (JPEG)", _NOTHING),
        (rb"GIF8[79]a", "an image (GIF)", _NOTHING),
        (rb"II\*\x00|MM\x00\*", "an image (TIFF)", _NOTHING),
        (rb"BM.{4}\x00\x00\x00\x00", "an image (BMP)", _NOTHING),
        (rb"RIFF.{4}WEBP", "an image (WebP)", _NOTHING),
        (rb".{4}ftyp(heic|heix|mif1|avif)", "an image (HEIC or AVIF)", _NOTHING),
        (rb".{128}DICM", "an image (DICOM)", _NOTHING),
        (rb"RIFF.{4}(WAVE|AVI )|.{4}ftyp|ID3[\x02-\x04]|OggS|fLaC", "sound or video", _NOTHING),
        (rb"GGUF[\x01-\x09]\x00", "a model (GGUF); give it with --model", _NOTHING),
        (rb"\x7fELF|MZ.{62}|\xcf\xfa\xed\xfe|\xca\xfe\xba\xbe", "a program", _NOTHING),
        (rb"\x00\x05\x16[\x00\x07]", "macOS metadata of a file (AppleDouble)", "delete it"),
        (rb"\x00\x00\x00\x01Bud1", "macOS metadata of a folder (.DS_Store)", "delete it"),
        (rb"\xff\xfe\x00\x00|\x00\x00\xfe\xff", "UTF-32", _ICONV.format("UTF-32")),
        (rb"\xff\xfe|\xfe\xff", "UTF-16", _ICONV.format("UTF-16")),
        (rb"([^\x00]\x00){8}", "UTF-16", _ICONV.format("UTF-16LE")),
        (rb"(\x00[^\x00]){8}", "UTF-16", _ICONV.format("UTF-16BE")),
    )
]
_NUL_WITHIN = {"a program", "sound or video", "a Parquet table", "an image (GIF)"}
"""Those whose first bytes may be words: a NUL later on tells them from text."""


def binary_error(head: bytes, *, characters: bool = False) -> str | None:
    """Why data cannot be read as text, and what to do, or None: 'is a PDF; save its text first'.

    `characters` says that they are known to be text: then valid UTF-8 is accepted whatever control characters it holds.
    """
    for pattern, what, advice in _MAGIC:
        if pattern.match(head) and (what not in _NUL_WITHIN or b"\x00" in head):
            return f"is {what}; {advice}"
    if b"\x00" in head and not _is_text(head, 1.0 if characters else _MAX_CONTROLS):
        return f"is binary data (NUL at byte offset {head.index(0)}); {_TEXT}"
    return None


def _is_text(head: bytes, most_controls: float) -> bool:
    """Whether data with NUL are text nevertheless: NUL is a character, and offsets stay right."""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)  # the last character may be cut
    except UnicodeDecodeError:
        return False
    return sum(c < " " and c not in "\t\n\v\f\r\x1b" for c in text) <= most_controls * len(text)
