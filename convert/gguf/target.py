"""The target GGUF: a model written in float32, then quantized by llama.cpp."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from bioner_edge.convert import architectures
from bioner_edge.convert.about import About
from bioner_edge.convert.assemble import SourceModel
from bioner_edge.convert.gguf import quantize, writer
from bioner_edge.errors import ModelError, UsageError, unknown_name
from bioner_edge.models import gguf_header
from bioner_edge.report import Report

__all__ = ["GgufTarget"]


@dataclass(frozen=True, slots=True)
class GgufTarget:
    """See `Target`. `tensor_types` maps regular expressions over tensor names to types; `threads` are those of
    quantizing."""

    tensor_types: Mapping[str, str] = field(default_factory=dict)
    threads: int | None = None
    default: ClassVar[str] = "Q8_0"

    def check_levels(self, levels: Sequence[str]) -> list[str]:
        for level in levels:
            if level not in quantize.LEVELS:
                raise UsageError(unknown_name("level", level, quantize.LEVELS))
        if self.tensor_types and not set(levels) - set(quantize.FLOATS):
            raise UsageError(f"tensor types are for quantized levels, not for {', '.join(levels)}")
        return list(dict.fromkeys(levels))

    def require(self, base: Path) -> None:
        """Nothing: every installation can write GGUF."""

    def files(self, name: str, level: str) -> list[str]:
        return [f"{name}-{level}.gguf", f"{name}-{level}.json"]

    def f32(
        self, model: SourceModel, about: About, levels: Sequence[str], work: Path, report: Report
    ) -> tuple[Path, dict[str, Any]]:
        architecture = architectures.of(model.source.config)
        report.step(f"writing {architecture.name} as F32" + (", the adapter merged into it" if model.adapter else ""))
        path = work / self.files(about.name, "F32")[0]
        largest, where = writer.write(
            path,
            model.source,
            architecture,
            model.tokenizer,
            name=about.name,
            license=about.license,
            report=report,
        )
        if "F16" in levels and largest > np.finfo(np.float16).max:
            message = f"tensor {where!r} has values beyond the range of float16; omit F16, or use BF16"
            raise ModelError(f"{model.base}: {message}")
        try:
            gguf_header.check(path)
        except ModelError as error:  # numpy can silently end a write early
            raise ModelError(f"{path}: could be written only in part; is the disk full? ({error})") from None
        for level in set(levels) - set(quantize.FLOATS):
            quantize.check(path, level, self.tensor_types)
        return path, {}

    def quantize(self, f32: Path, path: Path, level: str, matrix: Mapping[str, Any] | None) -> None:
        types = None if level in quantize.FLOATS else self.tensor_types
        quantize.quantize(f32, path, level, importance=matrix, tensor_types=types, threads=self.threads)

    def mix(self, path: Path) -> tuple[dict[str, int], float]:
        return quantize.tensor_mix(path)

    def tolerance(self, model: SourceModel) -> float:
        return architectures.of(model.source.config).tolerance
