"""Plain text: a file is a document, its name the id.

Every character is kept, CRLF and BOM too, so that offsets are the file's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from bioner_edge.document import Document
from bioner_edge.io.notice import Notice, NoticeHandler, undecodable

__all__ = ["read"]


def read(stream: BinaryIO, name: str, report: NoticeHandler) -> Iterator[Document]:
    """The one document of a UTF-8 stream; a stream that is empty or not UTF-8 is reported."""
    raw = stream.read()
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        report(Notice(name, None, undecodable(error), text_lost=True))
        return
    if text:
        yield Document(name, text)
    else:
        report(Notice(name, None, "the file is empty", text_lost=True))
