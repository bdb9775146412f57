"""Importance matrix: the mean square of each input of each matrix on in-domain text.

An error in a weight counts in proportion to the input that it is multiplied by, so quantization should spend precision
where inputs are large. The values are those of llama.cpp's own tool, sums of squares over counts, but computed from the
torch model and passed in memory, not in a file. llama.cpp's tool skips the output matrix by default; here it is
included where it is a separate matrix. Where it is tied to the embedding it is skipped, since embedding lookups do not
have those inputs.
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
    """The mean square of each input of the linear layers of a transformers causal language model, over all tokens.

    `gguf_names` maps checkpoint tensor names to GGUF names, which are the keys of the result; shape: (inputs,).
    `sequences` are token ids, none longer than the model's context. `report` receives the number of tokens done. Raises
    UsageError where there are no tokens, ModelError for a layer without a GGUF name and for inputs that are not finite.
    """
    import torch

    total = sum(map(len, sequences))
    if not total:
        raise UsageError("an importance matrix needs text, but there are no tokens")
    means = {ours: _Mean() for ours in _layers(model, gguf_names)}
    hooks = [layer.register_forward_pre_hook(means[ours]) for ours, layer in _layers(model, gguf_names).items()]
    # Registered last, so called last: only the last token is multiplied by the output matrix.
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
    """The linear layers by the GGUF name of their weights, except an output matrix tied to the embedding."""
    from torch.nn import Linear

    embedding = model.get_input_embeddings().weight
    found = {}
    for name, module in model.named_modules():
        if not isinstance(module, Linear) or module.weight is embedding:
            continue
        if f"{name}.weight" not in gguf_names:
            raise ModelError(
                f"the importance matrix: layer {name!r} has no tensor in the GGUF; convert without --importance"
            )
        found[gguf_names[f"{name}.weight"]] = module
    return found


class _Mean:
    """A forward pre-hook of a layer that sums the squares of its inputs."""

    def __init__(self) -> None:
        self.count = 0
        self.sums: Any = 0.0

    def __call__(self, _: Any, inputs: tuple[Any, ...]) -> None:
        import torch

        rows = inputs[0].flatten(0, -2)  # (tokens, inputs)
        self.sums = self.sums + rows.square().sum(0, dtype=torch.float64)
        self.count += len(rows)

    def value(self, name: str, total: int) -> NDArray[np.float32]:
        """Shape: (inputs,). Raises ModelError where tokens are missing or a sum is not finite."""
        if self.count != total:
            raise ModelError(
                f"the importance matrix: {name} received {self.count} of {total} tokens; convert without --importance"
            )
        mean = (self.sums / self.count).cpu().numpy().astype(np.float32)
        if not np.isfinite(mean).all():
            raise ModelError(f"the importance matrix: inputs of {name} are not finite; did training diverge?")
        return np.asarray(mean)
