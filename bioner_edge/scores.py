"""Entity scores: the model's confidence in the choices that wrote an entity. Not calibrated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from bioner_edge.decoding.loop import Answer, Choice
from bioner_edge.document import Entity
from bioner_edge.formats.contract import Parsed

__all__ = ["score_entities"]


def score_entities(answer: Answer, parsed: Parsed) -> Iterator[Entity]:
    """Yield each entity with the product of the probabilities of the choices that wrote it and their largest removed
    mass. Both are None if the choices are unknown.
    """
    if not answer.choices:
        yield from parsed.entities
        return
    ends = [0, *_ends(answer.data)]
    for entity, place in zip(parsed.entities, parsed.places, strict=True):
        made = [c for c in answer.choices if c.start < ends[place.end] and ends[place.start] < c.end]
        score = 1.0
        for choice in made:
            score *= choice.probability
        yield replace(entity, score=score, removed_mass=_max_removed_mass(made))


def _ends(data: bytes) -> Iterator[int]:
    """The byte offset of the end of each code point of `data`, decoded with "replace": U+FFFD is one to three bytes."""
    at = 0
    while at < len(data):
        bad = None
        try:
            good = data[at:].decode()
        except UnicodeDecodeError as error:
            good, bad = data[at : at + error.start].decode(), at + error.end
        for char in good:
            at += len(char.encode())
            yield at
        if bad:
            at = bad
            yield at


def _max_removed_mass(choices: Sequence[Choice]) -> float | None:
    masses = [c.removed_mass for c in choices if c.removed_mass is not None]
    return max(masses, default=None)
