"""Convert a base model and an adapter to verified GGUF or ONNX models, each with its manifest.

    base + adapter -> merge -> F32 -> verify weights, token ids, logits -> quantize -> measure each level -> deliver

A target says what a model is converted to: a GGUF file (`gguf`) or an ONNX folder (`onnx`). Files get their final names
only after every check has passed; until then they are in a temporary folder, which is always removed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from bioner_edge.convert import architectures
from bioner_edge.convert.about import About
from bioner_edge.convert.assemble import SourceModel, assemble, tell_prompt, trim
from bioner_edge.convert.delivery import Delivery, hashes
from bioner_edge.convert.gguf import lora
from bioner_edge.convert.gguf.calibration import calibrate
from bioner_edge.convert.gguf.target import GgufTarget
from bioner_edge.convert.merging import merge
from bioner_edge.convert.merging.adapter import Adapter
from bioner_edge.convert.onnx.target import OnnxTarget
from bioner_edge.convert.target import Target
from bioner_edge.convert.verification import measure, reference, stages
from bioner_edge.convert.verification.samples import LINES
from bioner_edge.errors import UsageError, unknown_name
from bioner_edge.models.manifest import Manifest, size
from bioner_edge.prompts import Value
from bioner_edge.report import Report

__all__ = ["About", "GgufTarget", "OnnxTarget", "convert", "convert_adapter"]


def convert(
    base: Path,
    out: Path,
    levels: Sequence[str],
    about: About,
    *,
    to: str = "gguf",
    exporter: str = "auto",
    adapter: Path | None = None,
    qlora_base: str = "original",
    pre: str | None = None,
    template_options: Mapping[str, Value] | None = None,
    trim_vocab: Sequence[Path] = (),
    importance: Sequence[Path] = (),
    tensor_types: Mapping[str, str] | None = None,
    keep_merged: bool = False,
    check: bool = True,
    verify_lines: Sequence[str] = LINES,
    threads: int | None = None,
    overwrite: bool = False,
    report: Report | None = None,
) -> list[Path]:
    """Convert the model in `base`, with `adapter` merged into it, to `out`/NAME-LEVEL.gguf for each level.

    `to` is "gguf", or "onnx" for folders `out`/NAME-LEVEL-onnx, written by an `exporter` of `onnx.export`. `qlora_base`
    is "dequantized" to merge into the rounded weights that a QLoRA adapter was trained on. `pre` names llama.cpp's
    pre-tokenizer where it is not recognized. `template_options` sets variables that the chat template reads
    (`enable_thinking`; `strftime_now`, a date, by default today's). `trim_vocab` are texts to trim the vocabulary to,
    `importance` texts for the importance matrix, `tensor_types` maps regular expressions over tensor names to types.
    `keep_merged` also keeps the merged model, as NAME-merged. `check` verifies the result; token ids are compared on
    `verify_lines`. `report` receives the progress.

    Returns the paths in the order of `levels`, by default of the target's default level. Raises UsageError for options
    that do not go together, ModelError for a model that cannot be converted and for a verification stage that fails;
    `out` is then unchanged.
    """
    target = _target(to, exporter, tensor_types, importance, threads)
    report, levels = report or Report(), target.check_levels(levels or [target.default])
    for text in (*trim_vocab, *importance):
        if not text.exists():
            raise UsageError(f"{text}: no such file")
    target.require(base)
    if check or importance:
        reference.require(base, adapter)
    folders = [f"{about.name}-merged"] if keep_merged else []
    names = [name for level in levels for name in target.files(about.name, level)]
    with Delivery.into(out, about, [*names, *folders], overwrite=overwrite, tell=report.step) as delivery:
        model = assemble(
            base, adapter, delivery.work, report, qlora_base=qlora_base, pre=pre, template_options=template_options
        )
        sources = hashes(model)
        report.step(_describe_merge(model))
        tell_prompt(model, about, report)
        if keep_merged:
            report.step(f"writing {folders[0]}")
            merge.save(model.whole, delivery.work / folders[0], tokenizer=model.tokens, report=report)
            model = model.with_folder(delivery.work / folders[0])
        if trim_vocab:
            model = trim(model, trim_vocab, about, delivery.work, report)
        f32, made = target.f32(model, about, levels, delivery.work, report)

        theirs = stages.load(model, report) if check or importance else None
        proved = stages.against_source(model, theirs, f32, target, about, verify_lines, report) if check else []
        matrix, calibration = calibrate(model, theirs, f32, importance, about, report) if importance else (None, {})
        del theirs  # as large as the model in float32
        judge = stages.Levels(f32, model, about, verify_lines, report) if check else None
        for level in levels:
            path = delivery.work / target.files(about.name, level)[0]
            if path != f32:
                target.quantize(f32, path, level, matrix)
            figures = [*proved, *(judge(path, level) if judge else [])]
            marks = {
                "importance": calibration,
                "fingerprint": measure.fingerprint(path) if check else {},
                "base": model.origin | made,
            }
            manifest = delivery.add(path, level, target.mix(path), sources, figures, **marks)
            report.step(f"{level}: {_describe(path, manifest)}")
        return delivery.finish([delivery.work / folder for folder in folders])


def convert_adapter(
    base: Path,
    adapter: Path,
    out: Path,
    about: About,
    *,
    level: str = "F32",
    check: bool = True,
    overwrite: bool = False,
    report: Report | None = None,
) -> Path:
    """Convert the adapter alone to `out`/NAME-adapter.gguf, to be loaded on top of an already converted base.

    `level` is F32 or F16. Raises as `convert` does, and ModelError for an adapter that llama.cpp cannot apply.
    """
    report = report or Report()
    name = f"{about.name}-adapter"
    names = [f"{name}.gguf", f"{name}.json"]
    with Delivery.into(out, about, names, overwrite=overwrite, tell=report.step) as delivery:
        merged = assemble(base, adapter, delivery.work, report)
        bare = assemble(base, None, delivery.work, report)
        architecture = architectures.of(bare.source.config)
        path = delivery.work / f"{name}.gguf"
        report.step(f"writing the adapter for {architecture.name}")
        settings = {"name": about.name, "license": about.license, "level": level}
        lora.write(path, Adapter(adapter), bare.source, architecture, **settings)
        figures = []
        if check:
            f32, _ = GgufTarget().f32(bare, about, ["F32"], delivery.work, report)
            figures = stages.of_adapter(merged, f32, path, architecture.tolerance, report)
        delivery.add(path, level, GgufTarget().mix(path), hashes(merged), figures, base=merged.origin)
        return delivery.finish()[0]


def _target(
    to: str,
    exporter: str,
    tensor_types: Mapping[str, str] | None,
    importance: Sequence[Path],
    threads: int | None,
) -> Target:
    """The requested target. Raises UsageError for options that belong to the other target."""
    if to == "gguf":
        if exporter != "auto":
            raise UsageError(f"the exporter {exporter!r} is for ONNX; leave it out, or convert to onnx")
        return GgufTarget(tensor_types or {}, threads)
    if to == "onnx":
        if tensor_types or importance:
            given = "tensor types" if tensor_types else "an importance matrix"
            raise UsageError(f"{given} cannot be used with onnx, whose levels round to nearest; omit it")
        return OnnxTarget(exporter)
    raise UsageError(unknown_name("target", to, ("gguf", "onnx")))


def _describe_merge(model: SourceModel) -> str:
    """What will be merged, in one line."""
    made = model.origin
    if model.adapter is None:
        return f"{made['base']}: no adapter, nothing to merge"
    parts = {"low-rank": made["low_rank_tensors"], "whole": made["whole_tensors"]}
    tensors = ", ".join(f"{count} {kind} tensors" for kind, count in parts.items() if count)
    tokens = f", {made['trained_tokens']} trained tokens" if made["trained_tokens"] else ""
    return f"{made['adapter']}, trained on {made['trained_on']}, into {made['base']}: {tensors}{tokens}"


def _describe(path: Path, manifest: Manifest) -> str:
    mix = ", ".join(f"{kind} ×{count}" for kind, count in manifest.tensor_mix.items())
    return f"{size(path) / 1e6:,.1f} MB, {manifest.bits_per_weight:.2f} bits per weight ({mix})"
