"""Spans, entities and documents: the data types that all commands share.

All offsets are half-open intervals [start, end) in Unicode code points of the document's own text, so that
``text[start:end]`` is the mention in Python. This is the project's only definition of an offset.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

__all__ = ["Document", "Entity", "Span", "entity_json"]


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """A non-empty half-open interval [start, end) of code points. Raises ValueError for any other interval."""

    start: int
    end: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end:
            raise ValueError(f"a span needs 0 <= start < end, not [{self.start}, {self.end})")

    def shifted(self, by: int) -> Span:
        return Span(self.start + by, self.end + by)


@dataclass(frozen=True, slots=True)
class Entity:
    """A typed mention: one fragment, or several in text order when it is discontinuous.

    `score` is the product of p(chosen | candidates) over the choices that wrote it, `removed_mass` the largest
    probability mass that the constraint removed at any of them; both lie in [0, 1] and are None for gold.
    """

    label: str
    fragments: tuple[Span, ...]
    score: float | None = None
    removed_mass: float | None = None

    def __post_init__(self) -> None:
        if not self.fragments:
            raise ValueError("an entity needs at least one fragment")
        if any(a.end > b.start for a, b in pairwise(self.fragments)):
            raise ValueError(f"fragments must be in text order and must not overlap: {self.fragments}")

    @classmethod
    def at(cls, label: str, start: int, end: int) -> Entity:
        """Build an entity of one fragment."""
        return cls(label, (Span(start, end),))

    @property
    def start(self) -> int:
        return self.fragments[0].start

    @property
    def end(self) -> int:
        return self.fragments[-1].end

    @property
    def key(self) -> tuple[str, tuple[Span, ...]]:
        """Label and offsets, which identify an entity; its score does not."""
        return self.label, self.fragments

    def mention(self, text: str) -> str:
        """The mention's surface in `text`; fragments are joined by one space, as in brat."""
        return " ".join(text[f.start : f.end] for f in self.fragments)

    def shifted(self, by: int) -> Entity:
        return replace(self, fragments=tuple(f.shifted(by) for f in self.fragments))


@dataclass(frozen=True, slots=True)
class Document:
    """A text with its identifier; `entities` are its gold annotations, which extraction never reads.

    `title_end` is the length of the title if the source separates title and abstract (PubTator); one separating
    character follows it.
    """

    id: str
    text: str
    entities: tuple[Entity, ...] = ()
    title_end: int | None = None

    def without_entities(self) -> Document:
        return replace(self, entities=())

    def with_entities(self, entities: Iterable[Entity]) -> Document:
        return replace(self, entities=tuple(entities))

    def to_json(self) -> dict[str, Any]:
        """The document as a JSON Lines object; `title_end` is omitted if unknown."""
        record: dict[str, Any] = {"id": self.id, "text": self.text}
        if self.title_end is not None:
            record["title_end"] = self.title_end
        record["entities"] = [entity_json(entity, self.text) for entity in self.entities]
        return record


def entity_json(entity: Entity, text: str) -> dict[str, Any]:
    """An entity as JSON with the keys of GLiNER and Prodigy; `fragments` only for discontinuous mentions."""
    record: dict[str, Any] = {
        "start": entity.start,
        "end": entity.end,
        "label": entity.label,
        "text": entity.mention(text),
    }
    if len(entity.fragments) > 1:
        record["fragments"] = [[f.start, f.end] for f in entity.fragments]
    if entity.score is not None:
        record["score"] = round(entity.score, 4)
    if entity.removed_mass is not None:
        record["removed_mass"] = round(entity.removed_mass, 4)
    return record
