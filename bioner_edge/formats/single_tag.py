"""single_tag: a copy of the text in which each mention of one type stands between @@ and ##.

    @@Naloxone## reverses the antihypertensive effect of @@clonidine##.

After GPT-NER (arXiv:2304.10428); the template is ours. A backslash escapes every `@`, `#` and backslash of the
text. Marks may nest; at most one opens at a position; they enclose at least one character.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from bioner_edge.decoding.automaton import ByteAutomaton
from bioner_edge.document import Document, Entity
from bioner_edge.formats import grammar, tagging
from bioner_edge.formats.contract import Message, Parsed
from bioner_edge.formats.label_names import only, plain
from bioner_edge.formats.messages import ask_one
from bioner_edge.formats.tagging import Marks, Piece

__all__ = ["CANNOT", "constraint", "gbnf", "inexpressible", "instruction", "parse", "questions", "render", "salvage"]

CANNOT = "discontinuous mentions; mentions inside a token; mentions that cross"

_PIECE = re.compile(r"(?P<open>@@)|(?P<close>##)|\\(?P<escaped>[@#\\])|(?P<plain>.)", re.DOTALL)
_MARKS = Marks("@@", "##")


def questions(labels: Sequence[str]) -> list[list[str]]:
    """An answer for each label."""
    return [[label] for label in plain(labels)]


def instruction(labels: Sequence[str], guidelines: Mapping[str, str]) -> list[Message]:
    label = only(labels)
    order = "Copy the text and put @@ before and ## behind each mention of the type."
    return ask_one(order, f"Type: {label}", label, guidelines)


def render(document: Document, labels: Sequence[str]) -> str:
    return tagging.write(document, _escape(document.text), {only(labels): _MARKS})


def _escape(text: str) -> list[str]:
    """Each character of the text, escaped."""
    return [f"\\{c}" if c in "@#\\" else c for c in text]


def inexpressible(document: Document, labels: Sequence[str]) -> list[tuple[Entity, str]]:
    return tagging.nest(document, [only(labels)])[1]


def parse(answer: str, document: Document, labels: Sequence[str]) -> Parsed:
    return tagging.read(_pieces(answer), answer, document.text, {only(labels): _MARKS}, strict=True)


def salvage(answer: str, document: Document, labels: Sequence[str]) -> Parsed:
    return tagging.read(_pieces(answer), answer, document.text, {only(labels): _MARKS}, strict=False)


def _pieces(answer: str) -> Iterator[Piece]:
    for match in _PIECE.finditer(answer):
        if match["open"]:
            yield Piece("open", "@@", *match.span())
        elif match["close"]:
            yield Piece("close", "##", *match.span())
        else:
            character = match["escaped"] or match["plain"]
            stray = match["plain"] and character in "@#\\"
            problem = r"expected '@@', '##', '\@', '\#' or '\\'" if stray else None
            yield Piece("character", character, *match.span(), problem)


def gbnf(labels: Sequence[str]) -> str:
    only(labels)
    return grammar.grammar(
        "root ::= item*",
        'item ::= [^@#\\\\] | "\\\\" [@#\\\\] | "@@" item+ "##"',
    )


def constraint(document: Document, labels: Sequence[str]) -> ByteAutomaton:
    only(labels)
    return tagging.constraint(document, _escape(document.text), [_MARKS])
