"""The energy that the processor took, as it counts it itself: joules by RAPL, or the reason why nobody knows.

Intel's and AMD's processors count the energy of each package (socket), and Linux shows the counters under
/sys/class/powercap/intel-rapl:N, on AMD too (https://docs.kernel.org/power/powercap/powercap.html). The packages are
added up. Left out are what lies within them (`core`, `uncore`), what is not the processor (`dram`, `psys`, which on
laptops is the whole machine) and the second way to the same counter (`intel-rapl-mmio`).

A package counts for whoever uses it: other processes that run meanwhile, and its own idling, are in the figure.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["Meter"]

_ROOT = Path("/sys/class/powercap")


@dataclass(slots=True)
class _Domain:
    """The counter of one package, which begins again at 0 after `range_uj`; `spent_uj` is what it went on by in all."""

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
    """Counts from when it is made. `told` says by what, or why nothing can be counted: then `joules` is None.

    A counter that ran through its range between two looks would be taken for a slower one. Ranges are some 60 to 260
    kJ, which takes 100 W more than ten minutes: call `look` more often than that.
    """

    def __init__(self, root: Path = _ROOT) -> None:
        self._domains: list[_Domain] = []
        self.told = "no RAPL on this machine"
        try:
            self._domains = _packages(root)
        except PermissionError as error:
            self.told = f"no permission to read {error.filename}: run as root or chmod"
        except (OSError, ValueError) as error:
            self.told = f"RAPL cannot be read: {error}"
        if self._domains:
            self.told = f"RAPL, {' + '.join(domain.name for domain in self._domains)}"

    def look(self) -> None:
        """Read the counters. One that cannot be read any more ends the count."""
        try:
            for domain in self._domains:
                domain.read()
        except (OSError, ValueError) as error:
            self._domains = []
            self.told = f"RAPL cannot be read any more: {error}"

    @property
    def joules(self) -> float | None:
        """Of all packages up to now."""
        self.look()
        return sum(domain.spent_uj for domain in self._domains) / 1e6 if self._domains else None


def _packages(root: Path) -> list[_Domain]:
    """The domains of whole packages, read for the first time. Raises OSError and ValueError."""
    found = []
    for folder in sorted(root.glob("intel-rapl:*")):
        if folder.name.count(":") == 1 and (name := (folder / "name").read_text().strip()).startswith("package"):
            found.append(_Domain(folder, name, _number(folder / "max_energy_range_uj"), _number(folder / "energy_uj")))
    return found


def _number(path: Path) -> int:
    return int(path.read_text())
