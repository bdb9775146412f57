"""`python -m bioner_edge` is `bioner-edge`."""

from __future__ import annotations

from .cli import main

main()
