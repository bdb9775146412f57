"""The sheets on resources: time, memory, energy, money."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from bioner_edge.benchmarks.cost import CostInputs
from bioner_edge.benchmarks.report.entries import Entry, joules_per_document
from bioner_edge.benchmarks.report.figures import MISSING, Column, Sheet, Value, megabytes, number, stat, text
from bioner_edge.benchmarks.report.identity import THREADS, Row, each, identity, timed_rows

__all__ = ["cost", "decoding", "memory", "money", "speed", "waiting"]

_QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


def speed(entries: Sequence[Entry]) -> Sheet:
    def row(entry: Entry, threads: int) -> Row:
        cell = entry.cell
        return {
            "repetitions": number(len(cell.timed(threads))),
            "prefill": stat(cell.figure("prefill_tokens_per_s", threads)),
            "decode": stat(cell.figure("decode_tokens_per_s", threads)),
            "documents": stat(cell.figure("documents_per_s", threads)),
        }

    columns = (
        THREADS,
        Column("repetitions", "runs"),
        Column("prefill", "prompt tokens/s"),
        Column("decode", "written tokens/s"),
        Column("documents", "documents/s"),
    )
    notes = ("Each run is a process of its own, after a warm-up. The median, with the lowest and the highest.",)
    return Sheet("speed", "Speed", (*identity(entries), *columns), timed_rows(entries, row), notes, terminal=True)


def waiting(entries: Sequence[Entry]) -> Sheet:
    def row(entry: Entry, threads: int) -> Row:
        cell = entry.cell
        shares = {name: number(cell.latency_s(share, threads)) for name, share in _QUANTILES.items()}
        return {"load": stat(cell.figure("load_s", threads)), "ttft": stat(cell.figure("ttft_s", threads)), **shares}

    columns = (
        THREADS,
        Column("load", "load, s"),
        Column("ttft", "first token, s"),
        *(Column(name, f"{name}, s") for name in _QUANTILES),
    )
    notes = (
        "Seconds to load the model, from a document's start to the first token of its answer, and for whole documents: "
        "the time that 50, 90 and 99 % of them did not exceed, over all runs.",
    )
    return Sheet("waiting", "Waiting", (*identity(entries), *columns), timed_rows(entries, row), notes, terminal=True)


def decoding(entries: Sequence[Entry]) -> Sheet:
    def row(entry: Entry, threads: int) -> Row:
        names = ("calls_per_answer", "tokens_per_answer", "forced_share", "bandwidth_share")
        figures = {name: stat(entry.cell.figure(name, threads)) for name in names}
        return {**figures, "read": stat(entry.cell.figure("read_bytes_per_s", threads), 1e9)}

    columns = (
        THREADS,
        Column("calls_per_answer", "steps per answer"),
        Column("tokens_per_answer", "tokens per answer"),
        Column("forced_share", "forced"),
        Column("read", "weights read, GB/s"),
        Column("bandwidth_share", "share of a copy"),
    )
    notes = (
        "Forced: the share of tokens where the constraint allowed only one. Share of a copy: bytes of weights read "
        "per second while writing, over the bytes that a plain copy on this machine reads and writes per second. A "
        "model that fits into the processor's cache is not read from memory: its share means nothing and may exceed 1.",
    )
    return Sheet("decoding", "Decoding", (*identity(entries), *columns), timed_rows(entries, row), notes)


def memory(entries: Sequence[Entry]) -> Sheet:
    names = ("peak_rss_bytes", "anonymous_bytes", "file_bytes", "before_bytes", "cache_bytes")

    def row(entry: Entry, threads: int) -> Row:
        figures = {name: stat(entry.cell.figure(name, threads), 1e6) for name in names}
        model = entry.cell.figure("model_bytes", threads)
        energy = joules_per_document(entry.cell, threads)
        energy_value = stat(energy) if energy else Value("n/a", tone="muted")
        return {**figures, "on_disk": megabytes(model.median if model else None), "energy": energy_value}

    columns = (
        THREADS,
        Column("peak_rss_bytes", "peak, MB"),
        Column("anonymous_bytes", "anonymous, MB"),
        Column("file_bytes", "files, MB"),
        Column("before_bytes", "before loading, MB", lesser=True),
        Column("on_disk", "model, MB"),
        Column("cache_bytes", "cache, MB", lesser=True),
        Column("energy", "J per document"),
    )
    notes = (
        "Resident memory of the process; anonymous and file-backed are the largest seen of each (what is mapped from "
        "files the kernel can take back). Model: on disk. Cache: of keys and values. 1 MB is 10^6 bytes.",
        *_energy_told(entries),
    )
    rows = timed_rows(entries, row)
    return Sheet("memory", "Memory and energy", (*identity(entries), *columns), rows, notes, terminal=True)


def _energy_told(entries: Sequence[Entry]) -> Iterator[str]:
    lines = [line for entry in entries for line in entry.cell.repetitions if line.get("energy_j") is None]
    for reason in dict.fromkeys(line.get("energy_told") for line in lines):
        yield f"n/a: {text(reason).text}" if reason else "n/a: energy was not measured"


def cost(entries: Sequence[Entry], inputs: CostInputs) -> Sheet:
    def row(entry: Entry) -> Row:
        figures = {name: money(entry, name) for name in ("cost", "kwh", "kgco2e", "hours_per_10000")}
        return {**figures, "ram": _ram(entry), "break_even": _break_even(entry)}

    columns = (
        Column("cost", f"{inputs.currency} per 1,000"),
        Column("kwh", "kWh per 1,000"),
        Column("kgco2e", "kg CO2e per 1,000"),
        Column("hours_per_10000", "hours per 10,000", lesser=True),
        Column("ram", "RAM to buy"),
        Column("break_even", "break-even, a month"),
    )
    priced = [entry for entry in entries if entry.costs]
    api = money(priced[0], "api_cost").text if priced else ""
    notes = (
        "For documents of this length, at the most threads. ~ depends on an input that was assumed, not measured.",
        f"Break-even: from this number a month on, the machine is cheaper than the API, which costs {api} "
        f"{inputs.currency} per 1,000. The report lists the inputs, under Inputs of the costs.",
    )
    return Sheet("cost", "Cost", (*identity(entries), *columns), each(priced, row), notes, terminal=True)


def money(entry: Entry, name: str) -> Value:
    if entry.costs is None:
        return MISSING
    return _mark_assumed(entry, name, number(getattr(entry.costs, name)))


def _mark_assumed(entry: Entry, name: str, value: Value) -> Value:
    """The value, marked where it depends on an assumed input."""
    if entry.costs is None or name not in entry.costs.assumed:
        return value
    return Value(f"~{value.text}", value.sort, value.range, "assumed")


def _ram(entry: Entry) -> Value:
    size = entry.costs.ram_gb if entry.costs else None
    if size is None:
        return MISSING
    message = f"{size:.0f} GB" if math.isfinite(size) else "over 64 GB"
    return _mark_assumed(entry, "ram_gb", Value(message, size))


def _break_even(entry: Entry) -> Value:
    assert entry.costs
    if entry.costs.break_even is None:
        return _mark_assumed(entry, "break_even", Value("never", math.inf, entry.costs.never))
    # Rounded up to two significant digits, since the inputs are not more exact.
    step = 10 ** max(0, math.floor(math.log10(max(entry.costs.break_even, 1))) - 1)
    return _mark_assumed(
        entry, "break_even", Value(f"{math.ceil(entry.costs.break_even / step) * step:,}", entry.costs.break_even)
    )
