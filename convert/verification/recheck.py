"""Verify a file without its source; neither torch nor a network is needed.

header and hash -> tensors -> text through the tokenizer and back -> token ids and probabilities as at conversion
-> documents extracted as a user would
"""

from __future__ import annotations

from pathlib import Path

from bioner_edge.backends import adapter_file
from bioner_edge.convert.gguf.target import GgufTarget
from bioner_edge.convert.onnx.target import OnnxTarget
from bioner_edge.convert.verification import measure, verify
from bioner_edge.convert.verification.samples import DOCUMENTS, LINES
from bioner_edge.errors import UsageError
from bioner_edge.models import gguf_header, registry
from bioner_edge.models.registry import Manifest
from bioner_edge.report import Figure, Report

__all__ = ["recheck"]

# Of the mean log-probability per token, in nats. Processors round differently: by a few thousandths at most.
_DRIFT = 0.02


def recheck(name_or_path: str, report: Report | None = None) -> list[Figure]:
    """The figures of a model file, by name or path; `report` receives each, and what could not be checked.

    Raises ModelError where the file does not match its manifest, or at the first stage that fails.
    """
    report = report or Report()
    path, manifest = registry.find(name_or_path)
    report.step(f"{path}: the header is valid" + (", the hash matches the manifest" if manifest else ""))
    if manifest is None:
        report.step("it has no manifest to compare with")
    figures = [_tensors(path, manifest)] if manifest else []
    if path.is_file() and gguf_header.check(path).get("general.type") == "adapter":
        adapter_file.check(path)
        report.step("an adapter: its effect can be checked only on its base")
        return _judge(figures, report)
    figures.append(_round_trip(path))
    if manifest and manifest.fingerprint:
        figures += _fingerprint(path, manifest)
    elif manifest:
        report.step("its manifest has no fingerprint of token ids and probabilities: convert it again to add one")
    if manifest and manifest.formats:
        figures += _extraction(path, manifest, report)
    return _judge(figures, report)


def _judge(figures: list[Figure], report: Report) -> list[Figure]:
    for figure in figures:
        report.figure(figure)
    return verify.judge(figures, "convert or fetch the file again")


def _tensors(path: Path, manifest: Manifest) -> Figure:
    mix, bits = (OnnxTarget() if path.is_dir() else GgufTarget()).mix(path)
    differ = sum(mix.get(kind) != manifest.tensor_mix.get(kind) for kind in {*mix, *manifest.tensor_mix})
    differ += abs(bits - manifest.bits_per_weight) > 1e-3
    return Figure("tensors: types whose count is not the manifest's", float(differ), 0.0)


def _round_trip(path: Path) -> Figure:
    """Lines that are not restored byte by byte: entities in them could not be copied."""
    with measure.open_exact(path) as model:
        lost = 0
        for line in LINES:
            ids = model.tokenize(line.encode(), special=False)
            lost += b"".join(model.piece(token) or b"" for token in ids) != line.encode()
    return Figure(f"tokenizer: of {len(LINES)} lines, those that do not come back as they went in", float(lost), 0.0)


def _fingerprint(path: Path, manifest: Manifest) -> list[Figure]:
    now, then = measure.fingerprint(path), manifest.fingerprint
    before = then.get("mean_log_probability")
    drift = abs(now["mean_log_probability"] - before) if isinstance(before, float) else float("nan")
    return [
        Figure("token ids: differ from those at conversion", float(now["ids_sha256"] != then.get("ids_sha256")), 0.0),
        Figure("mean log-probability: drift since conversion, in nats", drift, _DRIFT),
    ]


def _extraction(path: Path, manifest: Manifest, report: Report) -> list[Figure]:
    asked = {"format": manifest.formats[0], "labels": manifest.labels, "unit": manifest.unit}
    try:
        figures, found = verify.extraction(path, manifest.level, None, **asked, guidelines=manifest.guidelines)
    except UsageError as error:
        report.step(f"no documents were read: {error}")
        return []
    report.step(f"{sum(map(len, found))} entities in {len(DOCUMENTS)} documents, as {manifest.formats[0]}")
    return figures
