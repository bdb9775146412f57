"""Which models there are, and what is known of each, for people and as JSON."""

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
    """A model that can be named: one of a list, or a base model on the hub.

    `kind` is "tuned", "untuned" or "base". `bytes` are those of its files, of a base model those of its weights or of
    what was pulled; None where nothing says so. `on_disk` is "yes", "part" or "no". `repo` is where a base model
    is, `gated` whether its license must be accepted there first.
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
    """The models of the lists. Raises ModelError for a list that cannot be read."""
    tuned = [_tuned(name, row) for name, row in registry.listed_models().items()]
    return tuned + [_base(name, base) for name, base in registry.bases().items()]


def _tuned(name: str, row: Listing) -> Row:
    found = _bytes(row.path)
    kind, there = "tuned" if row.formats else "untuned", "no" if found is None else "yes"
    return Row(name, kind, row.formats, row.labels, row.license, found, there, row.path, row.description)


def _bytes(path: Path) -> int | None:
    """The size of a model, a file or a folder; None where there is none."""
    return size(path) if path.is_file() or onnx_folder.is_model(path) else None


def _base(name: str, base: Base) -> Row:
    folder = FOLDER / name
    pulled = Pull.load(folder)
    there = "no" if pulled is None else "part" if pulled.missing(folder) else "yes"
    found = pulled.bytes if pulled else base.bytes
    return Row(name, "base", (), (), base.license, found, there, folder, base.description, base.repo, base.gated)


def overview(found: Sequence[Row]) -> list[Table]:
    """The models in tables for people: those that can be used, and those that others are made of."""
    usable = _table("model", "formats", "labels", "license", "size", "on disk")
    base = _table("base model", "license", "gated", "size", "on disk")
    for row in found:
        end = (row.license, _size(row.bytes), row.on_disk)
        if row.kind == "base":
            base.add_row(*map(_tame, (row.name, row.license, "yes" if row.gated else "no", *end[1:])))
        else:
            usable.add_row(*map(_tame, (row.name, ", ".join(row.formats) or "–", ", ".join(row.labels) or "–", *end)))
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


def _tame(text: str) -> Text:
    """Text that cannot do anything to a terminal, and can be encoded."""
    return Text("".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text))


def describe(name_or_path: str) -> dict[str, Any]:
    """Everything that is known of a model: its row, its manifest, its header. Raises BionerError as `models` does."""
    listed, bases = registry.listed_models(), registry.bases()
    if name_or_path in bases:
        row, base = _base(name_or_path, bases[name_or_path]), asdict(bases[name_or_path])
        pulled = Pull.load(row.path)
        return {**row.to_json(), **base, "bytes": row.bytes, "pulled": asdict(pulled) if pulled else None}
    path, manifest = registry.find(name_or_path)
    known = _tuned(name_or_path, listed[name_or_path]).to_json() if name_or_path in listed else {}
    return {
        **known,
        "path": str(path),
        "bytes": _bytes(path),
        **(_of_folder(path) if path.is_dir() else _of_file(path)),
        "manifest": asdict(manifest) if manifest else None,
    }


def _of_file(path: Path) -> dict[str, Any]:
    """What the header of a GGUF file says."""
    header = gguf_header.read(path)
    return {
        "architecture": header.metadata["general.architecture"],
        "parameters": sum(tensor.weights for tensor in header.tensors),
    }


def _of_folder(path: Path) -> dict[str, Any]:
    """What the graph of an ONNX model says, and what is said beside it."""
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
    """What `described` gives, in tables for people."""
    facts = {**found, **(found.get("manifest") or {})}
    figures = facts.pop("verification", ())
    facts.pop("manifest", None)
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for key, value in facts.items():
        if value not in (None, "", (), [], {}):
            table.add_row(key.replace("_", " "), _tame(_worded(value)))
    return [table, _figures(figures)] if figures else [table]


def _worded(value: Any) -> str:
    """A value in words: lists with commas, tables a line for each key."""
    if isinstance(value, Mapping):
        return "\n".join(f"{key}: {_compact(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_compact, value))
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else _compact(value)


def _compact(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _figures(figures: Sequence[Mapping[str, Any]]) -> Table:
    """The stages of a verification; whatever a manifest says of one beyond these is shown with it."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("verification", overflow="fold")
    for title in ("figure", "threshold"):
        table.add_column(title, justify="right")
    for figure in figures:
        more = {k: v for k, v in figure.items() if k not in ("stage", "figure", "at_most", "at_least")}
        bounds = [f"{words} {_number(figure[key])}" for key, words in _BOUNDS.items() if key in figure]
        stage = _compact(figure.get("stage", "")) + "".join(f"; {k}: {_compact(v)}" for k, v in more.items())
        table.add_row(_tame(stage), _tame(_number(figure.get("figure"))), _tame(", ".join(bounds) or "–"))
    return table


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else _compact(value)
