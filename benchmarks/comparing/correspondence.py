"""Match corresponding cells of runs, so that they can be compared.

Cells without a counterpart are refused, with the reason: none is dropped silently.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from bioner_edge.benchmarks.results import Cell, Key, Run
from bioner_edge.errors import InputError, UsageError, unknown_name

__all__ = ["Matching", "Place", "Refused", "family", "with_first", "with_level", "with_one"]

_AGREEING = (
    ("model", "format", "constraint"),
    ("family", "format", "constraint"),  # another level
    ("format", "constraint"),  # another model
    ("model", "format"),
    ("family", "format"),
    ("model", "constraint"),
    ("family", "constraint"),
)
"""Keys in which corresponding cells of one corpus agree: the first row in which any cells of both runs agree."""


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """A cell and its run."""

    run: Run
    cell: Cell

    @property
    def corpus(self) -> str:
        """An identity of the corpus: its content where known, whatever its name."""
        name = self.cell.key.corpus
        return str(self.run.corpora.get(name, {}).get("sha256") or name)

    @property
    def unscored(self) -> str | None:
        """Why it has no score, or None."""
        if self.cell.accuracy:
            return None
        return f"has failed: {self.cell.failed['reason']}" if self.cell.failed else "was not scored"

    def is_named(self, name: str) -> bool:
        """Whether this is the name of its model or of its level."""
        return name in (self.cell.key.model, self.cell.about.get("level"))

    def traits(self, names: Sequence[str]) -> tuple[str, ...]:
        values = {**self.cell.key.to_json(), "family": family(self.cell)}
        return tuple(values[name] for name in names)


@dataclass(frozen=True, slots=True)
class Refused:
    """A cell that was not compared."""

    place: Place
    reason: str

    def to_json(self) -> dict[str, Any]:
        return {"run": str(self.place.run.folder), "cell": self.place.cell.key.to_json(), "reason": self.reason}


def family(cell: Cell) -> str:
    """The name of the model without its level: NAME for NAME-Q8_0 and NAME-int8-onnx."""
    name, at, folder = cell.key.model.partition("@")  # NAME-LEVEL@FOLDER is one of several of the same name
    level = cell.about.get("level")
    stem = re.sub(r"(\.gguf|-onnx|-onnx\.onnx)$", "", name)
    return (stem.removesuffix(f"-{level}") if level else stem) + at + folder


@dataclass
class Matching:
    """Cells and their references, matched before anything is computed."""

    matched: list[tuple[Place, Place]] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)

    def refuse(self, places: Sequence[Place], reason: str) -> None:
        self.refused += [Refused(place, reason) for place in places]

    def scored(self, run: Run) -> list[Place]:
        """The cells of a run that can be compared; the others are refused."""
        places = [Place(run, cell) for cell in run.cells]
        self.refused += [Refused(place, place.unscored) for place in places if place.unscored]
        return [place for place in places if not place.unscored]


def with_one(runs: Sequence[Run], key: Key) -> Matching:
    """Compare every cell with the one that has this key."""
    matching = Matching()
    every = [Place(run, cell) for run in runs for cell in run.cells]
    reference = next((place for place in every if place.cell.key == key), None)
    if reference is None:
        raise UsageError(unknown_name("cell", str(key), [place.cell.key for place in every]))
    if reference.unscored:
        raise InputError(f"{reference.run.folder}: the reference, {key}, {reference.unscored}")
    for place in [place for run in runs for place in matching.scored(run)]:
        if place.cell is reference.cell:
            continue
        if place.corpus == reference.corpus:
            matching.matched.append((place, reference))
        else:
            matching.refuse([place], f"another corpus than that of {key}")
    return matching


def with_level(runs: Sequence[Run], reference: str | None) -> Matching:
    """Compare every cell with the reference level of its model: `reference`, a level or a model, else the level with
    the most bits per weight.

    A named model is the reference of all other models too: where it has one cell of a corpus, for every cell there,
    else for those with the same format and constraint.
    """
    matching = Matching()
    every = [Place(run, cell) for run in runs for cell in run.cells]
    if reference is not None and not any(place.is_named(reference) for place in every):
        names = {name for p in every for name in (p.cell.about.get("level"), p.cell.key.model) if name}
        raise UsageError(unknown_name("level or model", reference, sorted(names)))
    scored = [place for run in runs for place in matching.scored(run)]
    often = Counter(place.corpus for place in scored if place.cell.key.model == reference)
    agreeing: dict[int, tuple[str, ...]] = {0: ("family", "format", "constraint"), 1: ()}  # by cells of a named model
    groups: defaultdict[tuple[str, ...], list[Place]] = defaultdict(list)
    for place in scored:
        traits = place.traits(agreeing.get(often[place.corpus], ("format", "constraint")))
        groups[place.corpus, *traits].append(place)
    for places in groups.values():
        chosen = [place for place in places if reference is None or place.is_named(reference)]
        if not chosen:
            matching.refuse(places, f"there is no score of {reference} in this format and constraint")
            continue
        best = min(chosen, key=lambda place: (-(place.cell.about.get("bits_per_weight") or 0.0), place.cell.key))
        matching.matched += [(place, best) for place in places if place is not best]
        if len(places) == 1:
            matching.refuse(places, "nothing else of this model was scored in this format and constraint")
    return matching


def with_first(runs: Sequence[Run]) -> Matching:
    """Compare the cells of all other runs with those of the first."""
    matching = Matching()
    first = matching.scored(runs[0])
    others = [matching.scored(run) for run in runs[1:]]
    for places in others:
        _correspond(places, first, matching)
    used = {id(reference.cell) for _, reference in matching.matched}
    matching.refuse([p for p in first if id(p.cell) not in used], "no cell of another run corresponds to it")
    return matching


def _correspond(places: Sequence[Place], first: Sequence[Place], matching: Matching) -> None:
    """Find the counterpart in `first` of each place, or record why there is none."""
    for corpus in dict.fromkeys(place.corpus for place in places):
        ours = [place for place in places if place.corpus == corpus]
        theirs = [place for place in first if place.corpus == corpus]
        agreeing = _agreeing(ours, theirs)
        for place in ours:
            fitting = [other for other in theirs if agreeing(other) == agreeing(place)]
            if len(fitting) == 1:
                matching.matched.append((place, fitting[0]))
            elif fitting:
                keys = "; ".join(str(other.cell.key) for other in fitting)
                matching.refuse([place], f"several cells of the first run correspond to it: {keys}; name the reference")
            else:
                missing = "corresponds to it" if theirs else "was scored on this corpus, as it is here"
                matching.refuse([place], f"no cell of the first run {missing}")


def _agreeing(ours: Sequence[Place], theirs: Sequence[Place]) -> Callable[[Place], tuple[str, ...]]:
    """The key in which corresponding cells agree."""
    if len(theirs) == 1:
        return lambda place: ()
    for names in _AGREEING:
        if {place.traits(names) for place in ours} & {place.traits(names) for place in theirs}:
            return lambda place: place.traits(names)
    return lambda place: place.traits(_AGREEING[0])
