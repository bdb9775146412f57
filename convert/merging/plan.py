"""Plan a merge: which tensors of an adapter change which tensor of the base.

The one hard case is a base with tied output and embedding. Changes to both alike (trained tokens, ensure_weight_tying,
a resized vocabulary) keep them tied. Where only one of them changes, or each differently, they are untied:
lm_head.weight is written and config.json corrected.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from bioner_edge.convert.checkpoint import Source
from bioner_edge.convert.merging.adapter import Adapter, Tokens
from bioner_edge.errors import ModelError

__all__ = ["Plan", "Recipe"]

_HEAD = "lm_head.weight"
_EMBEDDINGS = ("model.embed_tokens.weight", "transformer.wte.weight")
# Model types and layers of transformers' Conv1D, which stores outputs as columns.
_CONV1D_MODELS = {"gpt2", "openai-gpt"}
_CONV1D_LAYERS = {"c_attn", "c_fc", "c_proj", "q_attn"}


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one tensor is computed: from a base tensor, or from the adapter's `whole`, with the changes of the other
    fields.

    `turned` says that the outputs of its module are columns, not rows.
    """

    start: str
    whole: str | None = None
    target: str | None = None  # key of adapter.targets
    turned: bool = False
    tokens: Tokens | None = None
    added: tuple[str, float] | None = None  # the adapter's bias, and its scaling


