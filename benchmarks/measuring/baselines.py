"""What a cell reads its documents with: our extractor under one of its constraints, or a baseline that does the same
as people do it today.

    llama-cpp-python   its high-level API with its own grammar sampler; see completions.py
    text-filter        our decoding without any constraint; then what an answer writes is looked for in the text, and
                       marked wherever it stands there between two boundaries. What does not is dropped, and that alone
                       counts as a problem. Written offsets are taken as they are, where they are inside the text; of a
                       brat line the mention is taken, not the offsets.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

from bioner_edge import formats
from bioner_edge.document import Document, Span
from bioner_edge.errors import UsageError, unknown_name
from bioner_edge.extract import CONSTRAINTS, Extractor
from bioner_edge.formats import terms
from bioner_edge.formats.contract import Format, Parsed
from bioner_edge.formats.escapes import unescape
from bioner_edge.formats.label_names import types
from bioner_edge.formats.reading import Cursor, Item
from bioner_edge.loading import load

__all__ = ["BASELINES", "DECODINGS", "open_reader", "reader", "text_filter"]

BASELINES = ("llama-cpp-python", "text-filter")
DECODINGS = (*CONSTRAINTS, *BASELINES)


def reader(
    model: str,
    *,
    decoding: str,
    format: str,
    labels: Sequence[str],
    guidelines: Mapping[str, str] | None = None,
    unit: str | None = None,
    threads: int | None = None,
    force: bool = False,
) -> Extractor:
    """A document goes in, an extraction comes out, whatever the decoding. `unit` None is that of the manifest.

    A format or label that the model was not tuned for is no reason to warn: it is what a benchmark asks about. Raises
    as `bioner_edge.load` does, and UsageError for a decoding that is not known, or not one of this model's runtime.
    """
    settings: dict[str, Any] = {"format": format, "labels": labels, "guidelines": guidelines}
    settings |= {"threads": threads, "force": force}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if decoding == "llama-cpp-python":
            from bioner_edge.benchmarks.measuring import completions

            found: Extractor = completions.load(model, **settings)
        elif decoding == "text-filter":
            found = load(model, constraint="free", **settings)
            found.format = text_filter(format)
        elif decoding in CONSTRAINTS:
            found = load(model, constraint=decoding, **settings)
        else:
            raise UsageError(unknown_name("decoding", decoding, DECODINGS))
    found.unit = unit or found.unit
    return found


def open_reader(model: str, **settings: Any) -> tuple[Extractor, None]:
    """As `reader`, for another process; see `guard.Opening`."""
    return reader(model, **settings), None


# --- The text filter


def text_filter(name: str) -> Format:
    """A format, but for how an unconstrained answer is read: as the text filter does."""
    form = formats.get(name)

    def salvage(answer: str, document: Document, labels: Sequence[str]) -> Parsed:
        if name not in _WRITTEN:  # that finds terms everywhere, and takes offsets as they are
            read = form.salvage(answer, document, labels)
        else:
            items = [*_WRITTEN[name](answer, document, labels)]
            read = terms.reading(answer, document, lambda cursor: _all(cursor, items), lambda rest: ())
        return replace(read, problems=tuple(p for p in read.problems if p.kind == "ungrounded"))

    return cast(Format, SimpleNamespace(**{**vars(form), "salvage": salvage}))


def _all(cursor: Cursor, items: Iterable[Item]) -> Iterator[Item]:
    yield from items
    cursor.at = len(cursor.answer)


def _tagged(name: str) -> Callable[[str, Document, Sequence[str]], Iterator[Item]]:
    """The mentions of a tagged copy, which is its own text here: so no mention is measured against the document's."""

    def written(answer: str, document: Document, labels: Sequence[str]) -> Iterator[Item]:
        copy = Document("", _MARKS[name].sub(lambda found: found["kept"] or "", answer))
        read = formats.get(name).salvage(answer, copy, labels)
        for entity, place in zip(read.entities, read.places, strict=True):
            yield Item(entity.label, entity.mention(copy.text).strip(), place)

    return written


_MARKS = {
    "single_tag": re.compile(r"\\(?P<kept>[@#\\])|@@|##"),
    "multi_tag": re.compile(r"\\(?P<kept>[\\<])|<(?=[A-Za-z/\x80-\U0010ffff])/?[^<>\\\x00-\x1f\x7f]*>"),
}


def _rows(answer: str, document: Document, labels: Sequence[str]) -> Iterator[Item]:
    """The mentions of tokens and BIO tags; their tokens may stand in the text with white space between them or not."""
    names = types(labels)
    open_item: Item | None = None
    for line in re.finditer(r"[^\n]+", answer):
        token, _, tag = re.sub(r"\s+", "\t", line[0].strip()).rpartition("\t")
        label = names.get(tag[2:]) if token and tag[:2] in ("B-", "I-") else None
        if open_item and not (tag[:2] == "I-" and label == open_item.label):
            yield _found(open_item, document.text)
            open_item = None
        if label:
            before = open_item.value if open_item else []
            start = open_item.place.start if open_item else line.start()
            open_item = Item(label, [*before, *unescape(token).split()], Span(start, line.end()))
    if open_item:
        yield _found(open_item, document.text)


def _found(item: Item, text: str) -> Item:
    """A mention as the text spells it where it has these tokens, else with blanks between them."""
    spelled = re.search(r"\s*".join(map(re.escape, item.value)), text)
    return item._replace(value=spelled[0] if spelled else " ".join(item.value))


def _lines(answer: str, document: Document, labels: Sequence[str]) -> Iterator[Item]:
    """The mentions of brat lines, numbered or not."""
    names = types(labels)
    for line in re.finditer(r"^(?:T\d+\s+)?(?P<type>\S+)[0-9; ]*\t(?P<mention>.+)$", answer, re.MULTILINE):
        if line["type"] in names:
            yield Item(names[line["type"]], unescape(line["mention"]).strip(), Span(*line.span()))


# What a format writes, as (label, surface), where its own reading needs more than that to be right.
_WRITTEN: dict[str, Callable[[str, Document, Sequence[str]], Iterator[Item]]] = {
    "single_tag": _tagged("single_tag"),
    "multi_tag": _tagged("multi_tag"),
    "multi_bio": _rows,
    "multi_brat": _lines,
}
