"""multi_brat: brat standoff, one line per mention: its number, type, offsets and text.

    T1⇥Chemical 0 8⇥Naloxone
    T4⇥Disease 0 5;16 23⇥liver failure

After brat (Stenetorp et al. 2012, https://brat.nlplab.org/standoff.html); the template is ours. Lines are
ordered by offsets, then by type; fragments of a discontinuous mention are joined by one space, as in brat.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence

from bioner_edge.decoding.automaton import ByteAutomaton
from bioner_edge.decoding.standoff import Standoff
from bioner_edge.document import Document, Entity, Span
from bioner_edge.formats import grammar
from bioner_edge.formats.contract import Message, Parsed
from bioner_edge.formats.escapes import FIELD, FIELD_RULE, escape, unescape
from bioner_edge.formats.label_names import types
from bioner_edge.formats.messages import ask
from bioner_edge.formats.reading import Cursor, Item, collect
from bioner_edge.text.tokens import boundaries

__all__ = ["CANNOT", "constraint", "gbnf", "inexpressible", "instruction", "parse", "questions", "render", "salvage"]

CANNOT = "mentions inside a token"

_FIELD = re.compile(FIELD)
_LENIENT_LINE = re.compile(
    r"^\s*(?:T\d+\s+)?(?P<type>\S+)\s+(?P<offsets>[0-9]{1,18}\s+[0-9]{1,18}(?:;[0-9]{1,18}\s+[0-9]{1,18})*)\s+(?P<mention>\S.*?)\s*$",
    re.MULTILINE,
)


def questions(labels: Sequence[str]) -> list[list[str]]:
    """One answer holds all labels."""
    types(labels)
    return [list(labels)]


def instruction(labels: Sequence[str], guidelines: Mapping[str, str]) -> list[Message]:
    order = f"List the mentions in the text as brat standoff annotations. Types: {', '.join(types(labels))}."
    return ask(order, labels, guidelines)


# Writing


def render(document: Document, labels: Sequence[str]) -> str:
    name = {label: name for name, label in types(labels).items()}
    lines = []
    for number, entity in enumerate(_select_writable(document, labels)[0], start=1):
        offsets = ";".join(f"{f.start} {f.end}" for f in entity.fragments)
        lines.append(f"T{number}\t{name[entity.label]} {offsets}\t{escape(entity.mention(document.text))}")
    return "\n".join(lines)


def inexpressible(document: Document, labels: Sequence[str]) -> list[tuple[Entity, str]]:
    types(labels)
    return _select_writable(document, labels)[1]


def _select_writable(document: Document, labels: Sequence[str]) -> tuple[list[Entity], list[tuple[Entity, str]]]:
    """The entities in the order of their lines, and those dropped, with the reasons."""
    rank = {label: n for n, label in enumerate(labels)}
    starts, ends = boundaries(document.text)
    most = Standoff.most_discontinuous(len(starts))
    kept: list[Entity] = []
    dropped: list[tuple[Entity, str]] = []
    asked = {e.key: e for e in document.entities if e.label in rank}
    for entity in sorted(asked.values(), key=lambda e: (e.fragments, rank[e.label])):
        if any(f.start not in starts or f.end not in ends for f in entity.fragments):
            dropped.append((entity, "inside a token"))
        elif len(entity.fragments) > 1 and most == 0:
            dropped.append((entity, "more discontinuous mentions than tokens"))
        else:
            kept.append(entity)
            most -= len(entity.fragments) > 1
    return kept, dropped


# Reading


def parse(answer: str, document: Document, labels: Sequence[str]) -> Parsed:
    return _read_answer(answer, document, types(labels), strict=True)


def salvage(answer: str, document: Document, labels: Sequence[str]) -> Parsed:
    """After the first problem, accept every line with a declared type, offsets and a mention, numbered or not."""
    return _read_answer(answer, document, types(labels), strict=False)


def _read_answer(answer: str, document: Document, names: Mapping[str, str], *, strict: bool) -> Parsed:
    def grounding_problem(item: Item) -> str | None:
        pairs, mention = item.value
        fragments = _fragments(pairs, len(document.text))
        if fragments is None:
            return f"{_spell(pairs)} are not fragments of the text of {len(document.text)} characters"
        found = Entity(item.label, fragments).mention(document.text)
        return None if found == mention else f"at {_spell(pairs)} the text is {found!r}, not {mention!r}"

    items, problems = collect(
        answer,
        lambda cursor: _read(cursor, names),
        grounding_problem,
        None if strict else lambda rest: _lenient(rest, names),
    )
    written: dict[Entity, Span] = {}
    for item in items:
        fragments = tuple(Span(start, end) for start, end in item.value[0])
        written.setdefault(Entity(item.label, fragments), item.place)
    return Parsed(tuple(written), tuple(written.values()), tuple(problems))


def _spell(pairs: Sequence[tuple[int, int]]) -> str:
    return ";".join(f"{start} {end}" for start, end in pairs)


def _fragments(pairs: Sequence[tuple[int, int]], size: int) -> tuple[Span, ...] | None:
    """The fragments, or None unless they are in the text, in order and disjoint."""
    edges = [edge for pair in pairs for edge in pair]
    if edges != sorted(edges) or edges[-1] > size or any(start == end for start, end in pairs):
        return None
    return tuple(Span(start, end) for start, end in pairs)


def _read(cursor: Cursor, names: Mapping[str, str]) -> Iterator[Item]:
    prefixes = {f"{name} ": label for name, label in names.items()}
    while cursor.at < len(cursor.answer):
        cursor.mark = cursor.at
        if cursor.at:
            cursor.expect("\n")
        cursor.expect("T")
        cursor.number()
        cursor.expect("\t")
        label = cursor.one_of(prefixes)
        pairs = []
        while True:
            start = cursor.number()
            cursor.expect(" ")
            pairs.append((start, cursor.number()))
            if not cursor.take(";"):
                break
        if not cursor.take("\t"):
            raise cursor.error("';' or a tab")
        mention = _FIELD.match(cursor.answer, cursor.at)
        if mention is None:
            raise cursor.error("the mention")
        cursor.at = mention.end()
        yield Item(label, (pairs, unescape(mention.group())), Span(cursor.mark, cursor.at))


def _lenient(answer: str, names: Mapping[str, str]) -> Iterable[Item]:
    for match in _LENIENT_LINE.finditer(answer):
        if match["type"] in names:
            numbers = [tuple(map(int, pair.split())) for pair in match["offsets"].split(";")]
            yield Item(names[match["type"]], (numbers, unescape(match["mention"])), Span(*match.span()))


# The constraint


def gbnf(labels: Sequence[str]) -> str:
    return grammar.grammar(
        'root ::= (line ("\\n" line)*)?',
        'line ::= "T" number "\\t" type " " span (";" span)* "\\t" field',
        f"type ::= {grammar.alternatives(types(labels))}",
        'span ::= number " " number',
        *grammar.NUMBER,
        FIELD_RULE,
    )


def constraint(document: Document, labels: Sequence[str]) -> ByteAutomaton:
    starts, ends = (array("i", sorted(edges)) for edges in boundaries(document.text))
    return Standoff(document.text, escape, starts, ends, [name.encode() for name in types(labels)])
