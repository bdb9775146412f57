"""multi_bio: one token per line, a tab, and its tag: B-TYPE at the start of a mention, I-TYPE inside, else O.

    Naloxone⇥B-Chemical
    reverses⇥O

After CoNLL and GNER (arXiv:2402.16602); the template is ours. Tokens are those of text/tokens.py; lines end in LF.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from bioner_edge.decoding.automaton import ByteAutomaton
from bioner_edge.decoding.token_tags import TokenTags
from bioner_edge.document import Document, Entity, Span
from bioner_edge.formats import grammar
from bioner_edge.formats.contract import Message, Parsed, Problem
from bioner_edge.formats.escapes import FIELD, FIELD_RULE, escape, unescape
from bioner_edge.formats.label_names import types
from bioner_edge.formats.messages import ask
from bioner_edge.text.tokens import tokens

__all__ = ["CANNOT", "constraint", "gbnf", "inexpressible", "instruction", "parse", "questions", "render", "salvage"]

CANNOT = "discontinuous mentions; mentions inside a token; mentions that nest or overlap"

_FIELD = re.compile(FIELD)
_LINE = re.compile(rf"(?P<token>{FIELD})\t(?P<tag>[^\t]*)")
_LENIENT_LINE = re.compile(r"\s*(?P<token>\S.*?)\s+(?P<tag>\S+)\s*")


def questions(labels: Sequence[str]) -> list[list[str]]:
    """One answer holds all labels."""
    types(labels)
    return [list(labels)]


def instruction(labels: Sequence[str], guidelines: Mapping[str, str]) -> list[Message]:
    order = f"Write each token of the text on a line with its BIO tag behind a tab. Types: {', '.join(types(labels))}."
    return ask(order, labels, guidelines)


# Writing


def render(document: Document, labels: Sequence[str]) -> str:
    name = {label: name for name, label in types(labels).items()}
    begins = {e.start: e for e in _drop_overlapping(document, labels)[0]}
    lines, inside = [], None
    for token in tokens(document.text):
        if token.start in begins:
            inside = begins[token.start]
        tag = "O"
        if inside and token.start < inside.end:
            tag = f"{'B' if token.start == inside.start else 'I'}-{name[inside.label]}"
        lines.append(f"{escape(document.text[token.start : token.end])}\t{tag}")
    return "\n".join(lines)


def inexpressible(document: Document, labels: Sequence[str]) -> list[tuple[Entity, str]]:
    types(labels)
    return _drop_overlapping(document, labels)[1]


def _drop_overlapping(document: Document, labels: Sequence[str]) -> tuple[list[Entity], list[tuple[Entity, str]]]:
    """The entities kept, from the left, the longer of two that overlap first; and those dropped, with the reasons."""
    rank = {label: n for n, label in enumerate(labels)}
    asked = {e.key: e for e in document.entities if e.label in rank}
    found = tokens(document.text)
    starts, ends = {t.start for t in found}, {t.end for t in found}
    kept: list[Entity] = []
    dropped: list[tuple[Entity, str]] = []
    for entity in sorted(asked.values(), key=lambda e: (e.start, -e.end, rank[e.label])):
        if len(entity.fragments) > 1:
            dropped.append((entity, "discontinuous"))
        elif entity.start not in starts or entity.end not in ends:
            dropped.append((entity, "inside a token"))
        elif kept and entity.start < kept[-1].end:
            dropped.append((entity, "nested or overlapping"))
        else:
            kept.append(entity)
    return kept, dropped


# Reading


class _Row(NamedTuple):
    """A line of an answer. `label` is None for O and unknown tags, `token` is None where the line has none."""

    token: str | None
    begins: bool
    label: str | None
    place: Span | None
    problem: Problem | None


def parse(answer: str, document: Document, labels: Sequence[str]) -> Parsed:
    return _read(answer, document, types(labels), strict=True)


def salvage(answer: str, document: Document, labels: Sequence[str]) -> Parsed:
    """Also accept other white space between the columns, let an I- tag that continues nothing begin a mention, and
    search further right for a token that is not the next one."""
    return _read(answer, document, types(labels), strict=False)


def _read(answer: str, document: Document, names: Mapping[str, str], *, strict: bool) -> Parsed:
    places = tokens(document.text)
    expected = [document.text[t.start : t.end] for t in places]
    problems: list[Problem] = []
    mentions: list[tuple[Entity, Span]] = []
    reached = 0
    inside = False  # whether the previous row belongs to the last mention
    for row in _rows(answer, names):
        problems += [row.problem] if row.problem else []
        if row.problem and strict:
            break
        at = reached
        while at < len(expected) and expected[at] != row.token:
            at += 1
        if at != reached or at == len(expected):
            if not row.problem:
                token = repr(expected[reached]) if reached < len(expected) else "the end"
                message = f"the tokens depart from the text: expected {token}"
                problems.append(Problem.at("ungrounded", answer, row.place.start if row.place else 0, message))
            inside = False
            if strict:
                break
        if at == len(expected):
            continue
        reached = at + 1
        if row.label is None or row.place is None:
            inside = False
        elif inside and not row.begins and mentions[-1][0].label == row.label:
            entity, place = mentions[-1]
            longer = Entity.at(row.label, entity.start, places[at].end)
            mentions[-1] = longer, Span(place.start, row.place.end)
        else:
            mentions.append((Entity.at(row.label, places[at].start, places[at].end), row.place))
            inside = True
    else:
        if reached < len(expected):
            message = f"the answer ends after token {reached} of {len(expected)}"
            problems.append(Problem.at("ungrounded", answer, len(answer), message))
    return Parsed(tuple(e for e, _ in mentions), tuple(place for _, place in mentions), tuple(problems))


def _rows(answer: str, names: Mapping[str, str]) -> Iterator[_Row]:
    at, previous = 0, None  # the label of the previous line
    for line in answer.split("\n") if answer else []:
        match = _LINE.fullmatch(line) or _LENIENT_LINE.fullmatch(line)
        token, tag = (unescape(match["token"]), match["tag"]) if match else (None, "")
        label = names.get(tag[2:]) if tag[:2] in ("B-", "I-") else None
        problem = None
        if match is None or match.re is _LENIENT_LINE:
            read = _FIELD.match(line)
            column = read.end() if read else 0
            expected = "a tab and a tag" if read else "a token"
            problem = Problem.at("syntax", answer, at + column, f"expected {expected} in the line")
        elif label is None and tag != "O":
            message = f"expected O, or B- or I- and one of {', '.join(names)}"
            problem = Problem.at("syntax", answer, at + match.start("tag"), message)
        elif tag[0] == "I" and previous != label:
            message = f"{tag} follows no mention of its type; expected B-{tag[2:]}"
            problem = Problem.at("syntax", answer, at + match.start("tag"), message)
        yield _Row(token, tag[:1] == "B", label, Span(at, at + len(line)) if line else None, problem)
        at, previous = at + len(line) + 1, label


# The constraint


def gbnf(labels: Sequence[str]) -> str:
    """One rule for what may follow O, and one per type for what may follow its tags."""
    names = list(types(labels))
    begins = [f"{grammar.literal(f'B-{name}')} after-{n}" for n, name in enumerate(names)]
    inside = [
        f'after-{n} ::= ("\\n" (line | field "\\t" {grammar.literal(f"I-{name}")} after-{n}))?'
        for n, name in enumerate(names)
    ]
    return grammar.grammar(
        "root ::= line?",
        f'line ::= field "\\t" ("O" ("\\n" line)? | {" | ".join(begins)})',
        *inside,
        FIELD_RULE,
    )


def constraint(document: Document, labels: Sequence[str]) -> ByteAutomaton:
    written = [escape(document.text[t.start : t.end]).encode() for t in tokens(document.text)]
    return TokenTags(written, [name.encode() for name in types(labels)])
