"""The list of models and the facts about each, as tables and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from bioner_edge.models import gguf_header, registry
from bioner_edge.models.hub_lock import FOLDER, Pull
from bioner_edge.models.manifest import size
from bioner_edge.models.models_toml import Base, Listing
from bioner_edge.models.onnx import folder as onnx_folder
from bioner_edge.models.onnx import graph as onnx_graph
from bioner_edge.models.onnx.weights import QUANTIZED

__all__ = ["Row", "describe", "draw", "overview", "rows"]

_BOUNDS = {"at_most": "at most", "at_least": "at least"}


@dataclass(frozen=True, slots=True)
class Row:
    """A model with a name: one of a list, or a base model on the hub.

    `kind` is "tuned", "untuned" or "base". `bytes` is the size of its files, for a base model that of its weights or of
    what was pulled; None if unknown. `on_disk` is "yes", "part" or "no". `repo` is a base model's repository, `gated`
    whether its license must be accepted there first.
    """

    name: str
    kind: str
    formats: tuple[str, ...]
    labels: tuple[str, ...]
    license: str
    bytes: int | None
    on_disk: str
    path: Path
    description: str
    repo: str | None = None
    gated: bool | None = None

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "path": str(self.path)}


def rows() -> list[Row]:
    """All listed models. Raises ModelError for a list that cannot be read."""
    tuned = [_model_row(name, row) for name, row in registry.listed_models().items()]
    return tuned + [_base_row(name, base) for name, base in registry.bases().items()]


def _model_row(name: str, row: Listing) -> Row:
    found = _bytes(row.path)
    kind, there = "tuned" if row.formats else "untuned", "no" if found is None else "yes"
    return Row(name, kind, row.formats, row.labels, row.license, found, there, row.path, row.description)


def _bytes(path: Path) -> int | None:
    """The size of a model, a file or a folder; None if it does not exist."""
    return size(path) if path.is_file() or onnx_folder.is_model(path) else None


def _base_row(name: str, base: Base) -> Row:
    folder = FOLDER / name
    pulled = Pull.load(folder)
    there = "no" if pulled is None else "part" if pulled.missing(folder) else "yes"
    found = pulled.bytes if pulled else base.bytes
    return Row(name, "base", (), (), base.license, found, there, folder, base.description, base.repo, base.gated)


def overview(found: Sequence[Row]) -> list[Table]:
    """Tables of the models: those that can be used, and base models."""
    usable = _table("model", "formats", "labels", "license", "size", "on disk")
    base = _table("base model", "license", "gated", "size", "on disk")
    for row in found:
        end = (row.license, _size(row.bytes), row.on_disk)
        if row.kind == "base":
            base.add_row(*map(_sanitize, (row.name, row.license, "yes" if row.gated else "no", *end[1:])))
        else:
            usable.add_row(
                *map(_sanitize, (row.name, ", ".join(row.formats) or "–", ", ".join(row.labels) or "–", *end))
            )
    hints = f"`bioner-edge models pull NAME` fetches a base model into {FOLDER}/NAME, for `bioner-edge convert`."
    base.caption = Text(hints, "not italic")
    return [table for table in (usable, base) if table.row_count]


def _table(*titles: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, caption_justify="left")
    for n, title in enumerate(titles):
        table.add_column(title, justify="right" if title == "size" else "left", no_wrap=n == 0, overflow="fold")
    return table


def _size(count: int | None) -> str:
    return "?" if count is None else f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _sanitize(text: str) -> Text:
    """Replace what could control a terminal or cannot be encoded."""
    return Text("".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text))


def describe(name_or_path: str) -> dict[str, Any]:
    """Everything known about a model: its row, manifest and header. Raises BionerError as `models.registry` does."""
    listed, bases = registry.listed_models(), registry.bases()
    if name_or_path in bases:
        row, base = _base_row(name_or_path, bases[name_or_path]), asdict(bases[name_or_path])
        pulled = Pull.load(row.path)
        return {**row.to_json(), **base, "bytes": row.bytes, "pulled": asdict(pulled) if pulled else None}
    path, manifest = registry.find(name_or_path)
    known = _model_row(name_or_path, listed[name_or_path]).to_json() if name_or_path in listed else {}
    return {
        **known,
        "path": str(path),
        "bytes": _bytes(path),
        **(_folder_facts(path) if path.is_dir() else _file_facts(path)),
        "manifest": asdict(manifest) if manifest else None,
    }


def _file_facts(path: Path) -> dict[str, Any]:
    """Facts from the header of a GGUF file."""
    header = gguf_header.read(path)
    return {
        "architecture": header.metadata["general.architecture"],
        "parameters": sum(tensor.weights for tensor in header.tensors),
    }


def _folder_facts(path: Path) -> dict[str, Any]:
    """Facts from the graph of an ONNX model and the files beside it."""
    facts = onnx_folder.read(path)
    return {
        "parameters": facts.weights.total,
        "context": facts.runtime.context,
        "cache": facts.runtime.cache,
        "opsets": dict(facts.graph.opsets),
        "quantization": {name: n for name, n in facts.graph.operators.items() if name in QUANTIZED},
        "inputs": onnx_graph.summary(facts.graph.inputs),
        "outputs": onnx_graph.summary(facts.graph.outputs),
    }


def draw(found: Mapping[str, Any]) -> list[Table]:
    """The result of `describe` as tables."""
    facts = {**found, **(found.get("manifest") or {})}
    figures = facts.pop("verification", ())
    facts.pop("manifest", None)
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for key, value in facts.items():
        if value not in (None, "", (), [], {}):
            table.add_row(key.replace("_", " "), _sanitize(_format_value(value)))
    return [table, _figures(figures)] if figures else [table]


def _format_value(value: Any) -> str:
    """Format a value: lists with commas, tables with a line for each key."""
    if isinstance(value, Mapping):
        return "\n".join(f"{key}: {_compact(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_compact, value))
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else _compact(value)


def _compact(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _figures(figures: Sequence[Mapping[str, Any]]) -> Table:
    """The stages of a verification; further keys of a stage in the manifest are shown with it."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("verification", overflow="fold")
    for title in ("figure", "threshold"):
        table.add_column(title, justify="right")
    for figure in figures:
        more = {k: v for k, v in figure.items() if k not in ("stage", "figure", "at_most", "at_least")}
        bounds = [f"{words} {_number(figure[key])}" for key, words in _BOUNDS.items() if key in figure]
        stage = _compact(figure.get("stage", "")) + "".join(f"; {k}: {_compact(v)}" for k, v in more.items())
        table.add_row(_sanitize(stage), _sanitize(_number(figure.get("figure"))), _sanitize(", ".join(bounds) or "–"))
    return table


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else _compact(value)
