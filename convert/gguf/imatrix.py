"""An importance matrix: how large each input of each matrix is on text of the domain, in the mean of its squares.

An error in a weight counts as much as the input that it is multiplied with, so quantization may spend its precision
where inputs are large. The values are what llama.cpp's own tool computes, sums of squares over counts, from the torch
model instead of a file; they are handed over in memory. llama.cpp's tool leaves the output matrix out unless it is told
otherwise; here it is taken in, where it is a matrix of its own. Tied to the embedding it stays out, since its rows are
read there without those inputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bioner_edge.errors import ModelError, UsageError
from bioner_edge.report import Report

__all__ = ["importance"]


def importance(
    model: Any,
    gguf_names: Mapping[str, str],
    sequences: Sequence[Sequence[int]],
    report: Report | None = None,
) -> dict[str, NDArray[np.float32]]:
    """The mean square of each input of the linear layers of a causal language model of transformers, over all tokens.

    `gguf_names` maps the names of tensors in the checkpoint to those in the GGUF, which are the keys of what is given
    back; shape: (inputs,). `sequences` are token ids, none longer than the model's context. `report` hears how
    many tokens are done. Raises UsageError where there are no tokens, ModelError for a layer without a
    name and for inputs that are not finite.
    """
    import torch

    total = sum(map(len, sequences))
    if not total:
        raise UsageError("an importance matrix needs text, there is not one token")
    means = {ours: _Mean() for ours in _layers(model, gguf_names)}
    hooks = [layer.register_forward_pre_hook(means[ours]) for ours, layer in _layers(model, gguf_names).items()]
    # Registered last, it is called last: nothing is multiplied with the vocabulary but the last token.
    hooks.append(model.get_output_embeddings().register_forward_pre_hook(lambda _, inputs: (inputs[0][:, -1:],)))
    try:
        with torch.inference_mode(), (report or Report()).progress("importance", total, "tokens") as advance:
            for ids in filter(None, sequences):
                model(torch.tensor([ids], device=model.device), use_cache=False)
                advance(len(ids))
    finally:
        for hook in hooks:
            hook.remove()
    return {ours: mean.value(ours, total) for ours, mean in means.items()}


def _layers(model: Any, gguf_names: Mapping[str, str]) -> dict[str, Any]:
    """The linear layers by the GGUF name of their weights, but for an output matrix that is the embedding."""
    from torch.nn import Linear

    embedding = model.get_input_embeddings().weight
    found = {}
    for name, module in model.named_modules():
        if not isinstance(module, Linear) or module.weight is embedding:
            continue
        if f"{name}.weight" not in gguf_names:
            raise ModelError(f"the importance matrix: layer {name!r} has no place in the GGUF; convert without it")
        found[gguf_names[f"{name}.weight"]] = module
    return found


class _Mean:
    """A hook before a layer, which adds up the squares of what goes in."""

    def __init__(self) -> None:
        self.count = 0
        self.sums: Any = 0.0

    def __call__(self, _: Any, inputs: tuple[Any, ...]) -> None:
        import torch

        rows = inputs[0].flatten(0, -2)  # (tokens, inputs)
        self.sums = self.sums + rows.square().sum(0, dtype=torch.float64)
        self.count += len(rows)

    def value(self, name: str, total: int) -> NDArray[np.float32]:
        """Shape: (inputs,). Raises ModelError where a token was left out or a sum is not finite."""
        if self.count != total:
            raise ModelError(f"the importance matrix: {name} met {self.count} of {total} tokens; convert without it")
        mean = (self.sums / self.count).cpu().numpy().astype(np.float32)
        if not np.isfinite(mean).all():
            raise ModelError(f"the importance matrix: inputs of {name} are not finite; was the model trained through?")
        return np.asarray(mean)
