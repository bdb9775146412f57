"""Annotated corpora by name; `read_file` reads the documents of any file, see `bioner_edge.io`."""

from __future__ import annotations

from bioner_edge.io.reading import read_file

__all__ = ["read_file"]
