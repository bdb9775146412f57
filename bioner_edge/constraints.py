"""Constraints: how an answer is kept to its format while it is decoded. One row each.

free       nothing is enforced: for comparison, and for models without a format
gbnf       the format's grammar: every answer parses, mentions may be invented and are then dropped when it is read
grounded   the grammar and the text: every answer parses, and every mention is in the text at its offsets
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bioner_edge.decoding.automaton import Anything
from bioner_edge.decoding.gbnf import GrammarAutomaton
from bioner_edge.decoding.loop import Answer, decode
from bioner_edge.decoding.token_masks import TokenMask, Vocabulary
from bioner_edge.document import Document
from bioner_edge.errors import UsageError, unknown_name
from bioner_edge.formats.contract import Format, Parsed

__all__ = [
    "CONSTRAINTS",
    "DEFAULT",
    "Constraint",
    "LateVocabulary",
    "find_constraint",
    "free_mask",
    "grammar_mask",
    "grounded_mask",
    "read_strictly",
    "salvage",
]

LateVocabulary = Callable[[], Vocabulary]
"""The bytes of the tokens, read from the back end when they are first needed."""
Make = Callable[[Format, Sequence[str], Document, LateVocabulary], Any]
Read = Callable[[Format, str, Document, Sequence[str]], Parsed]


@dataclass(frozen=True, slots=True)
class Constraint:
    """One way to decode an answer.

    `make` builds, for a format, labels and a document, what `decode` needs to know what is allowed: usually a
    `TokenMask`. One that does not depend on the document (`per_document` false) is built once, so that its states stay
    cached. `read` turns the answer into entities. A constraint that is `llama_only` needs a GGUF model.
    """

    name: str
    make: Make
    read: Read
    decode: Callable[..., Answer] = decode
    per_document: bool = False
    llama_only: bool = False


def read_strictly(form: Format, answer: str, document: Document, labels: Sequence[str]) -> Parsed:
    """Read an answer that is known to be valid."""
    return form.parse(answer, document, labels)


def salvage(form: Format, answer: str, document: Document, labels: Sequence[str]) -> Parsed:
    """Read whatever can be read of an answer; what cannot is among its problems."""
    return form.salvage(answer, document, labels)


def free_mask(form: Format, labels: Sequence[str], document: Document, vocabulary: LateVocabulary) -> TokenMask:
    """Any text."""
    return TokenMask(Anything(), vocabulary())


def grammar_mask(form: Format, labels: Sequence[str], document: Document, vocabulary: LateVocabulary) -> TokenMask:
    """What the format's GBNF allows."""
    return TokenMask(GrammarAutomaton(form.gbnf(labels)), vocabulary())


def grounded_mask(form: Format, labels: Sequence[str], document: Document, vocabulary: LateVocabulary) -> TokenMask:
    """What the format allows about this document."""
    return TokenMask(form.constraint(document, labels), vocabulary())


CONSTRAINTS = {
    row.name: row
    for row in (
        Constraint("free", free_mask, salvage),
        Constraint("gbnf", grammar_mask, salvage),
        Constraint("grounded", grounded_mask, read_strictly, per_document=True),
    )
}
DEFAULT = "grounded"


def find_constraint(constraint: str | Constraint) -> Constraint:
    """The constraint of a name; a row is taken as it is. Raises UsageError for a name that is not known."""
    if isinstance(constraint, Constraint):
        return constraint
    if constraint not in CONSTRAINTS:
        raise UsageError(unknown_name("constraint", constraint, CONSTRAINTS))
    return CONSTRAINTS[constraint]
