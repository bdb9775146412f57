"""multi_tag: a copy of the text in which each mention stands between tags that name its type.

    <Chemical>Naloxone</Chemical> reverses the antihypertensive effect of <Chemical>clonidine</Chemical>.

Inline XML after LLMs4NER (arXiv:2601.17898); the template is ours. A backslash stands before every backslash of the
text, and before every `<` that could open a tag: one that a letter, `/` or any character beyond ASCII follows. Tags
may nest; at one position each type opens at most once; a tag encloses at least one character.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence

from ..boundaries import boundaries
from ..decoding.automaton import ByteAutomaton
from ..decoding.tagged_copy import TaggedCopy
from ..errors import UsageError
from ..span import Document, Entity, Span
from .contract import TEXT, Message, Parsed, Problem

__all__ = ["calls", "constraint", "gbnf", "inexpressible", "instruction", "parse", "render", "salvage"]

_NAME = re.compile(r"[A-Za-z\x80-\ud7ff\ue000-\U0010ffff][^<>\\\x00-\x1f\x7f\ud800-\udfff]*")
_ESCAPED = re.compile(r"\\|<(?=[A-Za-z/\x80-\U0010ffff])")
_PIECE = re.compile(
    r"(?P<tag><(?=[A-Za-z/\x80-\U0010ffff])(?P<close>/?)(?P<name>[^<>\\\x00-\x1f\x7f]*)>)"
    r"|\\(?P<escaped>[\\<])|(?P<plain>.)",
    re.DOTALL,
)


def _names(labels: Sequence[str]) -> dict[str, str]:
    """Tag name -> label. Raises UsageError for a label that no tag can hold, and for two that share a tag."""
    names: dict[str, str] = {}
    for label in labels:
        name = "_".join(label.split())
        if not _NAME.fullmatch(name):
            told = "it must start with a letter and hold no '<', '>', backslash or control"
            raise UsageError(f"label {label!r} cannot be a tag: {told}")
        if name in names:
            raise UsageError(f"labels {names[name]!r} and {label!r} would share the tag <{name}>; rename one")
        names[name] = label
    if not names:
        raise UsageError("at least one label is needed")
    return names


def calls(labels: Sequence[str]) -> list[list[str]]:
    """One answer holds all labels."""
    _names(labels)
    return [list(labels)]


def instruction(labels: Sequence[str], guidelines: Mapping[str, str]) -> list[Message]:
    """A short order, then a line for each type that has a guideline; the text follows as the user's message."""
    order = f"Tag {', '.join(_names(labels))}."
    notes = [f"{label}: {guidelines[label]}" for label in labels if label in guidelines]
    return [{"role": "system", "content": "\n".join([order, *notes])}, {"role": "user", "content": TEXT}]


# Writing


def render(document: Document, labels: Sequence[str]) -> str:
    """The text with its tags. At one position what ends later opens first, then the order of the labels."""
    tag = {label: name for name, label in _names(labels).items()}
    kept, _ = _nested(document, labels)
    opens: dict[int, list[str]] = {}
    closes: dict[int, list[str]] = {}
    for entity in kept:  # outer before inner
        opens.setdefault(entity.start, []).append(f"<{tag[entity.label]}>")
        closes.setdefault(entity.end, []).insert(0, f"</{tag[entity.label]}>")
    marks = sorted({*opens, *closes, 0, len(document.text)})
    written = []
    escaped = _escape(document.text)
    for here, after in zip(marks, [*marks[1:], len(document.text)], strict=True):
        written += [*closes.get(here, ()), *opens.get(here, ()), *escaped[here:after]]
    return "".join(written)


def _escape(text: str) -> list[str]:
    """Each character of the text as it is written."""
    characters = list(text)
    for match in _ESCAPED.finditer(text):
        characters[match.start()] = "\\" + match.group()
    return characters


def inexpressible(document: Document, labels: Sequence[str]) -> list[tuple[Entity, str]]:
    """What tags cannot hold: discontinuous, inside a token, crossing, or the same type twice from one position."""
    _names(labels)
    return _nested(document, labels)[1]


def _nested(document: Document, labels: Sequence[str]) -> tuple[list[Entity], list[tuple[Entity, str]]]:
    """The entities that nest, outer before inner, and those left out with their reasons."""
    rank = {label: n for n, label in enumerate(labels)}
    asked = {e.key: e for e in document.entities if e.label in rank}
    starts, ends = boundaries(document.text)
    kept: list[Entity] = []
    dropped: list[tuple[Entity, str]] = []
    around: list[Entity] = []  # those that enclose the place reached
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


def parse(answer: str, document: Document, labels: Sequence[str]) -> Parsed:
    """Read an answer strictly: up to the first thing that is not a declared, nested tag or the text itself."""
    return _read(answer, document.text, _names(labels), strict=True)


def salvage(answer: str, document: Document, labels: Sequence[str]) -> Parsed:
    """Read what can be read: stray tags are left out, and where the copy departs from the text each mention that
    follows is looked for, further right than the one before it, between boundaries."""
    return _read(answer, document.text, _names(labels), strict=False)


