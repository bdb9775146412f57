"""brat standoff: a text, `X.txt`, and beside it `X.ann`, or `X.a1` of a BioNLP task, with one annotation per line.

    T1<tab>Chemical 0 8<tab>Naloxone
    T2<tab>Disease 9 14;25 32<tab>renal failure     fragments, their texts joined by one space

Offsets are half-open and count code points of the text as decoded, without newline translation: a CR counts, and so
does a byte order mark, which brat's own decoder keeps (Stenetorp et al. 2012, https://brat.nlplab.org/standoff.html).
The offsets are authoritative, and fragments may come in any order. The last column must equal the text there except for
white space, which tools lose and add: any other difference means that the offsets belong to another text, and the
annotation is refused. All text-bound lines (T) are entities; relations, events, attributes, normalizations, notes and
`X.a2` with its events are skipped. A document's id is its name without `.txt`, as in brat.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from bioner_edge.document import Document, Entity, Span
from bioner_edge.errors import InputError
from bioner_edge.io import plain
from bioner_edge.io.contract import Beside, FileFormat, FolderWriter, Source, WriteSettings
from bioner_edge.io.notice import Notice, NoticeHandler, annotation_lines
from bioner_edge.text.surrogates import surrogate_error

if TYPE_CHECKING:
    from bioner_edge.extraction import Extraction

__all__ = ["FILE_FORMAT", "read"]

_ENTITY_SUFFIXES = (".ann", ".a1")
_OTHER_SUFFIXES = (".a2",)
_SUFFIXES = (*_ENTITY_SUFFIXES, *_OTHER_SUFFIXES)
_PAIR = "[0-9]{1,18} [0-9]{1,18}"  # int() refuses thousands of digits
_TEXT_BOUND = re.compile(rf"(T\S+)\t(\S+) ({_PAIR}(?:;{_PAIR})*)\t(.*)", re.DOTALL)
_OTHER = re.compile(r"[REAMN][0-9]+\S*\t.*|[#*].*", re.DOTALL)
_ROW = re.compile(r"\r*([TREAMN#][0-9]+|\*)\t")  # how a line begins
_BREAKS = dict.fromkeys(map(ord, "\t\n\v\f\r\x1c\x1d\x1e\x85\u2028\u2029"), " ")  # line ends of some reader, and tabs
_ESCAPES = str.maketrans({"\n": r"\n", "\r": r"\r", "\t": r"\t"})


def _document_file(path: Path) -> Path | None:
    """The text that `path` belongs to, `path` itself for a text, None for other files.

    An annotation file without its text is returned itself, so that reading it can say what is missing; not so `.a2`,
    which is never read.
    """
    suffix = path.suffix.lower()
    if suffix == ".txt":
        return path
    if suffix not in _SUFFIXES:
        return None
    return _beside(path, ".txt") or (path if suffix in _ENTITY_SUFFIXES else None)


def _has_annotations(path: Path) -> bool:
    """Whether `path` is a text with annotations beside it."""
    return path.suffix.lower() == ".txt" and any(_beside(path, suffix) for suffix in _SUFFIXES)


def _beside(path: Path, suffix: str) -> Path | None:
    candidates = (path.with_suffix(s) for s in (suffix, suffix.upper()))
    return next(filter(os.path.isfile, candidates), None)


def _annotation_files(path: Path) -> list[Path]:
    return [file for suffix in _ENTITY_SUFFIXES if (file := _beside(path, suffix))]


def read(source: Source, report: NoticeHandler) -> Iterator[Document]:
    """Read the one document of a stream, with the annotations of the files beside it.

    An annotation that does not fit the text goes to `report` with its line. `X.ann` and `X.a1` are both read; an
    annotation in both is taken once.
    """
    assert source.path
    name, path = source.name, source.path
    identifier = name.removesuffix(path.suffix)
    if path.suffix.lower() in _SUFFIXES:
        message = f"annotations without their text: there is no {path.stem}.txt beside it"
        report(Notice(name, None, message, text_lost=True))
        return
    for document in plain.read(source, report):
        found: dict[tuple[str, Entity], None] = {}
        for file in _annotation_files(path):
            annotations = _annotations(file, identifier + file.suffix, document.text, report)
            found |= dict.fromkeys(annotations.items())
        yield Document(identifier, document.text, tuple(entity for _, entity in found))


def _annotations(path: Path, name: str, text: str, report: NoticeHandler) -> dict[str, Entity]:
    """The entities of one annotation file by id."""
    found: dict[str, Entity] = {}
    for number, line in annotation_lines(path, name, report, _ROW):
        line = line.rstrip("\r")
        if not line.strip() or _OTHER.fullmatch(line):
            continue
        try:
            identifier, entity = _text_bound(line, text)
            if identifier in found:
                raise ValueError(f"a second {identifier}; ids must be unique in a file")
        except ValueError as error:
            report(Notice(name, number, str(error), row=line))
        else:
            found[identifier] = entity
    return found


def _text_bound(line: str, text: str) -> tuple[str, Entity]:
    """The id and entity of one line. Raises ValueError, with the reason, if it does not fit the text."""
    match = _TEXT_BOUND.fullmatch(line)
    if not match:
        raise ValueError("not a brat annotation; an entity is: T1, tab, Label START END[;START END…], tab, mention")
    identifier, label, offsets, written = match.groups()
    pairs = [tuple(map(int, pair.split(" "))) for pair in offsets.split(";")]
    for start, end in pairs:
        if not start < end <= len(text):
            raise ValueError(f"offsets [{start}, {end}) are not inside the text of {len(text)} characters")
    try:
        entity = Entity(label, tuple(Span(start, end) for start, end in sorted(pairs)))
    except ValueError:
        raise ValueError(f"the fragments {offsets} overlap") from None
    as_listed = " ".join(text[start:end] for start, end in pairs)
    if not any(_is_written(mention, written) for mention in (entity.mention(text), as_listed)):
        mark = "; the byte order mark before the text counts as a character" if text[0] == "\ufeff" else ""
        raise ValueError(f"the mention does not match the text at [{entity.start}, {entity.end}){mark}")
    return identifier, entity


def _is_written(mention: str, written: str) -> bool:
    """Whether a last column is `mention` except for white space and escaped line breaks; a comment may follow.

    Ignoring white space also covers both ways of joining fragments: by a space, and by nothing, as brat did before 1.3.
    """
    columns = written.split("\t")
    forms = {"".join(form.split()) for form in (mention, mention.translate(_ESCAPES))}
    return any("".join("".join(columns[:n]).split()) in forms for n in range(1, len(columns) + 1))


def _standoff(document: Document, labels: dict[str, str]) -> str:
    """Render the annotation file of a document. Raises InputError for what brat cannot represent.

    `labels` are those of the folder so far, by their written form.
    """
    if reason := surrogate_error(document.text):
        raise InputError(f"document {document.id!r}: {reason}")
    try:
        written = {entity.label: _label(entity.label, labels) for entity in document.entities}
    except InputError as error:
        raise InputError(f"document {document.id!r}: {error}") from None
    rows = []
    for number, entity in enumerate(document.entities, start=1):
        offsets = ";".join(f"{fragment.start} {fragment.end}" for fragment in entity.fragments)
        mention = entity.mention(document.text).translate(_BREAKS)
        rows.append(f"T{number}\t{written[entity.label]} {offsets}\t{mention}\n")
    return "".join(rows)


def _label(label: str, labels: dict[str, str]) -> str:
    """The written form of a label, which is added to `labels`. Raises InputError if brat cannot represent it."""
    name = re.sub(r"\s", "_", label)
    if not name or any(unicodedata.category(c) in ("Cc", "Cs") for c in name):
        raise InputError(f"brat cannot represent the label {label!r}")
    if labels.setdefault(name, label) != label:
        raise InputError(f"brat writes the labels {labels[name]!r} and {label!r} alike, {name!r}; rename one")
    return name


def _make_writer(settings: WriteSettings) -> FolderWriter:
    labels: dict[str, str] = {}
    for label in settings.labels:
        _label(label, labels)

    def render(extraction: Extraction) -> tuple[bytes, bytes]:
        document = extraction.to_document()
        annotations = _standoff(document, labels)
        return document.text.encode(), annotations.encode()

    return FolderWriter((".txt", ".ann"), render)


FILE_FORMAT = FileFormat(
    name="brat",
    title="brat",
    suffixes=_ENTITY_SUFFIXES,
    read=read,
    beside=Beside(
        _document_file,
        annotation_files=_annotation_files,
        claims=_has_annotations,
        unread_suffixes=_OTHER_SUFFIXES,
        row=re.compile(rb"T\d+\t\S+ \d+ \d+(;\d+ \d+)*[\t\r\n]", re.IGNORECASE),
    ),
    row_label=re.compile(r"T[^\t]*\t(\S+) "),
    folder_writer=_make_writer,
    folder_of="pairs, a text and its annotations",
)
