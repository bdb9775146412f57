"""A folder survives being cut into parts, and a damaged part is noticed."""

from __future__ import annotations

from pathlib import Path

import pytest

from bioner_edge.errors import InputError
from bioner_edge.tuning.parts import join, split


@pytest.fixture
def student(tmp_path: Path) -> Path:
    folder = tmp_path / "student"
    (folder / "inner").mkdir(parents=True)
    (folder / "weights").write_bytes(bytes(range(256)) * 40)
    (folder / "inner" / "empty").write_bytes(b"")
    return folder


def test_parts_are_bounded_and_give_the_folder_back(student: Path, tmp_path: Path) -> None:
    parts = split(student, tmp_path / "parts", size=3000)
    assert len(parts) > 3 and all(p.stat().st_size <= 3000 for p in parts)
    join(tmp_path / "parts", tmp_path / "back" / "student")
    for file in ("weights", "inner/empty"):
        assert (tmp_path / "back" / "student" / file).read_bytes() == (student / file).read_bytes()


@pytest.mark.parametrize("harm", ["missing", "changed"])
def test_a_missing_or_changed_part_is_refused(student: Path, tmp_path: Path, harm: str) -> None:
    part = split(student, tmp_path / "parts", size=3000)[1]
    if harm == "missing":
        part.unlink()
    else:
        part.write_bytes(b"x" + part.read_bytes()[1:])
    with pytest.raises(InputError, match="are missing or damaged"):
        join(tmp_path / "parts", tmp_path / "back" / "student")


def test_a_file_can_stay_behind(student: Path, tmp_path: Path) -> None:
    split(student, tmp_path / "parts", without="weights")
    join(tmp_path / "parts", tmp_path / "back" / "student")
    assert [p.name for p in (tmp_path / "back" / "student").rglob("*") if p.is_file()] == ["empty"]
