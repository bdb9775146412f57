"""CPU package energy in joules from RAPL, or why it is unavailable.

Intel and AMD processors count the energy of each package (socket), and Linux exposes the counters in
/sys/class/powercap/intel-rapl:N, on AMD too (https://docs.kernel.org/power/powercap/powercap.html). Packages are added
up. Omitted are their parts (`core`, `uncore`), other components (`dram`, `psys`, which on laptops is the whole machine)
and the second interface to the same counter (`intel-rapl-mmio`).

A package is shared: the figure includes other processes that run meanwhile, and idle power.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["Meter"]

_ROOT = Path("/sys/class/powercap")


@dataclass(slots=True)
class _Domain:
    """The counter of one package, which wraps to 0 after `range_uj`; `spent_uj` is its total increase."""

    folder: Path
    name: str
    range_uj: int
    last_uj: int
    spent_uj: int = 0

    def read(self) -> None:
        now = _number(self.folder / "energy_uj")
        self.spent_uj += now - self.last_uj + (self.range_uj if now < self.last_uj else 0)
        self.last_uj = now


class Meter:
    """Counts energy from its creation. `source` names the counters, or why there are none: then `joules` is None.

    A counter that wraps more than once between two readings is undercounted. Ranges are about 60 to 260 kJ, more than
    ten minutes at 100 W: call `look` more often than that.
    """

    def __init__(self, root: Path = _ROOT) -> None:
        self._domains: list[_Domain] = []
        self.source = "no RAPL on this machine"
        try:
            self._domains = _packages(root)
        except PermissionError as error:
            self.source = f"no permission to read {error.filename}: run as root or chmod"
        except (OSError, ValueError) as error:
            self.source = f"RAPL cannot be read: {error}"
        if self._domains:
            self.source = f"RAPL, {' + '.join(domain.name for domain in self._domains)}"

    def look(self) -> None:
        """Read the counters. One that can no longer be read ends the measurement."""
        try:
            for domain in self._domains:
                domain.read()
        except (OSError, ValueError) as error:
            self._domains = []
            self.source = f"RAPL cannot be read any more: {error}"

    @property
    def joules(self) -> float | None:
        """The energy of all packages so far."""
        self.look()
        return sum(domain.spent_uj for domain in self._domains) / 1e6 if self._domains else None


def _packages(root: Path) -> list[_Domain]:
    """The package domains, with their first reading. Raises OSError and ValueError."""
    found = []
    for folder in sorted(root.glob("intel-rapl:*")):
        if folder.name.count(":") == 1 and (name := (folder / "name").read_text().strip()).startswith("package"):
            found.append(_Domain(folder, name, _number(folder / "max_energy_range_uj"), _number(folder / "energy_uj")))
    return found


def _number(path: Path) -> int:
    return int(path.read_text())