class Plan:
    """The merge of `adapter` into `base`: `recipes` of the changed tensors, `shapes` of all, and `corrections` of
    config.json.

    `untied` says that output and embedding were tied and no longer are, `needs_untied_base` that this is so or that
    peft would add the same change to the shared matrix twice. Raises ModelError where the two do not fit.
    """

    def __init__(self, base: Source, adapter: Adapter) -> None:
        self._base, self._adapter = base, adapter
        self._there = dict(base.shapes())
        self._embedding = next((name for name in _EMBEDDINGS if name in self._there), _EMBEDDINGS[0])
        self._tied = self._is_tied()
        self._refuse_missing()
        if self._tied:
            self._there[_HEAD] = self._there[self._embedding]
        self.recipes = {name: self._recipe(name) for name in sorted(self._changed_tensors())}
        self.shapes = {name: self._shape(name, self.recipes.get(name)) for name in self._there}
        self.untied = self._tied and self._is_untied()
        pair = {_HEAD, self._embedding}
        self.needs_untied_base = self.untied or (self._tied and bool(pair & adapter.targets.keys()))
        if self._tied and not self.untied:
            del self.shapes[_HEAD]
            self.recipes.pop(_HEAD, None)
        self.corrections = dict(self._corrections())

    def _is_tied(self) -> bool:
        """Whether output and embedding of the base are one matrix."""
        tied = self._base.config.get("tie_word_embeddings")
        if self._embedding not in self._there:
            return False
        if _HEAD not in self._there:
            return tied is not False
        if tied and not np.array_equal(self._base.tensor(_HEAD), self._base.tensor(self._embedding)):
            why = "config.json ties output and embedding, but lm_head.weight differs"
            raise ModelError(f"{self._base.folder}: {why}; set tie_word_embeddings to false")
        return bool(tied)

    def _refuse_missing(self) -> None:
        """Raises ModelError unless the adapter contains everything that its settings say was trained."""
        for name, shape in self._there.items():
            module = name.removesuffix(".weight")
            is_matrix = len(shape) == 2 and module != name and not (self._tied and name == _HEAD)
            if is_matrix and name not in self._adapter.targets and self._adapter.settings.targets(module):
                raise self._base_error(f"target_modules includes {module!r}, but it has no tensors for it")

    def _changed_tensors(self) -> set[str]:
        """The tensors that the adapter changes; both of a tied pair where it changes one."""
        adapter = self._adapter
        names = {*adapter.targets, *adapter.tokens, *adapter.replaced, *adapter.originals}
        names |= {_bias(name) for name, target in adapter.targets.items() if target.added_bias}
        for name in sorted(names - self._there.keys()):
            what = "bias, which peft cannot merge either" if name.endswith(".bias") else "tensor"
            raise self._base_error(f"it changes {name!r}, but the base has no such {what}")
        pair = {_HEAD, self._embedding} if self._tied else set()
        return names | pair if names & pair else names

    def _recipe(self, name: str) -> Recipe:
        adapter = self._adapter
        start, tokens = name, adapter.tokens.get(name)
        whole = adapter.replaced.get(name) or adapter.originals.get(name)
        if self._tied and name in (_HEAD, self._embedding):
            start = self._embedding
            whole = whole or self._shared_replacement(_HEAD if name == self._embedding else self._embedding)
            if name == _HEAD and name not in {*adapter.tokens, *adapter.replaced, *adapter.targets}:
                tokens = adapter.tokens.get(self._embedding)  # peft ties these rows
        target = adapter.targets.get(name)
        turned = target is not None and (target.embedding or self._is_conv1d(name))
        layer = next((target for key, target in adapter.targets.items() if _bias(key) == name), None)
        added = (layer.added_bias, layer.scaling) if layer and layer.added_bias else None
        return Recipe(start, whole, name if target else None, turned, tokens, added)

    def _shared_replacement(self, name: str) -> str | None:
        """The adapter's replacement for a tensor, as shared by its tied partner; None for a copy trained by
        modules_to_save."""
        copied = self._adapter.settings.copies(name.removesuffix(".weight"))
        return self._adapter.originals.get(name) or (None if copied else self._adapter.replaced.get(name))

    def _is_conv1d(self, name: str) -> bool:
        layer = name.removesuffix(".weight").rpartition(".")[2]
        return self._base.config.get("model_type") in _CONV1D_MODELS and layer in _CONV1D_LAYERS

    def _shape(self, name: str, recipe: Recipe | None) -> tuple[int, ...]:
        """The shape after merging. Raises ModelError where the adapter's tensors do not fit it."""
        if recipe is None:
            return self._there[name]
        there = self._there[recipe.start]
        shape = self._adapter.shapes[recipe.whole] if recipe.whole else there
        resized = name in (_HEAD, self._embedding) and len(shape) == 2 and shape[1:] == there[1:]
        if shape != there and not resized:
            raise self._base_error(f"{recipe.whole!r} has shape {shape}, but {there} in the base's {name!r}")
        for part, expected in self._expected_shapes(recipe, shape):
            found = self._adapter.shapes[part]
            if found != expected:
                raise self._base_error(
                    f"{part!r} has shape {found}, but the base's {name!r} of {shape} needs {expected}"
                )
        if recipe.tokens and max(recipe.tokens.ids, default=0) >= shape[0]:
            raise self._base_error(
                f"token {max(recipe.tokens.ids)} was trained, but the base's {name!r} has {shape[0]} rows"
            )
        return shape

    def _expected_shapes(self, recipe: Recipe, shape: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Adapter tensor -> its required shape for a base tensor of `shape`."""
        if recipe.added:
            yield recipe.added[0], shape
        if recipe.tokens:
            yield recipe.tokens.values, (len(recipe.tokens.ids), *shape[1:])
        if recipe.target:
            target = self._adapter.targets[recipe.target]
            outputs, inputs = (shape[-1], shape[0]) if recipe.turned else (shape[0], shape[-1])
            yield target.a, (target.rank, inputs)
            yield target.b, (outputs, target.rank)
            if target.magnitude:
                yield target.magnitude, (outputs,)

    def _is_untied(self) -> bool:
        """Whether the tensors of a tied pair are computed differently."""
        head, embedding = self.recipes.get(_HEAD), self.recipes.get(self._embedding)
        return head is not None and embedding is not None and not self._same(head, embedding)

    def _same(self, one: Recipe, other: Recipe) -> bool:
        """Whether two recipes that start from the same tensor give the same result."""
        wholes = [recipe.whole for recipe in (one, other) if recipe.whole]
        tokens = [recipe.tokens for recipe in (one, other) if recipe.tokens]
        targets = [recipe.target for recipe in (one, other) if recipe.target]
        if any(len(of_both) == 1 for of_both in (wholes, tokens, targets)):
            return False
        if len({trained.ids for trained in tokens}) > 1 or not self._adapter.same(*(t.values for t in tokens)):
            return False
        return self._adapter.same(*wholes) and self._adds_same(*targets)

    def _adds_same(self, *keys: str) -> bool:
        adapter = self._adapter
        targets = [adapter.targets[key] for key in keys]
        if any(target.dora or target.scaling != targets[0].scaling for target in targets):
            return False
        factors = zip(*map(adapter.factors, keys), strict=True)
        return all(np.array_equal(*pair) for pair in factors)

    def _corrections(self) -> Iterator[tuple[str, object]]:
        """Changes to config.json."""
        if self.untied:
            yield "tie_word_embeddings", False
        rows = [self.shapes[name][0] for name in (self._embedding, _HEAD) if name in self.shapes]
        if len(set(rows)) > 1:
            message = (
                f"the embedding gets {rows[0]} rows and the output {rows[1]}: the vocabulary was resized and only one"
            )
            raise ModelError(f"{self._adapter.file}: {message} of them saved; save both (save_embedding_layers=True)")
        if rows and rows[0] != self._there[self._embedding][0]:
            yield "vocab_size", rows[0]

    def _base_error(self, why: str) -> ModelError:
        message = f"this adapter was trained on {self._adapter.settings.base!r}, not on {self._base.folder}"
        return ModelError(f"{self._adapter.file}: {why}; {message}; give the base that it was trained on")


def _bias(name: str) -> str:
    return name.removesuffix(".weight") + ".bias"
