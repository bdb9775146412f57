"""How threads wait is said before libgomp is loaded, unless the user has said it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from bioner_edge.backends import WAITING

CODE = """
import os
from bioner_edge.backends import llama_cpp
print({name: os.environ.get(name) for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")})
"""


@pytest.mark.parametrize(
    ("said", "used"),
    [
        ({}, WAITING),
        ({"OMP_WAIT_POLICY": "active"}, {"OMP_WAIT_POLICY": "active", "GOMP_SPINCOUNT": None}),
        ({"GOMP_SPINCOUNT": "7"}, {"OMP_WAIT_POLICY": None, "GOMP_SPINCOUNT": "7"}),
    ],
)
def test_the_user_goes_first(said: dict[str, str], used: dict[str, str | None]) -> None:
    pytest.importorskip("llama_cpp")
    environment = {name: value for name, value in os.environ.items() if name not in WAITING} | said
    found = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout == f"{dict(used)}\n"
