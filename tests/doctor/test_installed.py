"""Versions of libraries are held against what is asked for."""

from __future__ import annotations

import pytest

from bioner_edge.doctor.installed import library_of, meets, version


@pytest.mark.parametrize(
    ("found", "requirement", "fits"),
    [
        ("0.3.36", "x==0.3.36", True),
        ("0.3.36+cpu", "x==0.3.36", True),
        ("0.3.36+cu124", "x==0.3.36", True),
        ("0.3.3", "x==0.3.36", False),
        ("0.4.0", "x==0.3.36", False),
        ("1.9", "x>=1.26", False),
        ("1.31.1", "x>=1.26", True),
        ("2.0", "x>=1.26,<3", True),
        ("3.1", "x>=1.26,<3", False),
        ("1.26.0rc1", "x>=1.26", False),
        ("1.26", "x==1.26.0; python_version >= '3'", True),
    ],
)
def test_versions_are_compared_as_numbers(found: str, requirement: str, fits: bool) -> None:
    assert meets(found, requirement) is fits


def test_what_is_not_installed_has_no_version() -> None:
    assert version("no-such-library") is None
    assert version("numpy") == __import__("numpy").__version__


def test_a_requirement_names_a_library() -> None:
    assert [library_of(line) for line in ("numpy>=1.26", "llama-cpp-python == 0.3.36", "a.b_c[x]==1", "rich")] == [
        *("numpy", "llama-cpp-python", "a.b_c", "rich")
    ]
