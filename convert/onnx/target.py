"""The target ONNX: a model exported in float32, then its weights rounded in blocks of 32."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from bioner_edge.convert.about import About
from bioner_edge.convert.assemble import SourceModel
from bioner_edge.convert.checkpoint import load_json
from bioner_edge.convert.merging import merge
from bioner_edge.errors import UsageError, unknown_name
from bioner_edge.models.onnx import folder as onnx_folder
from bioner_edge.report import Report

__all__ = ["OnnxTarget"]

_LEVELS = ("F32", "int8", "int4")
_TOKENIZER, _RUNTIME = "tokenizer.json", "runtime.json"
_CHECKPOINT = "checkpoint"  # a folder in the work folder


@dataclass(frozen=True, slots=True)
class OnnxTarget:
    """See `Target`. `exporter` is "builder", "optimum", or "auto" for the family's default, see `onnx.export`."""

    exporter: str = "auto"
    default: ClassVar[str] = "int8"

    def check_levels(self, levels: Sequence[str]) -> list[str]:
        for level in levels:
            if level not in _LEVELS:
                raise UsageError(unknown_name("level", level, _LEVELS))
        return list(dict.fromkeys(levels))

    def require(self, base: Path) -> None:
        from bioner_edge.convert.onnx import export

        if (base / "config.json").is_file():  # where it is missing, reading the checkpoint raises
            named = load_json(base / "config.json").get("architectures")
            export.require(self.exporter, str(named[0]) if isinstance(named, list) and named else "none given")

    def files(self, name: str, level: str) -> list[str]:
        return [f"{name}-{level}-onnx"]

    def f32(
        self, model: SourceModel, about: About, levels: Sequence[str], work: Path, report: Report
    ) -> tuple[Path, dict[str, Any]]:
        from bioner_edge.convert.onnx import export, graph, tokenizer

        path, exported = work / self.files(about.name, "F32")[0], work / "exported"
        for folder in (path, exported):
            folder.mkdir()
        folder = self._checkpoint(model, work, report)
        made = export.export(folder, exported, self.exporter, report)
        report.step("writing the graph as F32")
        graph.finish(exported / "model.onnx", path / "model.onnx")
        tokenizer.write(model.tokens, model.tokenizer, path / _TOKENIZER)
        settings = tokenizer.runtime(model.tokenizer, made.context, made.cache)
        (path / _RUNTIME).write_text(json.dumps(settings, ensure_ascii=False, indent=2) + "\n", "utf-8")
        shutil.rmtree(exported)
        shutil.rmtree(work / _CHECKPOINT, ignore_errors=True)
        return path, {"exporter": made.exporter}

    def _checkpoint(self, model: SourceModel, work: Path, report: Report) -> Path:
        """A folder with the weights to export: the model's own where they can be used unchanged."""
        source = model.source
        if source is model.whole and all(file.parent == source.folder for file in source.files):
            return source.folder
        report.step("writing the merged model for the exporter")
        merge.save(source, work / _CHECKPOINT, tokenizer=model.tokens, report=report)
        return work / _CHECKPOINT

    def quantize(self, f32: Path, path: Path, level: str, matrix: Mapping[str, Any] | None) -> None:
        from bioner_edge.convert.onnx import quantize

        path.mkdir()
        quantize.quantize(f32, path, level)
        for name in (_TOKENIZER, _RUNTIME):
            shutil.copyfile(f32 / name, path / name)

    def mix(self, path: Path) -> tuple[dict[str, int], float]:
        return onnx_folder.tensor_mix(path)

    def tolerance(self, model: SourceModel) -> float:
        return 1e-3
