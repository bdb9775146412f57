"""Plain text: a file is a document, its name the id.

Every character is kept, even CR and BOM, so that offsets are those of the file.
"""

from __future__ import annotations

from collections.abc import Iterator

from bioner_edge.document import Document
from bioner_edge.io.contract import FileFormat, Source
from bioner_edge.io.notice import Notice, NoticeHandler, decode_message

__all__ = ["FILE_FORMAT", "read"]


def read(source: Source, report: NoticeHandler) -> Iterator[Document]:
    """Read the one document of a UTF-8 stream; a stream that is empty or not UTF-8 is reported."""
    raw = source.stream.read()
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        report(Notice(source.name, None, decode_message(error), text_lost=True))
        return
    if text:
        yield Document(source.name, text)
    else:
        report(Notice(source.name, None, "the file is empty", text_lost=True))


FILE_FORMAT = FileFormat(name="text", title="text", suffixes=(".txt", ".text", ".md"), read=read)