def _read(answer: str, text: str, names: Mapping[str, str], *, strict: bool) -> Parsed:
    problems: list[Problem] = []
    copy: list[str] = []  # the answer without its tags
    spans: list[tuple[str, int, int, Span]] = []  # label, [start, end) of the copy, place in the answer
    stack: list[tuple[str, int, int]] = []  # name, start in the copy, start in the answer
    departed: int | None = None  # where the copy first differs from the text
    for match in _PIECE.finditer(answer):
        here = match.start()
        message = None
        if match["tag"] and not match["close"]:
            if match["name"] in names:
                stack.append((match["name"], len(copy), here))
            else:
                known = ", ".join(f"<{name}>" for name in names)
                message = f"<{match['name'][:40]}> is not a declared tag; expected one of {known}"
        elif match["tag"]:
            if not stack or stack[-1][0] != match["name"]:
                expected = f"</{stack[-1][0]}>" if stack else "no closing tag"
                message = f"</{match['name'][:40]}> closes nothing; expected {expected}"
            elif (top := stack.pop())[1] == len(copy):
                message = "an empty tag; expected at least one character"
            else:
                name, start, opened = top
                spans.append((names[name], start, len(copy), Span(_blank_before(answer, opened), match.end())))
        else:
            char = match["escaped"] or match["plain"]
            if match["plain"] == "\\" or (match["plain"] == "<" and _ESCAPED.match(answer, here)):
                backslash = r"expected '\\' or '\<' after a backslash"
                message = backslash if char == "\\" else "expected a whole tag after '<'"
            if departed is None and text[len(copy) : len(copy) + 1] != char:
                departed = len(copy)
                if not message:  # one fault, one problem
                    wanted = repr(text[departed]) if departed < len(text) else "the end"
                    told = f"the copy departs from the text: expected {wanted}"
                    problems.append(Problem.at("ungrounded", answer, here, told))
            copy.append(char)
        if message:
            problems.append(Problem.at("syntax", answer, here, message))
        if problems and strict:
            break
    else:
        for name, _, opened in stack:
            problems.append(Problem.at("syntax", answer, opened, f"<{name}> is never closed; expected </{name}>"))
        if departed is None and len(copy) < len(text):
            departed = len(copy)
            told = f"the copy ends at offset {departed} of {len(text)}"
            problems.append(Problem.at("ungrounded", answer, len(answer), told))
    return _grounded(spans, "".join(copy), text, departed, answer, problems)


def _blank_before(answer: str, start: int) -> int:
    """A tokenizer that glues blanks to words decides about a tag at the blank: it belongs to the tag's choices."""
    return len(answer[:start].rstrip(" "))


def _grounded(
    spans: list[tuple[str, int, int, Span]],
    copy: str,
    text: str,
    departed: int | None,
    answer: str,
    problems: list[Problem],
) -> Parsed:
    """Spans of the copy as entities of the text: the same offsets before the departure, found again after it."""
    exact = len(text) if departed is None else departed
    starts, ends = boundaries(text) if departed is not None else (frozenset[int](), frozenset[int]())
    found: dict[Entity, Span] = {}
    at, until, found_at = exact, exact, exact  # the stretch of the copy found last, and its offset in the text
    for label, start, end, place in sorted(spans, key=lambda s: (s[1], -s[2])):
        if end > exact:
            # Inside the last one at its place in there, else from its end on; before the departure where the copy says.
            offset = _find(text, copy[start:end], found_at + min(start, until) - at, starts, ends)
            if offset is None:
                told = f"{json.dumps(copy[start:end], ensure_ascii=False)} is not in the text from here on"
                problems.append(Problem.at("ungrounded", answer, place.start, told))
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


# Constraining


def gbnf(labels: Sequence[str]) -> str:
    """The grammar: a `<` of the text may be followed by nothing that would make it a tag."""
    tags = [f"{_quoted(f'<{n}>')} inner {_quoted(f'</{n}>')}" for n in _names(labels)]
    return "\n".join(
        [
            'root ::= item* "<"*',
            'item ::= [^<\\\\] | escape | tag | "<"+ ([^<\\\\/A-Za-z\\x80-\\U0010FFFF] | escape | tag)',
            'inner ::= item+ "<"* | "<"+',
            'escape ::= "\\\\" [\\\\<]',
            f"tag ::= {' | '.join(tags)}",
            "",
        ]
    )


def _quoted(literal: str) -> str:
    return '"' + literal.replace("\\", "\\\\").replace('"', '\\"') + '"'


def constraint(document: Document, labels: Sequence[str]) -> ByteAutomaton:
    """Exactly the text, tags opening at the left edge of a token and closing at the right edge of one."""
    names = _names(labels)
    opening, closing = ([mark.format(n).encode() for n in names] for mark in ("<{}>", "</{}>"))
    return TaggedCopy(_escape(document.text), *boundaries(document.text), opening, closing)
