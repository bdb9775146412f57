"""The parts of a manifest that do not follow from the weights: name, labels, formats, license, guidelines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bioner_edge import formats
from bioner_edge.constraints import find_constraint
from bioner_edge.errors import UsageError, unknown_name
from bioner_edge.models import models_toml
from bioner_edge.models.manifest import UNITS

__all__ = ["About"]


@dataclass(frozen=True, slots=True)
class About:
    """The parts of a manifest that do not follow from the weights; see `models.manifest.Manifest`.

    Raises UsageError for values that are invalid or contradict each other.
    """

    name: str
    labels: tuple[str, ...] = ()
    formats: tuple[str, ...] = ()
    unit: str = "document"
    license: str = "unknown"
    guidelines: Mapping[str, str] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    constraint: str = ""

    def __post_init__(self) -> None:
        if not self.name or Path(self.name).name != self.name:
            raise UsageError(f"the name {self.name!r} must be a file name, not a path; choose the folder with --out")
        if reason := models_toml.name_error(self.name):
            raise UsageError(f"the name {self.name!r} cannot be a model's: {reason}; give another with --name")
        if self.unit not in UNITS:
            raise UsageError(unknown_name("unit", self.unit, UNITS))
        if self.constraint:
            find_constraint(self.constraint)
        if bool(self.formats) != bool(self.labels):
            there, missing = ("labels", "formats") if self.labels else ("formats", "labels")
            raise UsageError(f"{there} without {missing}: give both, or neither for a model that is not fine-tuned")
        for name in self.formats:
            formats.get(name).questions(self.labels)  # refuses labels that the format cannot write
        if unknown := sorted(self.guidelines.keys() - set(self.labels)):
            raise UsageError(f"the guideline for {unknown[0]!r} is not for one of the labels {', '.join(self.labels)}")

    @classmethod
    def of(
        cls,
        folders: Sequence[Path],
        *,
        name: str | None = None,
        labels: Sequence[str] = (),
        formats: Sequence[str] = (),
        unit: str = "document",
        license: str | None = None,
        guidelines: Mapping[str, str] | None = None,
        training: Mapping[str, Any] | None = None,
        constraint: str | None = None,
    ) -> About:
        """From the user's options; the name defaults to that of the first folder, the license to those of all model
        cards."""
        for what, value in (("labels", labels), ("formats", formats)):
            if isinstance(value, str):
                raise UsageError(f"{what} must be a list of names, not {value!r}")
        found = license or " AND ".join(dict.fromkeys(filter(None, map(_license_of, folders)))) or "unknown"
        return cls(
            name=name or folders[0].resolve().name,
            labels=tuple(labels),
            formats=tuple(formats),
            unit=unit,
            license=found,
            guidelines=dict(guidelines or {}),
            training=dict(training or {}),
            constraint=constraint or "",
        )


def _license_of(folder: Path) -> str | None:
    """The license in the YAML header of a model card, as Hugging Face writes it; None where it names none."""
    card = folder / "README.md"
    lines = card.read_text("utf-8", errors="replace").splitlines() if card.is_file() else []
    if lines[:1] != ["---"]:
        return None
    found = {}
    for line in lines[1 : lines.index("---", 1) if "---" in lines[1:] else 1]:
        key, _, value = line.partition(":")
        found[key] = value.strip().strip("'\"")
    if found.get("license") == "other":
        return found.get("license_name") or "other"
    return found.get("license") or None
