"""The chat messages that formats share: the order first, then the text, what changes from answer to answer last.

So all documents share the order as a prefix, and the answers about one document share the text too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bioner_edge.formats.contract import TEXT, Message

__all__ = ["ask", "ask_one", "dataclass"]


def ask(order: str, labels: Sequence[str], guidelines: Mapping[str, str]) -> list[Message]:
    """An order that names all labels, with a line for each that has a guideline, then the text."""
    notes = [f"{label}: {guidelines[label]}" for label in labels if label in guidelines]
    return [{"role": "system", "content": "\n".join([order, *notes])}, {"role": "user", "content": TEXT}]


def ask_one(order: str, question: str, label: str, guidelines: Mapping[str, str]) -> list[Message]:
    """An order that names no label, then the text with a question about one behind it."""
    note = f"\n{label}: {guidelines[label]}" if label in guidelines else ""
    return [{"role": "system", "content": order}, {"role": "user", "content": f"{TEXT}\n\n{question}{note}"}]


def dataclass(name: str, label: str, guidelines: Mapping[str, str]) -> str:
    """A dataclass for a type: the guideline is its docstring, or the label where the class has another name."""
    note = guidelines.get(label, "" if name == label else label)
    quoted = note.replace("\\", "\\\\").replace('"', '\\"')
    body = [f'    """{quoted}"""'] if note else []
    return "\n".join(["@dataclass", f"class {name}:", *body, "    mention: str"])
