"""Where the corpora lie, and hypothesis without deadlines: a busy machine is no failure."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("no_deadline", deadline=None)
settings.load_profile("no_deadline")

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def corpora() -> Path:
    """The folder of the corpora, which are not part of the project."""
    path = Path(os.environ.get("BIONER_CORPORA") or ROOT.parent / "shared" / "corpora")
    if not path.is_dir():
        pytest.skip(f"no corpora: {path} is no folder; set $BIONER_CORPORA")
    return path
