"""What reading costs: worked by hand, and what must hold whatever the inputs are."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioner_edge.benchmarks.cost import DEFAULTS, RAM_TIERS_GB, CostInputs, Costs, Entry, costs
from bioner_edge.errors import UsageError

GB = 2**30
UNITS = {name: entry.unit for name, entry in CostInputs.load().entries.items()}
MONEY = [name for name, unit in UNITS.items() if "USD" in unit]
# 1,000 for two years of 20 months, half of 100 hours a month at 36 W, with a tenth on top; an API at 3 for 1,000.
ROUND = {
    "hardware_price": 1000.0,
    "life_months": 20.0,
    "watts_under_load": 36.0,
    "utilisation": 0.5,
    "hours_per_month": 100.0,
    "electricity_price": 0.5,
    "grid_intensity": 400.0,
    "overhead_share": 0.1,
    "api_price_input": 2.0,
    "api_price_output": 10.0,
    "api_tokens_input": 1000.0,
    "api_tokens_output": 100.0,
    "memory_margin": 1.0,
}


def inputs(kind: str = "assumed", **values: float) -> CostInputs:
    entries = {name: Entry(value, UNITS[name], kind, "a test") for name, value in {**ROUND, **values}.items()}
    return CostInputs("USD", entries)


def own(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "own.toml"
    path.write_text(text, "utf-8")
    return path


def test_worked_by_hand() -> None:
    found = costs(2.0, 2.5 * GB, None, inputs())
    # 36 W at 2 documents/s are 18 J each: 1,000 take 18,000 J = 0.005 kWh, which cost 0.0025 and emit 2 g.
    assert found.kwh == pytest.approx(0.005)
    assert found.kgco2e == pytest.approx(0.002)
    # A month reads 2 × 3600 × 50 = 360,000 documents for (1000 / 20 + 1.8 kWh × 0.5) × 1.1 = 55.99.
    assert found.cost == pytest.approx(55.99 / 360)
    assert found.hours_per_10000 == pytest.approx(10_000 / 2 / 3600)
    assert found.ram_gb == 4
    # The API takes 1000 × 2 + 100 × 10 millionths = 0.003 for one; its own electricity costs 0.0000025 × 1.1.
    assert found.api_cost == pytest.approx(3.0)
    assert found.break_even == pytest.approx(55 / (0.003 - 0.00000275))
    assert found.never == ""


def test_measured_energy_takes_the_place_of_the_watts() -> None:
    found = costs(2.0, GB, 36.0, inputs())
    assert found.kwh == pytest.approx(0.01)
    assert found.cost == pytest.approx((50 + 3.6 * 0.5) * 1.1 / 360)
    assert costs(2.0, GB, 36.0, inputs(watts_under_load=9999.0)) == found
    assert "kwh" not in found.assumed, "joules were measured"
    assert "kwh" in costs(2.0, GB, None, inputs()).assumed


def test_what_rests_on_assumptions_is_named() -> None:
    assert costs(2.0, GB, None, inputs()).assumed == {"cost", "kwh", "kgco2e", "ram_gb", "api_cost", "break_even"}
    assert costs(2.0, GB, None, inputs("measured")).assumed == frozenset()


@pytest.mark.parametrize(
    ("name", "marked"),
    [
        ("grid_intensity", {"kgco2e"}),
        ("watts_under_load", {"kwh", "kgco2e", "cost", "break_even"}),
        ("utilisation", {"cost"}),
        ("memory_margin", {"ram_gb"}),
        ("api_tokens_output", {"api_cost", "break_even"}),
        ("overhead_share", {"cost", "break_even"}),
        ("hours_per_month", {"cost", "break_even"}),
    ],
)
def test_one_assumption_marks_what_rests_on_it(name: str, marked: set[str]) -> None:
    measured = inputs("measured")
    one = CostInputs("USD", {**measured.entries, name: replace(measured.entries[name], kind="assumed")})
    assert costs(2.0, GB, None, one).assumed == marked


def test_marks_say_what_really_moves() -> None:
    """A figure is marked for an input exactly where that input changes it."""
    speeds = (2.0, GB * 3, None)
    before = costs(*speeds, inputs("measured"))
    for name in ROUND:
        measured = inputs("measured", **{name: ROUND[name] * 0.9 if name != "memory_margin" else 3.0})
        one = CostInputs("USD", {**measured.entries, name: replace(measured.entries[name], kind="assumed")})
        after = costs(*speeds, one)
        figures = [f.name for f in fields(Costs) if f.name != "assumed"]
        moved = {figure for figure in figures if getattr(before, figure) != getattr(after, figure)}
        if name == "hours_per_month":
            moved.add("break_even")  # by way of what the machine can read at most
        assert after.assumed == moved, name


def test_never_where_the_machine_cannot_read_so_much() -> None:
    slow = costs(0.01, GB, None, inputs())
    assert slow.break_even is None
    assert slow.never == "reads 3,600 at most"
    enough = costs(0.06, GB, None, inputs())  # 21,600 a month at most, and electricity for 0.00009 × 1.1 each
    assert enough.break_even == pytest.approx(55 / (0.003 - 0.0000917), rel=1e-3)


def test_never_where_electricity_alone_costs_more() -> None:
    found = costs(2.0, GB, None, inputs(api_price_input=0.001, api_price_output=0.0))
    assert (found.break_even, found.never) == (None, "electricity costs as much")


def test_a_machine_that_is_there_anyway_is_cheaper_at_once() -> None:
    assert costs(2.0, GB, None, inputs(hardware_price=0.0)).break_even == 0


@pytest.mark.parametrize(
    ("peak", "size"),
    [(0, 4), (3 * GB, 4), (3 * GB + 1, 8), (15 * GB, 16), (15 * GB + 1, 32), (63 * GB, 64), (63 * GB + 1, math.inf)],
)
def test_ram_holds_the_peak_and_the_margin(peak: int, size: float) -> None:
    assert costs(1.0, peak, None, inputs()).ram_gb == size


def test_ram_is_not_known_without_a_peak() -> None:
    assert costs(1.0, None, None, inputs()).ram_gb is None


@pytest.mark.parametrize("speed", [0.0, -1.0, math.inf, math.nan])
def test_no_costs_without_a_speed(speed: float) -> None:
    with pytest.raises(ValueError, match="documents per second"):
        costs(speed, GB, None, inputs())


POSITIVE = st.floats(1e-3, 1e4)


@given(speed=POSITIVE, faster=st.floats(1.0, 100.0), joules=st.none() | POSITIVE, peak=st.floats(0, 70 * GB))
def test_more_speed_never_costs_more(speed: float, faster: float, joules: float | None, peak: float) -> None:
    slow, fast = (costs(s, peak, joules, inputs()) for s in (speed, speed * faster))
    for name in ("cost", "kwh", "kgco2e", "hours_per_10000"):
        assert getattr(fast, name) <= getattr(slow, name) * (1 + 1e-9)
    if slow.break_even is not None:
        assert fast.break_even is not None
        assert fast.break_even <= slow.break_even * (1 + 1e-9)
    assert fast.ram_gb == slow.ram_gb


@given(speed=POSITIVE, peaks=st.lists(st.floats(0, 80 * GB), min_size=2, max_size=2).map(sorted))
def test_more_memory_never_fits_in_less(speed: float, peaks: list[float]) -> None:
    small, large = (costs(speed, peak, None, inputs()).ram_gb for peak in peaks)
    assert small is not None and large is not None and small <= large
    assert small in (*RAM_TIERS_GB, math.inf)


@given(speed=POSITIVE, name=st.sampled_from(["hardware_price", "electricity_price", "overhead_share"]), more=POSITIVE)
def test_dearer_inputs_never_cost_less(speed: float, name: str, more: float) -> None:
    cheap, dear = (costs(speed, GB, None, inputs(**{name: ROUND[name] + extra})) for extra in (0.0, more))
    assert dear.cost >= cheap.cost
    assert dear.kwh == cheap.kwh


@given(speed=POSITIVE)
def test_at_the_break_even_both_cost_the_same(speed: float) -> None:
    found = costs(speed, GB, None, inputs())
    if found.break_even is not None:
        ours = (1000 / 20 + found.break_even * found.kwh / 1000 * 0.5) * 1.1
        assert ours == pytest.approx(found.break_even * found.api_cost / 1000)


def test_every_default_is_sourced_and_none_claims_to_be_measured() -> None:
    found = CostInputs.load()
    assert set(found.entries) == set(ROUND)
    assert found.currency == "USD"
    for name, entry in found.entries.items():
        assert entry.kind == "assumed", name
        assert entry.source, name
        assert "http" not in entry.source or "(read 20" in entry.source, f"{name}: when was it read?"
        assert entry.unit and "currency" not in entry.unit
    assert found.entries["electricity_price"].unit == "USD/kWh"


def test_own_entries_take_the_place_of_single_defaults(tmp_path: Path) -> None:
    bill = '[electricity_price]\nvalue = 0.3\nkind = "measured"\nsource = "our bill"\n'
    path = own(tmp_path, f"{bill}[utilisation]\nvalue = 1")
    found, defaults = CostInputs.load(path), CostInputs.load()
    assert found.entries["electricity_price"] == Entry(0.3, "USD/kWh", "measured", "our bill")
    # What the default says of its own value is not said of another one.
    assert found.entries["utilisation"] == Entry(1.0, "share", "assumed", "own.toml", "")
    others = found.entries.keys() - {"electricity_price", "utilisation"}
    assert {name: found.entries[name] for name in others} == {name: defaults.entries[name] for name in others}
    assert found["utilisation"] == 1.0


def test_the_file_of_defaults_can_be_a_users_own(tmp_path: Path) -> None:
    found = CostInputs.load(own(tmp_path, DEFAULTS.read_text("utf-8")))
    assert found == CostInputs.load()


def test_another_currency_must_be_meant(tmp_path: Path) -> None:
    some = '\n[hardware_price]\nvalue = 1\nunit = "currency"\n[electricity_price]\nvalue = 1\nunit = "EUR/kWh"\n'
    with pytest.raises(UsageError, match=r"the currency is EUR, so \[api_price_input\] must be given in it too"):
        CostInputs.load(own(tmp_path, 'currency = "EUR"\n' + some))
    rest = "".join(f"[{name}]\nvalue = 1\n" for name in MONEY if name not in some)
    found = CostInputs.load(own(tmp_path, f'currency = "EUR"\n{some}{rest}'))
    assert found.currency == "EUR"
    assert found.entries["electricity_price"].unit == "EUR/kWh"
    assert found.entries["hardware_price"].unit == "EUR"
    assert not any("USD" in entry.unit for entry in found.entries.values())


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[watts]\nvalue = 1", "unknown entry 'watts'; known: currency, hardware_price"),
        ("watts_under_load = 50", "[watts_under_load] must be a table with a value"),
        ("[watts_under_load]\nunit = 'W'", "[watts_under_load] 'value' must be a number, 0 or more"),
        ("[watts_under_load]\nvalue = '50'", "[watts_under_load] 'value' must be a number, 0 or more"),
        ("[watts_under_load]\nvalue = true", "[watts_under_load] 'value' must be a number, 0 or more"),
        ("[watts_under_load]\nvalue = -1", "[watts_under_load] 'value' must be a number, 0 or more"),
        ("[watts_under_load]\nvalue = nan", "[watts_under_load] 'value' must be a number, 0 or more"),
        ("[watts_under_load]\nvalue = inf", "[watts_under_load] 'value' must be a number, 0 or more"),
        (f"[watts_under_load]\nvalue = 1{'0' * 400}", "[watts_under_load] 'value' must be a number, 0 or more"),
        ("[life_months]\nvalue = 0", "[life_months] 'value' must be above 0"),
        ("[utilisation]\nvalue = 1.5", "[utilisation] 'value' must be 1 or less"),
        ("[hours_per_month]\nvalue = 745", "[hours_per_month] 'value' must be 744 or less"),
        ("[watts_under_load]\nvalue = 1\nunit = 'kW'", "[watts_under_load] 'unit' must be 'W'"),
        ("[electricity_price]\nvalue = 1\nunit = 'EUR/kWh'", "[electricity_price] 'unit' must be 'USD/kWh'"),
        (
            "[watts_under_load]\nvalue = 1\nkind = 'guessed'",
            "[watts_under_load] 'kind' must be one of measured,",
        ),
        ("[watts_under_load]\nvalue = 1\nsource = 3", "[watts_under_load] 'source' must be a string"),
        ("[watts_under_load]\nvalue = 1\nprice = 3", "[watts_under_load] unknown key 'price'; known: value, unit"),
        ("currency = 3", "'currency' must be the name of a currency"),
        ("currency = ' '", "'currency' must be the name of a currency"),
        ("= 3", "not TOML"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_by_name(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        CostInputs.load(own(tmp_path, text))
    assert str(caught.value).startswith(f"{tmp_path / 'own.toml'}: ")
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no\.toml: cannot be read: No such file"):
        CostInputs.load(tmp_path / "no.toml")
