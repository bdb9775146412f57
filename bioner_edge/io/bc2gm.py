"""BioCreative II gene mention: one sentence per line, `ID text`, and the gold beside it in `GENE.eval`.

    P1 The insulin receptor was cloned.
    P1|3 17|insulin receptor

Gold offsets count non-space characters, the last one included (Smith et al. 2008, doi:10.1186/gb-2008-9-s2-s2, and the
corpus's README.GM); here they become half-open offsets of code points. All entities are of one type, Gene.
`ALTGENE.eval`, alternative spans that the corpus's scorer also accepts, is not read.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bioner_edge.document import Document, Entity
from bioner_edge.io.contract import Beside, FileFormat, Source
from bioner_edge.io.notice import Notice, NoticeHandler, annotation_lines, lines

__all__ = ["FILE_FORMAT", "read"]

_GOLD = "GENE.eval"
_ROW = re.compile(r"([^|]+)\|([0-9]{1,18}) ([0-9]{1,18})\|(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class _Row:
    """One line of the gold."""

    line: int
    first: int
    last: int
    mention: str

    def entity(self, text: str) -> Entity:
        """The entity of this row. Raises ValueError, with the reason, if it does not fit its sentence."""
        places = [place for place, character in enumerate(text) if not character.isspace()]
        if not self.first <= self.last < len(places):
            message = f"offsets {self.first} {self.last} are not inside the sentence"
            raise ValueError(f"{message}, which has {len(places)} characters without white space")
        start, end = places[self.first], places[self.last] + 1
        if text[start:end] != self.mention:
            raise ValueError(f"the mention does not match the text at [{start}, {end})")
        return Entity.at("Gene", start, end)


def _document_file(path: Path) -> Path | None:
    """`path` if it holds sentences; None for the other files of such a folder."""
    return path if path.suffix == ".in" else None


def _annotation_files(path: Path) -> list[Path]:
    return [gold] if (gold := path.with_name(_GOLD)).is_file() else []


def read(source: Source, report: NoticeHandler) -> Iterator[Document]:
    """Read the sentences of a stream, each a document, with the gold beside the file.

    Unusable lines of either file go to `report` with their numbers.
    """
    assert source.path
    name, gold_name = source.name, str(Path(source.name).with_name(_GOLD))
    gold = _gold(source.path.with_name(_GOLD), gold_name, report)
    seen: set[str] = set()
    for number, line in lines(source.stream, name, report):
        if not line.strip():
            continue
        identifier, _, text = line.partition(" ")
        if not identifier or not text:
            report(Notice(name, number, "a sentence needs: ID, one space, text", text_lost=True))
            continue
        if identifier in seen:
            report(Notice(name, number, f"a second sentence {identifier}; the first one has the gold"))
        seen.add(identifier)
        entities = []
        for row in gold.pop(identifier, []):
            try:
                entities.append(row.entity(text))
            except ValueError as error:
                report(Notice(gold_name, row.line, str(error)))
        yield Document(identifier, text, tuple(entities))
    for identifier, rows in gold.items():
        for row in rows:
            report(Notice(gold_name, row.line, f"there is no sentence {identifier}"))


def _gold(path: Path, name: str, report: NoticeHandler) -> dict[str, list[_Row]]:
    """The rows of the gold by sentence."""
    rows: defaultdict[str, list[_Row]] = defaultdict(list)
    for number, line in annotation_lines(path, name, report):
        if match := _ROW.fullmatch(line):
            identifier, first, last, mention = match.groups()
            rows[identifier].append(_Row(number, int(first), int(last), mention))
        elif line.strip():
            report(Notice(name, number, "an annotation needs: ID|first last|mention"))
    return rows


FILE_FORMAT = FileFormat(
    name="bc2gm", title="BC2GM", read=read, beside=Beside(_document_file, annotation_files=_annotation_files)
)
