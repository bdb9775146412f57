"""What a model can become, one module each: `to_gguf`, a file for llama.cpp; `to_onnx`, a folder for onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

from bioner_edge.convert.about import About
from bioner_edge.convert.assemble import SourceModel
from bioner_edge.report import Report

__all__ = ["Target"]


class Target(Protocol):
    """One kind of model on disk, with what was asked of it. Every level is made from float32."""

    default: ClassVar[str]
    """The level that is made where none is asked for."""

    def checked(self, levels: Sequence[str]) -> list[str]:
        """Each level once. Raises UsageError for an unknown one, and for settings that none of them can have."""

    def require(self, base: Path) -> None:
        """Raises UsageError where a library is missing for the model in `base`: before hours are spent."""

    def files(self, name: str, level: str) -> list[str]:
        """What a level leaves in the output folder, the model first."""

    def f32(
        self, model: SourceModel, about: About, levels: Sequence[str], work: Path, report: Report
    ) -> tuple[Path, dict[str, Any]]:
        """(the model in float32, in `work`; what the manifest says of its making). `levels` are made from it later.

        Raises ModelError where that cannot be done.
        """

    def quantize(self, f32: Path, path: Path, level: str, matrix: Mapping[str, Any] | None) -> None:
        """Write `path`, the model at a level; `matrix` is the importance of its weights. Raises ModelError."""

    def mix(self, path: Path) -> tuple[dict[str, int], float]:
        """(tensors by type, bits per weight) of a finished model."""

    def tolerance(self, model: SourceModel) -> float:
        """How far a logit in float32 may lie from transformers', in standard deviations, where nothing is wrong."""
