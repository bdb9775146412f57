"""Code shared by tag formats: write, read and constrain a copy of the text with marks around each mention."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from bioner_edge.decoding.tagged_copy import TaggedCopy
from bioner_edge.document import Document, Entity, Span
from bioner_edge.formats.contract import Parsed, Problem
from bioner_edge.formats.terms import quote
from bioner_edge.text.tokens import boundaries

__all__ = ["Marks", "Piece", "constraint", "nest", "read", "write"]


class Marks(NamedTuple):
    """The marks of one type."""

    opening: str
    closing: str


class Piece(NamedTuple):
    """A mark or a character of an answer, at [start, end); `problem` says what is wrong with it, or is None."""

    kind: Literal["open", "close", "character"]
    value: str
    """The mark, or the character of the text that is meant."""
    start: int
    end: int
    problem: str | None = None


# Writing


def write(document: Document, characters: Sequence[str], marks: Mapping[str, Marks]) -> str:
    """The text, a string for each character, with its marks by label.

    At one position, the mention that ends later opens first; ties follow the order of the labels.
    """
    kept, _ = nest(document, list(marks))
    opens: dict[int, list[str]] = {}
    closes: dict[int, list[str]] = {}
    for entity in kept:  # outer before inner
        opens.setdefault(entity.start, []).append(marks[entity.label].opening)
        closes.setdefault(entity.end, []).insert(0, marks[entity.label].closing)
    places = sorted({*opens, *closes, 0, len(document.text)})
    written: list[str] = []
    for here, after in zip(places, [*places[1:], len(document.text)], strict=True):
        written += [*closes.get(here, ()), *opens.get(here, ()), *characters[here:after]]
    return "".join(written)


def nest(document: Document, labels: Sequence[str]) -> tuple[list[Entity], list[tuple[Entity, str]]]:
    """The entities that nest, outer before inner, and those dropped, with the reasons: discontinuous, inside a token,
    crossing another, or a second one of the same type at one position."""
    rank = {label: n for n, label in enumerate(labels)}
    asked = {e.key: e for e in document.entities if e.label in rank}
    starts, ends = boundaries(document.text)
    kept: list[Entity] = []
    dropped: list[tuple[Entity, str]] = []
    around: list[Entity] = []  # the entities that enclose the current position
    for entity in sorted(asked.values(), key=lambda e: (e.start, -e.end, rank[e.label])):
        while around and around[-1].end <= entity.start:
            around.pop()
        if len(entity.fragments) > 1:
            dropped.append((entity, "discontinuous"))
        elif entity.start not in starts or entity.end not in ends:
            dropped.append((entity, "inside a token"))
        elif around and entity.end > around[-1].end:
            dropped.append((entity, "crosses another"))
        elif any(other.start == entity.start and other.label == entity.label for other in around):
            dropped.append((entity, "same type twice from one position"))
        else:
            kept.append(entity)
            around.append(entity)
    return kept, dropped


# Reading


def read(pieces: Iterable[Piece], answer: str, text: str, marks: Mapping[str, Marks], *, strict: bool) -> Parsed:
    """Read the mentions between the marks. `strict` stops at the first piece that is neither a declared, nested mark
    nor the next character of the text. Otherwise stray marks are skipped, and once the copy departs from the text, each
    later mention is searched for between token boundaries, further right than the one before it."""
    opening = {mark.opening: label for label, mark in marks.items()}
    problems: list[Problem] = []
    copy: list[str] = []  # the answer without its marks
    spans: list[tuple[str, int, int, Span]] = []  # label, [start, end) of the copy, place in the answer
    stack: list[tuple[str, int, int]] = []  # label, start in the copy, start in the answer
    departed: int | None = None  # where the copy first differs from the text
    for piece in pieces:
        message = piece.problem
        if piece.kind == "open":
            if piece.value in opening:
                stack.append((opening[piece.value], len(copy), piece.start))
            else:
                message = f"{piece.value[:42]} is not a declared tag; expected one of {', '.join(opening)}"
        elif piece.kind == "close":
            expected = marks[stack[-1][0]].closing if stack else "no closing tag"
            if expected != piece.value:
                message = f"{piece.value[:43]} closes nothing; expected {expected}"
            elif (top := stack.pop())[1] == len(copy):
                message = "an empty tag; expected at least one character"
            else:
                label, start, opened = top
                spans.append((label, start, len(copy), Span(_blank_before(answer, opened), piece.end)))
        else:
            if departed is None and text[len(copy) : len(copy) + 1] != piece.value:
                departed = len(copy)
                if not message:  # else it is reported already
                    character = repr(text[departed]) if departed < len(text) else "the end"
                    departure = f"the copy departs from the text: expected {character}"
                    problems.append(Problem.at("ungrounded", answer, piece.start, departure))
            copy.append(piece.value)
        if message:
            problems.append(Problem.at("syntax", answer, piece.start, message))
        if problems and strict:
            break
    else:
        for label, _, opened in stack:
            message = f"{marks[label].opening} is never closed; expected {marks[label].closing}"
            problems.append(Problem.at("syntax", answer, opened, message))
        if departed is None and len(copy) < len(text):
            departed = len(copy)
            message = f"the copy ends at offset {departed} of {len(text)}"
            problems.append(Problem.at("ungrounded", answer, len(answer), message))
    return _ground(spans, "".join(copy), text, departed, answer, problems)


def _blank_before(answer: str, start: int) -> int:
    """Where the blanks before a tag begin. Tokenizers attach a blank to the next word, so the tag is chosen there."""
    return len(answer[:start].rstrip(" "))


def _ground(
    spans: list[tuple[str, int, int, Span]],
    copy: str,
    text: str,
    departed: int | None,
    answer: str,
    problems: list[Problem],
) -> Parsed:
    """Map spans of the copy to entities of the text: same offsets up to the departure, found by search after it."""
    exact = len(text) if departed is None else departed
    starts, ends = boundaries(text) if departed is not None else (frozenset[int](), frozenset[int]())
    found: dict[Entity, Span] = {}
    at, until, found_at = exact, exact, exact  # the last span found in the copy, and its offset in the text
    for label, start, end, place in sorted(spans, key=lambda s: (s[1], -s[2])):
        if end > exact:
            # Inside the last span at the same relative offset, else from its end on.
            offset = _find(text, copy[start:end], found_at + min(start, until) - at, starts, ends)
            if offset is None:
                message = f"{quote(copy[start:end])} is not in the text from here on"
                problems.append(Problem.at("ungrounded", answer, place.start, message))
                continue
            if end > until:
                at, until, found_at = start, end, offset
            start, end = offset, offset + end - start
        found.setdefault(Entity.at(label, start, end), place)
    return Parsed(tuple(found), tuple(found.values()), tuple(problems))


def _find(text: str, surface: str, cursor: int, starts: Collection[int], ends: Collection[int]) -> int | None:
    offset = text.find(surface, cursor)
    while offset >= 0 and not (offset in starts and offset + len(surface) in ends):
        offset = text.find(surface, offset + 1)
    return offset if offset >= 0 else None


# The constraint


def constraint(document: Document, characters: Sequence[str], marks: Iterable[Marks]) -> TaggedCopy:
    """The grounded constraint: exactly the text, with marks that open and close at token boundaries."""
    opening, closing = zip(*((mark.opening.encode(), mark.closing.encode()) for mark in marks), strict=True)
    return TaggedCopy(characters, *boundaries(document.text), opening, closing)
