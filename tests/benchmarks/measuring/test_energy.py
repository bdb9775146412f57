"""RAPL's counters, in a tree of our own."""

from __future__ import annotations

from pathlib import Path

import pytest

from bioner_edge.benchmarks.measuring.energy import Meter

RANGE_UJ = 262_143_328_850


def domain(root: Path, name: str, told: str, energy_uj: int, range_uj: int = RANGE_UJ) -> Path:
    """A domain as the kernel shows it; gives the file that counts."""
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{told}\n")
    (folder / "max_energy_range_uj").write_text(f"{range_uj}\n")
    counter = folder / "energy_uj"
    counter.write_text(f"{energy_uj}\n")
    return counter


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return domain(tmp_path, "intel-rapl:0", "package-0", 5_000_000)


def test_joules_since_it_was_made(tmp_path: Path, package: Path) -> None:
    meter = Meter(tmp_path)
    assert meter.joules == 0 and meter.source == "RAPL, package-0"
    package.write_text("7500000\n")
    assert meter.joules == 2.5
    package.write_text("8500000\n")
    meter.look()
    package.write_text("9000000\n")
    assert meter.joules == 4.0


def test_a_counter_that_begins_again(tmp_path: Path) -> None:
    counter = domain(tmp_path, "intel-rapl:0", "package-0", 9_000_000, range_uj=10_000_000)
    meter = Meter(tmp_path)
    for energy_uj in (1_000_000, 6_000_000, 500_000):
        counter.write_text(str(energy_uj))
        meter.look()
    assert meter.joules == pytest.approx(2 + 5 + 4.5)


def test_packages_are_added_up_and_nothing_else(tmp_path: Path, package: Path) -> None:
    others = [
        domain(tmp_path, "intel-rapl:0:0", "core", 0),
        domain(tmp_path, "intel-rapl:0:1", "dram", 0),
        domain(tmp_path, "intel-rapl:0:2", "package-0-die-0", 0),  # a name alone would not do
        domain(tmp_path, "intel-rapl:2", "psys", 0),
        domain(tmp_path, "intel-rapl-mmio:0", "package-0", 0),
        domain(tmp_path, "dtpm:0", "package-0", 0),
    ]
    second = domain(tmp_path, "intel-rapl:1", "package-1", 0)
    meter = Meter(tmp_path)
    for other in others:
        other.write_text("900000000")
    package.write_text("6000000")
    second.write_text("3000000")
    assert meter.joules == 4.0
    assert meter.source == "RAPL, package-0 + package-1"


@pytest.mark.parametrize("root", ["nothing", "empty", "psys"])
def test_a_machine_that_does_not_count(tmp_path: Path, root: str) -> None:
    (tmp_path / "empty").mkdir()
    domain(tmp_path / "psys", "intel-rapl:0", "psys", 1)
    meter = Meter(tmp_path / root)
    meter.look()
    assert meter.joules is None and meter.source == "no RAPL on this machine"


def test_a_counter_for_root_alone(tmp_path: Path, package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root can read whatever the mode says, so the refusal is played."""
    read = Path.read_text

    def refused(path: Path) -> str:
        if path == package:
            raise PermissionError(13, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_text", refused)
    meter = Meter(tmp_path)
    assert meter.joules is None
    assert meter.source == f"no permission to read {package}: run as root or chmod"


@pytest.mark.parametrize("broken", ["name", "max_energy_range_uj", "energy_uj"])
def test_a_file_that_is_missing(tmp_path: Path, package: Path, broken: str) -> None:
    (package.parent / broken).unlink()
    meter = Meter(tmp_path)
    assert meter.joules is None and meter.source.startswith("RAPL cannot be read: ") and broken in meter.source


def test_a_counter_that_goes_away_leaves_no_figure(tmp_path: Path, package: Path) -> None:
    meter = Meter(tmp_path)
    package.write_text("6000000")
    assert meter.joules == 1.0
    package.write_text("")
    assert meter.joules is None and meter.source.startswith("RAPL cannot be read any more: ")
