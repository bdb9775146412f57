"""Merge an adapter into its base, tensor by tensor: the weights of peft's merge_and_unload in float32.

They are identical bit for bit, on every machine, by the arithmetic of `exact`. There is one exception, where peft
returns a model that was not the one trained: if output and embedding are tied and the adapter changes only one of them,
or each differently, merge_and_unload adds every change to the shared matrix, and warns. Here the two are untied, as
that warning recommends, and the logits are those of the adapter before merging; peft gives these weights if the base is
untied first. Similarly under ensure_weight_tying, peft adds the same change twice and here it is added once.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bioner_edge.convert import shards
from bioner_edge.convert.checkpoint import Source
from bioner_edge.convert.merging.adapter import Adapter
from bioner_edge.convert.merging.exact import Product, blocks, column_norms, row_norms
from bioner_edge.convert.merging.nf4 import Rounded
from bioner_edge.convert.merging.plan import Plan, Recipe
from bioner_edge.convert.shards import Shapes
from bioner_edge.errors import ModelError, UsageError, unknown_name
from bioner_edge.report import Advance, Report

__all__ = ["QLORA_BASES", "Merged", "save"]

QLORA_BASES = ("original", "dequantized")

_MANY = 1 << 20  # values per numpy call where cache size does not matter
_SHARD = 4 << 30  # bytes
# Files that a model folder needs besides weights and config.json.
_WITH_TOKENIZER = (
    "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "merges.txt", "chat_template.jinja",
)  # fmt: skip


class Merged:
    """The base with the adapter merged, each tensor computed on request.

    `qlora_base` is for adapters trained by QLoRA, on weights rounded to four bits, whose errors they learned to
    compensate: "dequantized" merges into those rounded weights (see `nf4`), which gives the model that was trained;
    "original" merges into the base's own weights, which are more exact, and right for every other adapter.

    `base` is the source merged into: the given one or, where `rounded`, the same as QLoRA saw it. `untied` says that
    output and embedding were tied and no longer are, `needs_untied_base` that peft gives these weights only if the base
    is untied first. Raises UsageError for an unknown `qlora_base`, ModelError where the adapter does not fit the base.
    """

    def __init__(self, base: Source, adapter: Adapter, *, qlora_base: str = "original") -> None:
        if qlora_base not in QLORA_BASES:
            raise UsageError(unknown_name("QLoRA base", qlora_base, QLORA_BASES))
        self.rounded = qlora_base == "dequantized"
        self.base: Source = Rounded(base) if self.rounded else base
        self.adapter = adapter
        self._plan = Plan(base, adapter)
        self.untied, self.needs_untied_base = self._plan.untied, self._plan.needs_untied_base
        self.folder, self.files = base.folder, (*base.files, adapter.file)
        self.config: Mapping[str, Any] = {**base.config, **self._plan.corrections}

    def shapes(self) -> Shapes:
        return self._plan.shapes

    def tensor(self, name: str) -> NDArray[np.float32]:
        """One merged tensor, as in `Source.tensor`. Raises ModelError where a value is not finite."""
        recipe = self._plan.recipes.get(name)
        if recipe is None:
            return self.base.tensor(name)
        weight = self.adapter.tensor(recipe.whole) if recipe.whole else self.base.tensor(recipe.start)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            if recipe.target:
                self._add(weight, recipe, recipe.target)
            if recipe.tokens:
                weight[list(recipe.tokens.ids)] = self.adapter.tensor(recipe.tokens.values)
            if recipe.added:
                weight += self.adapter.tensor(recipe.added[0]) * np.float32(recipe.added[1])
        for rows in blocks(weight.shape[0], prod(weight.shape[1:]), cells=_MANY):
            if not np.isfinite(weight[rows]).all():
                message = f"merging it gives NaN or infinity in {name!r}; its training diverged"
                raise ModelError(f"{self.adapter.file}: {message}")
        return weight

    def _add(self, weight: NDArray[np.float32], recipe: Recipe, key: str) -> None:
        """Add the low-rank update, then scale to DoRA's magnitudes, in place. Shape of weight: (rows, columns)"""
        target = self.adapter.targets[key]
        a, b = self.adapter.factors(key)
        product = Product(a.T, b.T) if recipe.turned and not target.embedding else Product(b, a)
        for rows in blocks(*product.shape):
            weight[rows] += product.rows(rows) * np.float32(target.scaling)
        if target.magnitude is None:
            return
        magnitude = self.adapter.tensor(target.magnitude)
        if recipe.turned:
            weight *= magnitude / column_norms(weight)
        else:
            for rows in blocks(*product.shape, cells=_MANY):
                weight[rows] *= (magnitude[rows] / row_norms(weight[rows]))[:, None]


def save(
    source: Source,
    out: Path,
    *,
    tokenizer: Path | None = None,
    report: Report | None = None,
    shard_bytes: int = _SHARD,
) -> None:
    """Write a model's folder as transformers does, in float32: safetensors shards of about `shard_bytes`, config.json
    and the files of the folder `tokenizer`.

    The folder gets its name when it is complete. Raises UsageError where it exists, ModelError where writing fails.
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UsageError(f"{out}: exists; choose another folder, or remove it")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f"{out.name}.partial-", dir=out.parent) as work:
            folder = Path(work) / out.name
            folder.mkdir()
            with (report or Report()).progress("writing", len(source.shapes()), "tensors") as advance:
                _write(source, folder, shard_bytes, advance)
            _describe(source, folder, tokenizer)
            if out.exists():
                out.rmdir()
            os.replace(folder, out)
    except OSError as error:
        size = 4 * sum(map(prod, source.shapes().values())) / 1e9
        message = f"{error.strerror or error}; the model needs {size:.2f} GB there; nothing was kept"
        raise ModelError(f"{out}: {message}") from None


def _write(source: Source, folder: Path, shard_bytes: int, advance: Advance) -> None:
    shapes = source.shapes()
    parts = list(_parts(shapes, shard_bytes))
    index: dict[str, str] = {}

    def tensor(name: str) -> NDArray[np.float32]:
        index[name] = file
        found = source.tensor(name)
        advance()
        return found

    for number, part in enumerate(parts, start=1):
        file = f"model-{number:05}-of-{len(parts):05}.safetensors" if len(parts) > 1 else "model.safetensors"
        shards.write(folder / file, part, tensor)
    if len(parts) > 1:
        total = {"total_size": 4 * sum(map(prod, shapes.values()))}
        _json(folder / "model.safetensors.index.json", {"metadata": total, "weight_map": index})


def _parts(shapes: Shapes, most: int) -> Iterator[Shapes]:
    """The tensors in groups of at most `most` bytes; a larger one is a group of its own."""
    part: dict[str, tuple[int, ...]] = {}
    size = 0
    for name, shape in shapes.items():
        if part and size + 4 * prod(shape) > most:
            yield part
            part, size = {}, 0
        part[name] = shape
        size += 4 * prod(shape)
    yield part


def _describe(source: Source, folder: Path, tokenizer: Path | None) -> None:
    """Write the corrected config.json and copy the other files of a model's folder."""
    spelled = "torch_dtype" if "torch_dtype" in source.config else "dtype"
    _json(folder / "config.json", {**source.config, spelled: "float32"})
    files = [source.folder / "generation_config.json", *(tokenizer / name for name in _WITH_TOKENIZER if tokenizer)]
    for file in files:
        if file.is_file():
            shutil.copyfile(file, folder / file.name)


def _json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", "utf-8")
