"""What a model can be converted to: `gguf`, a file for llama.cpp, or `onnx`, a folder for onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

from bioner_edge.convert.about import About
from bioner_edge.convert.assemble import SourceModel
from bioner_edge.report import Report

__all__ = ["Target"]


class Target(Protocol):
    """One kind of model on disk, with its options. Every level is made from the F32 model."""

    default: ClassVar[str]
    """The default level."""

    def check_levels(self, levels: Sequence[str]) -> list[str]:
        """The levels without duplicates. Raises UsageError for an unknown level, and for options that none of them
        accepts."""

    def require(self, base: Path) -> None:
        """Raises UsageError where a library needed for the model in `base` is missing, before any long computation."""

    def files(self, name: str, level: str) -> list[str]:
        """The files that a level leaves in the output folder, the model first."""

    def f32(
        self, model: SourceModel, about: About, levels: Sequence[str], work: Path, report: Report
    ) -> tuple[Path, dict[str, Any]]:
        """(the F32 model, in `work`; what the manifest says of how it was made). `levels` will be made from it.

        Raises ModelError where that fails.
        """

    def quantize(self, f32: Path, path: Path, level: str, matrix: Mapping[str, Any] | None) -> None:
        """Write `path`, the model at a level; `matrix` is the importance matrix. Raises ModelError."""

    def mix(self, path: Path) -> tuple[dict[str, int], float]:
        """(tensors by type, bits per weight) of a finished model."""

    def tolerance(self, model: SourceModel) -> float:
        """The largest accepted difference of an F32 logit from transformers', in standard deviations."""
