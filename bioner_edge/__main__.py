"""`python -m bioner_edge` is `bioner-edge`."""

from __future__ import annotations

from bioner_edge.cli import main

main()
