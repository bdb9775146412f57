"""Decoding constraints, one row each.

free       no constraint: for comparison, and for models without a format
gbnf       the format's grammar: every answer parses; invented mentions are possible and dropped on reading
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
"""Returns the tokens' bytes, which are read from the back end on first use."""
Make = Callable[[Format, Sequence[str], Document, LateVocabulary], Any]
Read = Callable[[Format, str, Document, Sequence[str]], Parsed]


@dataclass(frozen=True, slots=True)
class Constraint:
    """One way to decode an answer.

    `make` builds what `decode` is constrained by, usually a `TokenMask`, for a format, labels and a document. If it
    does not depend on the document (`per_document` false) it is built once, so that its states stay cached. `read`
    parses the answer into entities. A `llama_only` constraint needs a GGUF model.
    """

    name: str
    make: Make
    read: Read
    decode: Callable[..., Answer] = decode
    per_document: bool = False
    llama_only: bool = False


def read_strictly(form: Format, answer: str, document: Document, labels: Sequence[str]) -> Parsed:
    """Parse an answer that the constraint has kept valid."""
    return form.parse(answer, document, labels)


def salvage(form: Format, answer: str, document: Document, labels: Sequence[str]) -> Parsed:
    """Parse what can be parsed of an answer; the rest is reported among its problems."""
    return form.salvage(answer, document, labels)


def free_mask(form: Format, labels: Sequence[str], document: Document, vocabulary: LateVocabulary) -> TokenMask:
    """A mask that allows any text."""
    return TokenMask(Anything(), vocabulary())


def grammar_mask(form: Format, labels: Sequence[str], document: Document, vocabulary: LateVocabulary) -> TokenMask:
    """A mask that allows what the format's GBNF accepts."""
    return TokenMask(GrammarAutomaton(form.gbnf(labels)), vocabulary())


def grounded_mask(form: Format, labels: Sequence[str], document: Document, vocabulary: LateVocabulary) -> TokenMask:
    """A mask that allows only answers that are valid for this document."""
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
    """Look up a constraint by name; a `Constraint` is returned as it is. Raises UsageError for an unknown name."""
    if isinstance(constraint, Constraint):
        return constraint
    if constraint not in CONSTRAINTS:
        raise UsageError(unknown_name("constraint", constraint, CONSTRAINTS))
    return CONSTRAINTS[constraint]
