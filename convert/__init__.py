"""From a base model and an adapter to GGUF files that are proven to be the same model, each with its manifest.

    base + adapter -> merged -> F32 GGUF -> weights, token ids, logits equal? -> each level -> how far off? -> names

Files get their names only once everything holds; until then they lie in a folder that goes away, whatever happens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from bioner_edge import gguf_header
from bioner_edge.convert import architectures, gguf, quantize, runtime_lora
from bioner_edge.convert.assemble import Model, assemble, trim
from bioner_edge.convert.calibration import calibrate
from bioner_edge.convert.deliver import About, Delivery, hashes
from bioner_edge.convert.figure import Report, Silent
from bioner_edge.convert.merging import merge
from bioner_edge.convert.merging.adapter import Adapter
from bioner_edge.convert.proof import measure, reference, stages
from bioner_edge.convert.proof.samples import LINES
from bioner_edge.errors import ModelError, UsageError, known
from bioner_edge.models import Manifest

__all__ = ["About", "convert", "convert_adapter"]


def convert(
    base: Path,
    out: Path,
    levels: Sequence[str],
    about: About,
    *,
    adapter: Path | None = None,
    qlora_base: str = "original",
    pre: str | None = None,
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

    `qlora_base` is "dequantized" to merge into the rounded weights that a QLoRA adapter was trained on. `pre` names
    llama.cpp's pre-tokenizer where it is not recognised. `trim_vocab` are texts that the vocabulary is trimmed to,
    `importance` texts for the importance matrix, `tensor_types` types by regular expression over tensor names.
    `keep_merged` leaves the merged model as NAME-merged too. `check` is whether the result is verified; token ids are
    compared on `verify_lines`. `report` hears how it goes.

    Gives the paths in the order of `levels`. Raises UsageError for a request that makes no sense, ModelError for a
    model that cannot be converted and for a stage of the verification that fails; then `out` is as it was.
    """
    report, levels = report or Silent(), _levels(levels, tensor_types)
    for text in (*trim_vocab, *importance):
        if not text.exists():
            raise UsageError(f"{text}: no such file to take text from")
    if check or importance:
        reference.require(base, adapter)
    folders = [f"{about.name}-merged"] if keep_merged else []
    names = [f"{about.name}-{level}.{ending}" for level in levels for ending in ("gguf", "json")]
    with Delivery.into(out, about, [*names, *folders], overwrite=overwrite) as delivery:
        model = assemble(base, adapter, delivery.work, report, qlora_base=qlora_base, pre=pre)
        sources = hashes(model)
        report.step(_told(model))
        if keep_merged:
            report.step(f"writing {folders[0]}")
            merge.save(model.whole, delivery.work / folders[0], tokenizer=model.tokens, progress=report.progress)
            model = model.saved_in(delivery.work / folders[0])
        if trim_vocab:
            model = trim(model, trim_vocab, about, delivery.work, report)
        f32 = _f32(delivery.work, model, about, levels, report)
        for level in set(levels) - set(quantize.FLOATS):
            quantize.check(f32, level, tensor_types or {})

        theirs = stages.load(model, report) if check or importance else None
        proved = stages.against_source(model, theirs, f32, verify_lines, report) if check else []
        matrix, told = calibrate(model, theirs, f32, importance, about, report) if importance else (None, {})
        del theirs  # as large as the model in float32
        judge = stages.Levels(f32, model, about, verify_lines, report) if check else None
        for level in levels:
            path = f32.with_name(f"{about.name}-{level}.gguf")
            if level != "F32":
                types = None if level in quantize.FLOATS else tensor_types
                quantize.quantize(f32, path, level, importance=matrix, tensor_types=types, threads=threads)
            figures = [*proved, *(judge(path, level) if judge else [])]
            marks = {
                "importance": told,
                "fingerprint": measure.fingerprint(path) if check else {},
                "base": model.origin,
            }
            report.step(f"{level}: {_described(path, delivery.add(path, level, sources, figures, **marks))}")
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
    """Convert the adapter alone to `out`/NAME-adapter.gguf, for files of its base that were converted without it.

    `level` is F32 or F16. Raises as `convert` does, and ModelError for an adapter that llama.cpp cannot apply.
    """
    report = report or Silent()
    name = f"{about.name}-adapter"
    with Delivery.into(out, about, [f"{name}.gguf", f"{name}.json"], overwrite=overwrite) as delivery:
        merged = assemble(base, adapter, delivery.work, report)
        bare = assemble(base, None, delivery.work, report)
        architecture = architectures.of(bare.source.config)
        path = delivery.work / f"{name}.gguf"
        report.step(f"writing the adapter for {architecture.name}")
        settings = {"name": about.name, "licence": about.licence, "level": level}
        runtime_lora.write(path, Adapter(adapter), bare.source, architecture, **settings)
        figures = []
        if check:
            f32 = _f32(delivery.work, bare, about, ["F32"], report)
            figures = stages.of_adapter(merged, f32, path, report)
        delivery.add(path, level, hashes(merged), figures, base=merged.origin)
        return delivery.finish()[0]


def _levels(levels: Sequence[str], tensor_types: Mapping[str, str] | None) -> list[str]:
    """Each level once. Raises UsageError for an unknown one, and for types that no level can have."""
    for level in levels:
        if level not in quantize.LEVELS:
            raise UsageError(known("level", level, quantize.LEVELS))
    if tensor_types and not set(levels) - set(quantize.FLOATS):
        raise UsageError(f"tensor types are for quantized levels, not for {', '.join(levels)}")
    return list(dict.fromkeys(levels))


def _f32(work: Path, model: Model, about: About, levels: Sequence[str], report: Report) -> Path:
    """The model as an F32 GGUF, from which every level is made."""
    architecture = architectures.of(model.source.config)
    report.step(f"writing {architecture.name} as F32" + (", the adapter merged into it" if model.adapter else ""))
    path = work / f"{about.name}-F32.gguf"
    largest, where = gguf.write(
        path,
        model.source,
        architecture,
        model.tokenizer,
        name=about.name,
        licence=about.licence,
        progress=report.progress,
    )
    if "F16" in levels and largest > np.finfo(np.float16).max:
        told = f"tensor {where!r} has values that float16 cannot hold; leave F16 out, or take BF16"
        raise ModelError(f"{model.base}: {told}")
    try:
        gguf_header.check(path)
    except ModelError as error:  # numpy can end a write early without a word
        raise ModelError(f"{path}: not all could be written; is the disk full? ({error})") from None
    return path


def _told(model: Model) -> str:
    """What is about to be merged."""
    made = model.origin
    if model.adapter is None:
        return f"{made['base']}: no adapter, nothing to merge"
    parts = {"low-rank": made["low_rank_tensors"], "whole": made["whole_tensors"]}
    told = ", ".join(f"{count} {kind} tensors" for kind, count in parts.items() if count)
    tokens = f", {made['trained_tokens']} trained tokens" if made["trained_tokens"] else ""
    return f"{made['adapter']}, trained on {made['trained_on']}, into {made['base']}: {told}{tokens}"


def _described(path: Path, manifest: Manifest) -> str:
    mix = ", ".join(f"{kind} ×{count}" for kind, count in manifest.tensor_mix.items())
    return f"{path.stat().st_size / 1e6:,.1f} MB, {manifest.bits_per_weight:.2f} bits per weight ({mix})"
