"""Cost of extraction: money, electricity, carbon, time, the memory to buy, and the break-even against an API.

Computed from the inputs in cost.toml, each marked as measured or assumed:

    kWh per abstract    = watts / 1000 / 3600 / documents per second, or joules per document / 3,600,000 where measured
    abstracts a month   = documents per second × 3600 × hours per month × utilisation
    cost of a month     = (hardware / life in months + kWh per abstract × abstracts a month × price) × (1 + overhead)
    cost per 1,000      = 1000 × cost of a month / abstracts a month
    break-even          = hardware / life in months × (1 + overhead) / (API - electricity), both per abstract

One machine reads one abstract after the other. The break-even is a number of abstracts per month, so `utilisation` does
not affect it: its limit is what the machine reads in all available hours.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bioner_edge.errors import UsageError, unknown_name

__all__ = ["DEFAULTS", "RAM_TIERS_GB", "CostInputs", "Costs", "Entry", "costs"]

DEFAULTS = Path(__file__).with_name("cost.toml")
RAM_TIERS_GB = (4, 8, 16, 32, 64)  # common sizes of computers; a GB here is 2^30 bytes
KINDS = ("measured", "assumed")

_AT_MOST = {"utilisation": 1.0, "hours_per_month": 744.0}
_NOT_ZERO = ("life_months", "utilisation", "hours_per_month")
_HARDWARE = ("hardware_price", "life_months", "overhead_share")
_API = ("api_price_input", "api_price_output", "api_tokens_input", "api_tokens_output")


@dataclass(frozen=True, slots=True)
class Entry:
    """An input: `unit` including the currency, `kind` measured or assumed, `source` its origin."""

    value: float
    unit: str
    kind: str
    source: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class CostInputs:
    """All inputs by name, in the order of cost.toml."""

    currency: str
    entries: Mapping[str, Entry]

    def __getitem__(self, name: str) -> float:
        return self.entries[name].value

    @classmethod
    def load(cls, path: Path | None = None) -> CostInputs:
        """The defaults, overridden by the entries of a user's file.

        Raises UsageError for a file that cannot be read and, naming the entry, for an unknown or invalid one.
        """
        defaults = _table(DEFAULTS)
        own = _table(path) if path else {}
        currency = own.pop("currency", defaults["currency"])
        if not isinstance(currency, str) or not currency.strip() or not currency.isprintable():
            raise UsageError(f"{path}: 'currency' must be the name of a currency, such as \"EUR\"")
        changed = currency != defaults.pop("currency")
        if unknown := sorted(own.keys() - defaults.keys()):
            raise UsageError(f"{path}: {unknown_name('entry', unknown[0], ['currency', *defaults])}")
        entries = {}
        for name, row in defaults.items():
            if changed and "currency" in row["unit"] and name not in own:
                raise UsageError(f"{path}: the currency is {currency}, so [{name}] must be given in it too")
            default = Entry(**{**row, "value": float(row["value"])})
            entry = _user_entry(path, name, own[name], default, currency) if path and name in own else default
            entries[name] = replace(entry, unit=entry.unit.replace("currency", currency))
        return cls(currency, entries)

    def is_assumed(self, names: tuple[str, ...]) -> bool:
        """Whether one of these was assumed."""
        return any(self.entries[name].kind == "assumed" for name in names)


@dataclass(frozen=True, slots=True)
class Costs:
    """Per 1,000 abstracts, unless a name says otherwise; `assumed` names the fields that depend on an assumed input.

    `ram_gb` is infinite where no size in `RAM_TIERS_GB` suffices, None where the peak was not measured. `break_even` is
    in abstracts a month; None means never, and `never` says why.
    """

    cost: float
    kwh: float
    kgco2e: float
    hours_per_10000: float
    ram_gb: float | None
    api_cost: float
    break_even: float | None
    never: str
    assumed: frozenset[str]


def costs(
    documents_per_s: float, peak_rss_bytes: float | None, energy_j_per_document: float | None, inputs: CostInputs
) -> Costs:
    """The costs of a model with this speed, peak memory and, where measured, energy.

    Raises ValueError for a speed that is not above 0.
    """
    if not (documents_per_s > 0 and math.isfinite(documents_per_s)):
        raise ValueError(f"{documents_per_s} documents per second")
    overhead = 1 + inputs["overhead_share"]
    joules = energy_j_per_document
    kwh = inputs["watts_under_load"] / 3.6e6 / documents_per_s if joules is None else joules / 3.6e6
    running = kwh * inputs["electricity_price"] * overhead
    standing = inputs["hardware_price"] / inputs["life_months"] * overhead  # a month, used or not
    capacity = documents_per_s * 3600 * inputs["hours_per_month"]
    api = sum(inputs[f"api_price_{way}"] * inputs[f"api_tokens_{way}"] for way in ("input", "output")) / 1e6
    break_even, never = _break_even(standing, running, api, capacity)
    return Costs(
        cost=1000 * (standing / (capacity * inputs["utilisation"]) + running),
        kwh=1000 * kwh,
        kgco2e=kwh * inputs["grid_intensity"],  # 1000 abstracts, 1000 g to the kg
        hours_per_10000=10_000 / documents_per_s / 3600,
        ram_gb=None if peak_rss_bytes is None else _ram_gb(peak_rss_bytes, inputs["memory_margin"]),
        api_cost=1000 * api,
        break_even=break_even,
        never=never,
        assumed=_assumed(inputs, joules is not None),
    )


def _break_even(standing: float, running: float, api: float, capacity: float) -> tuple[float | None, str]:
    """The abstracts a month from which the own machine is cheaper, or None and the reason."""
    if api <= running:
        return None, "electricity costs as much"
    needed = standing / (api - running)
    if needed > capacity:
        return None, f"reads {capacity:,.0f} at most"
    return needed, ""


def _ram_gb(peak_rss_bytes: float, margin_gb: float) -> float:
    needed = peak_rss_bytes / 2**30 + margin_gb
    return next((float(size) for size in RAM_TIERS_GB if needed <= size), math.inf)


def _assumed(inputs: CostInputs, energy_measured: bool) -> frozenset[str]:
    energy = () if energy_measured else ("watts_under_load",)
    money = (*_HARDWARE, *energy, "electricity_price", "hours_per_month")
    rests_on = {
        "cost": (*money, "utilisation"),
        "kwh": energy,
        "kgco2e": (*energy, "grid_intensity"),
        "ram_gb": ("memory_margin",),
        "api_cost": _API,
        "break_even": (*money, *_API),
    }
    return frozenset(name for name, names in rests_on.items() if inputs.is_assumed(names))


def _table(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: not TOML: {error}") from None


def _user_entry(path: Path, name: str, row: object, default: Entry, currency: str) -> Entry:
    """A user's entry. Unit and source of the default do not carry over to a user's own value."""
    expected = ("value", "unit", "kind", "source", "note")
    if not isinstance(row, dict):
        raise UsageError(f"{path}: [{name}] must be a table with a value")
    if unknown := sorted(row.keys() - set(expected)):
        raise UsageError(f"{path}: [{name}] {unknown_name('key', unknown[0], expected)}")
    if reason := _value_error(name, row.get("value")):
        raise UsageError(f"{path}: [{name}] 'value' must be {reason}")
    if row.get("unit", default.unit) not in (default.unit, unit := default.unit.replace("currency", currency)):
        raise UsageError(f"{path}: [{name}] 'unit' must be {unit!r}")
    if row.get("kind", "assumed") not in KINDS:
        raise UsageError(f"{path}: [{name}] 'kind' must be one of {', '.join(KINDS)}")
    for key in ("source", "note"):
        if not isinstance(row.get(key, ""), str):
            raise UsageError(f"{path}: [{name}] {key!r} must be a string")
    said = {key: row[key] for key in ("source", "note") if key in row}
    own = replace(default, value=float(row["value"]), kind=row.get("kind", "assumed"), source=path.name, note="")
    return replace(own, **said)


def _value_error(name: str, value: object) -> str | None:
    """What a value must be, or None where it is valid."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e15:
        return "a number, 0 or more"
    if name in _NOT_ZERO and value == 0:
        return "above 0"
    if value > _AT_MOST.get(name, math.inf):
        return f"{_AT_MOST[name]:g} or less"
    return None
