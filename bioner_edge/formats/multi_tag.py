"""multi_tag: a copy of the text in which each mention stands between tags that name its type.

    <Chemical>Naloxone</Chemical> reverses the antihypertensive effect of <Chemical>clonidine</Chemical>.

Inline XML after LLMs4NER (arXiv:2601.17898); the template is ours. A backslash escapes every backslash of the text, and
every `<` that could open a tag, that is, one followed by a letter, `/` or a non-ASCII character. Tags may nest; each
type opens at most once at a position; a tag encloses at least one character.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from bioner_edge.decoding.automaton import ByteAutomaton
from bioner_edge.document import Document, Entity
from bioner_edge.formats import grammar, tagging
from bioner_edge.formats.contract import Message, Parsed
from bioner_edge.formats.label_names import tags
from bioner_edge.formats.messages import ask
from bioner_edge.formats.tagging import Marks, Piece

__all__ = ["CANNOT", "constraint", "gbnf", "inexpressible", "instruction", "parse", "questions", "render", "salvage"]

CANNOT = "discontinuous mentions; mentions inside a token; mentions that cross"

_ESCAPED = re.compile(r"\\|<(?=[A-Za-z/\x80-\U0010ffff])")
_PIECE = re.compile(
    r"(?P<tag><(?=[A-Za-z/\x80-\U0010ffff])(?P<close>/?)[^<>\\\x00-\x1f\x7f]*>)|\\(?P<escaped>[\\<])|(?P<plain>.)",
    re.DOTALL,
)


def _marks(labels: Sequence[str]) -> dict[str, Marks]:
    return {label: Marks(f"<{name}>", f"</{name}>") for name, label in tags(labels).items()}


def questions(labels: Sequence[str]) -> list[list[str]]:
    """One answer holds all labels."""
    tags(labels)
    return [list(labels)]


def instruction(labels: Sequence[str], guidelines: Mapping[str, str]) -> list[Message]:
    """A short instruction, then a line for each guideline; the text follows as the user's message."""
    return ask(f"Tag {', '.join(tags(labels))}.", labels, guidelines)


def render(document: Document, labels: Sequence[str]) -> str:
    return tagging.write(document, _escape(document.text), _marks(labels))


def _escape(text: str) -> list[str]:
    """Each character of the text, escaped."""
    characters = list(text)
    for match in _ESCAPED.finditer(text):
        characters[match.start()] = "\\" + match.group()
    return characters


def inexpressible(document: Document, labels: Sequence[str]) -> list[tuple[Entity, str]]:
    tags(labels)
    return tagging.nest(document, labels)[1]


def parse(answer: str, document: Document, labels: Sequence[str]) -> Parsed:
    return tagging.read(_pieces(answer), answer, document.text, _marks(labels), strict=True)


def salvage(answer: str, document: Document, labels: Sequence[str]) -> Parsed:
    return tagging.read(_pieces(answer), answer, document.text, _marks(labels), strict=False)


def _pieces(answer: str) -> Iterator[Piece]:
    for match in _PIECE.finditer(answer):
        if match["tag"]:
            yield Piece("close" if match["close"] else "open", match["tag"], *match.span())
            continue
        problem = None
        if match["plain"] == "\\":
            problem = r"expected '\\' or '\<' after a backslash"
        elif match["plain"] == "<" and _ESCAPED.match(answer, match.start()):
            problem = "expected a whole tag after '<'"
        yield Piece("character", match["escaped"] or match["plain"], *match.span(), problem)


def gbnf(labels: Sequence[str]) -> str:
    """An unescaped `<` must not be followed by anything that would make it a tag."""
    written = [
        f"{grammar.literal(mark.opening)} inner {grammar.literal(mark.closing)}" for mark in _marks(labels).values()
    ]
    return grammar.grammar(
        'root ::= item* "<"*',
        'item ::= [^<\\\\] | escape | tag | "<"+ ([^<\\\\/A-Za-z\\x80-\\U0010FFFF] | escape | tag)',
        'inner ::= item+ "<"* | "<"+',
        'escape ::= "\\\\" [\\\\<]',
        f"tag ::= {' | '.join(written)}",
    )


def constraint(document: Document, labels: Sequence[str]) -> ByteAutomaton:
    return tagging.constraint(document, _escape(document.text), _marks(labels).values())
