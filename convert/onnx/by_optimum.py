"""The exporter "optimum": optimum-onnx 0.1.0, which traces the torch model as transformers 4 computes it.

A trace is correct by construction, for every architecture; but the graph has only plain nodes, a thousand for two
layers, and each step allocates a new cache, longer by the tokens fed.
"""

from __future__ import annotations

import warnings
from pathlib import Path

from bioner_edge.convert.architectures import ARCHITECTURES as _ARCHITECTURES
from bioner_edge.convert.onnx.torch_model import Staged

__all__ = ["ARCHITECTURES", "TRANSFORMERS", "VERSION", "write"]

VERSION = "0.1.0"
TRANSFORMERS = "4.58"  # the first unsupported version
ARCHITECTURES = tuple(_ARCHITECTURES)


def write(staged: Staged, path: Path) -> None:
    """Write the model as `path`, with its tensors and other files of optimum beside it.

    Raises whatever optimum does.
    """
    from optimum.exporters.onnx import onnx_export_from_model
    from transformers import GenerationConfig

    # The model uses eager attention: torch's fused one silently drops Gemma 2's attention softcapping.
    assert staged.model.config._attn_implementation == "eager"
    # optimum also saves it beside the graph, unused, and refuses inconsistent values there.
    staged.model.generation_config = GenerationConfig()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on tracing, and deprecations in torch
        onnx_export_from_model(
            staged.model, output=path.parent, task="text-generation-with-past", do_validation=False, monolith=False
        )
