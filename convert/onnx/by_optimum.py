"""The exporter "optimum": optimum-onnx 0.1.0, which traces the torch model as transformers 4 computes it.

What is traced is right by construction, for every architecture; the graph is of plain nodes, a thousand for two layers,
and each step makes a cache that is longer by what was fed.
"""

from __future__ import annotations

import warnings
from pathlib import Path

from bioner_edge.convert.architectures import ARCHITECTURES as _ARCHITECTURES
from bioner_edge.convert.onnx.torch_model import Staged

__all__ = ["ARCHITECTURES", "TRANSFORMERS", "VERSION", "write"]

VERSION = "0.1.0"
TRANSFORMERS = "4.58"  # the first that it does not work with
ARCHITECTURES = tuple(_ARCHITECTURES)


def write(staged: Staged, path: Path) -> None:
    """Write the model as `path`, and its tensors beside it; other files beside it come from optimum.

    Raises whatever optimum does.
    """
    from optimum.exporters.onnx import onnx_export_from_model
    from transformers import GenerationConfig

    # The model has eager attention: in torch's fused one Gemma 2's attention loses its cap, and optimum says nothing.
    assert staged.model.config._attn_implementation == "eager"
    # It is saved beside the graph, where nobody reads it, and refused there if its values do not go together.
    staged.model.generation_config = GenerationConfig()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about tracing, and torch's own future
        onnx_export_from_model(
            staged.model, output=path.parent, task="text-generation-with-past", do_validation=False, monolith=False
        )
