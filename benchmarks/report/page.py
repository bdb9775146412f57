"""Render sheets and plots as one self-contained HTML page: no network, no other files, only its own script."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from hashlib import sha256
from importlib.resources import files
from typing import TYPE_CHECKING

import jinja2

from bioner_edge.benchmarks.report.figures import MISSING, Sheet

if TYPE_CHECKING:
    from bioner_edge.benchmarks.report.canvas import Plot

__all__ = ["render"]


def render(title: str, sheets: Sequence[Sheet], plots: Sequence[Plot], notes: Sequence[str]) -> str:
    """The page. All text is escaped, except the plots, which are ours."""
    parts = {name: _part(f"page.{name}") for name in ("html", "css", "js")}
    environment = jinja2.Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    digest = base64.b64encode(sha256(parts["js"].encode()).digest()).decode()
    return environment.from_string(parts["html"]).render(
        title=title, sheets=sheets, plots=plots, notes=notes, missing=MISSING, digest=digest, **parts
    )


def _part(name: str) -> str:
    return (files(__package__) / name).read_text("utf-8")
