"""conv_term: a conversation about the text, with one question for each type, answered by a list of its terms.

    ["Naloxone", "clonidine"]

After UniversalNER (arXiv:2308.03279); the template is ours. Each question follows the text directly: earlier answers
are not kept in the context, so all types share a prefix and their order does not matter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bioner_edge.formats.contract import TEXT, Message
from bioner_edge.formats.label_names import only
from bioner_edge.formats.single_term import CANNOT, constraint, gbnf, inexpressible, parse, questions, render, salvage

__all__ = ["CANNOT", "constraint", "gbnf", "inexpressible", "instruction", "parse", "questions", "render", "salvage"]


def instruction(labels: Sequence[str], guidelines: Mapping[str, str]) -> list[Message]:
    """The conversation up to the question, which the label's guideline follows."""
    label = only(labels)
    note = f"\n{guidelines[label]}" if label in guidelines else ""
    return [
        {"role": "user", "content": f"Text: {TEXT}"},
        {"role": "assistant", "content": "I've read this text."},
        {"role": "user", "content": f"What describes {label} in the text?{note}"},
    ]
