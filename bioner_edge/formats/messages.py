"""Chat messages shared by formats: the instruction first, then the text, then what differs between questions.

So all documents share the instruction as a prefix, and the questions about one document share the text as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bioner_edge.formats.contract import TEXT, Message

__all__ = ["ask", "ask_one", "dataclass"]


def ask(order: str, labels: Sequence[str], guidelines: Mapping[str, str]) -> list[Message]:
    """An instruction that names all labels, with a line for each guideline, then the text."""
    notes = [f"{label}: {guidelines[label]}" for label in labels if label in guidelines]
    return [{"role": "system", "content": "\n".join([order, *notes])}, {"role": "user", "content": TEXT}]


def ask_one(order: str, question: str, label: str, guidelines: Mapping[str, str]) -> list[Message]:
    """An instruction that names no label, then the text followed by a question about one label."""
    note = f"\n{label}: {guidelines[label]}" if label in guidelines else ""
    return [{"role": "system", "content": order}, {"role": "user", "content": f"{TEXT}\n\n{question}{note}"}]


def dataclass(name: str, label: str, guidelines: Mapping[str, str]) -> str:
    """Declare a dataclass for a label. Its docstring is the guideline, or the label where the class name differs."""
    note = guidelines.get(label, "" if name == label else label)
    quoted = note.replace("\\", "\\\\").replace('"', '\\"')
    body = [f'    """{quoted}"""'] if note else []
    return "\n".join(["@dataclass", f"class {name}:", *body, "    mention: str"])
