"""Show documents on a terminal: the text with its entities colored, and a table of them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bioner_edge.extraction import Extraction

__all__ = ["show"]

_COLOURS = ("cyan", "magenta", "yellow", "green", "blue", "red")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def show(extraction: Extraction, labels: Sequence[str], console: Console) -> None:
    """Print one document. Control characters are shown as U+FFFD."""
    colour = {label: _COLOURS[n % len(_COLOURS)] for n, label in enumerate(labels)}
    text = _sanitize(extraction.document.text)
    coloured = Text(text)
    for entity in extraction.entities:
        for fragment in entity.fragments:
            coloured.stylize(f"bold {colour[entity.label]}", fragment.start, fragment.end)
    legend = Text("  ".join(labels))
    for label in labels:
        legend.highlight_words([label], f"bold {colour[label]}")
    console.rule(Text(_sanitize(extraction.document.id), "bold"), align="left")
    console.print(coloured, soft_wrap=False)
    console.print()
    table = Table(title=legend, title_justify="left", pad_edge=False)
    for name in ("start", "end", "label", "mention", "score"):
        table.add_column(name, justify="right" if name in ("start", "end", "score") else "left")
    for entity in extraction.entities:
        score = "" if entity.score is None else f"{entity.score:.2f}"
        mention = Text(entity.mention(text).replace("\n", " "))
        table.add_row(str(entity.start), str(entity.end), Text(entity.label, colour[entity.label]), mention, score)
    console.print(table)
    for chunk, problem in extraction.problems:
        console.print(Text(_sanitize(f"[{chunk.start}, {chunk.end}) {problem}"), "red"))


def _sanitize(text: str) -> str:
    return _CONTROL.sub("\ufffd", text)
