"""Compare systems: corresponding cells of runs, document by document.

    bioner-edge compare runs/q8 runs/q4

The first run is the reference. Where it has one cell of a corpus, every cell of the others on that corpus is compared
with it; where it has several, `correspondence` matches them. In a single run, every cell is compared with the reference
level of the same model, format and constraint. Cells without a reference are refused, with the reason.

A difference is significant where its p-value, adjusted for all requested comparisons, is below 0.05.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bioner_edge.benchmarks.comparing.correspondence import Matching, Place, Refused, with_first, with_level, with_one
from bioner_edge.benchmarks.results import Cell, Key, Run
from bioner_edge.benchmarks.scoring.accuracy import MODES
from bioner_edge.benchmarks.scoring.bootstrap import RESAMPLES, Difference, compare_paired, holm
from bioner_edge.errors import InputError, UsageError, unknown_name

__all__ = ["LEVEL", "RESOURCES", "Compared", "Comparison", "compare", "versus_reference"]

LEVEL = 0.05
RESOURCES = ("model_bytes", "peak_rss_bytes", "decode_tokens_per_s", "documents_per_s")


@dataclass(frozen=True, slots=True)
class Compared:
    """A cell and its reference. `ratios` are its figures divided by the reference's, at `threads` threads, the most at
    which both were timed; None for what either lacks."""

    place: Place
    reference: Place
    difference: Difference
    p_holm: float
    threads: int | None
    ratios: Mapping[str, float | None]

    @property
    def significant(self) -> bool:
        return self.p_holm < LEVEL

    def to_json(self) -> dict[str, Any]:
        d = self.difference
        return {
            "run": str(self.place.run.folder),
            "cell": self.place.cell.key.to_json(),
            "reference_run": str(self.reference.run.folder),
            "reference": self.reference.cell.key.to_json(),
            "f1": d.scores[0],
            "reference_f1": d.scores[1],
            **self.figures(),
            "documents": d.documents,
            "differing": d.differing,
            "left_out": d.left_out,
            "threads": self.threads,
            "ratios": dict(self.ratios),
        }

    def figures(self) -> dict[str, Any]:
        d = self.difference
        found = {"difference": d.difference, "low": d.low, "high": d.high, "p": d.p, "p_holm": self.p_holm}
        return {**found, "significant": self.significant}


@dataclass(frozen=True, slots=True)
class Comparison:
    """All compared cells, and those refused. `notices` are needed to interpret it."""

    mode: str
    seed: int
    pairs: Sequence[Compared]
    refused: Sequence[Refused]
    notices: Sequence[str] = ()

    @property
    def exit_code(self) -> int:
        """0 if all cells were compared, 1 if some could not be."""
        return 1 if self.refused else 0

    def to_json(self) -> dict[str, Any]:
        return {
            "mode": self.mode,
            "seed": self.seed,
            "pairs": [pair.to_json() for pair in self.pairs],
            "refused": [refused.to_json() for refused in self.refused],
            "notices": list(self.notices),
        }


def compare(
    runs: Sequence[Run],
    reference: Key | str | None = None,
    *,
    mode: str = "strict",
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Comparison:
    """Compare the cells of runs with those of the first run, or with `reference`.

    A reference is a cell, with which all others of its corpus are compared, or the name of a level or model, with which
    the other levels of the same model or all other models are compared. Raises UsageError for an unknown mode or
    reference, InputError for a reference without a score.
    """
    if isinstance(reference, Key):
        matching = with_one(runs, reference)
    elif reference is not None or len(runs) == 1:
        matching = with_level(runs, reference)
    else:
        matching = with_first(runs)
    return _compare(matching, mode, seed, resamples)


def versus_reference(
    run: Run, reference: str | None = None, *, mode: str = "strict", seed: int = 0, resamples: int = RESAMPLES
) -> dict[Key, dict[str, Any]]:
    """The cells of a run, each compared with the reference level of the same model, format and constraint, by key.

    `reference` names a level or a model; the default is each model's scored level with the most bits per weight. Cells
    without a reference, and references themselves, are omitted. Raises UsageError for an unknown reference.
    """
    compared = _compare(with_level([run], reference), mode, seed, resamples)
    return {pair.place.cell.key: {"reference": pair.reference.cell.key, **pair.figures()} for pair in compared.pairs}


def _compare(matching: Matching, mode: str, seed: int, resamples: int) -> Comparison:
    """Compute the differences; pairs that cannot be compared are refused."""
    if mode not in MODES:
        raise UsageError(unknown_name("mode", mode, MODES))
    found: list[tuple[Place, Place, Difference]] = []
    refused = list(matching.refused)
    for place, reference in matching.matched:
        try:
            sides = place.cell.tallies(), reference.cell.tallies()
            found.append((place, reference, compare_paired(*sides, mode, seed=seed, resamples=resamples)))
        except InputError as error:
            refused.append(Refused(place, f"cannot be compared with {reference.cell.key}: {error}"))
    adjusted = holm([difference.p for _, _, difference in found])
    pairs = [
        Compared(place, reference, difference, p, *_ratios(place.cell, reference.cell))
        for (place, reference, difference), p in zip(found, adjusted, strict=True)
    ]
    return Comparison(mode, seed, pairs, refused, [*_notices(pairs)])


def _ratios(ours: Cell, theirs: Cell) -> tuple[int | None, dict[str, float | None]]:
    """The fields of `Compared`; medians of the repetitions."""
    threads = max({*ours.threads} & {*theirs.threads}, default=None)
    found: dict[str, float | None] = {}
    for name in RESOURCES:
        if name == "model_bytes":
            found[name] = _ratio(ours.about.get("bytes"), theirs.about.get("bytes"))
        else:
            figures = [cell.figure(name, threads) if threads else None for cell in (ours, theirs)]
            found[name] = _ratio(*(figure.median if figure else None for figure in figures))
    return threads, found


def _ratio(one: float | None, other: float | None) -> float | None:
    return one / other if one is not None and other else None


def _notices(pairs: Sequence[Compared]) -> Iterator[str]:
    """Documents that were left out, and speeds from different machines."""
    for pair in pairs:
        if pair.difference.left_out:
            message = f"{pair.difference.left_out} documents were read by one of the two alone and are left out"
            yield f"{pair.place.cell.key}, {pair.reference.cell.key}: {message}"
    timed = [pair for pair in pairs if pair.threads]
    machines = {str(p.run.header.get("machine", {}).get("processor")) for c in timed for p in (c.place, c.reference)}
    if len(machines) > 1:
        yield f"speed and memory were measured on different machines: {'; '.join(sorted(machines))}"
