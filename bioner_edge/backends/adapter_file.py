"""A structural check of a GGUF LoRA file, before native code reads it.

llama.cpp ends the process where it expected another type, and leaves in silence what it cannot apply.
"""

from __future__ import annotations

import re
from pathlib import Path

from bioner_edge.errors import ModelError
from bioner_edge.models import gguf_header

__all__ = ["ADAPTABLE", "check"]

# The tensors that llama.cpp multiplies together with their adapters. Others it would leave as they are, in silence; at
# an adapter of an embedding that is the output matrix too, the process ends.
ADAPTABLE = re.compile(r"(output|blk\.\d+\.(attn_(q|k|v|qkv|output)|ffn_(gate|up|down)))\.weight")
_TYPES = ("F32", "F16", "BF16", "Q8_0")  # with others the matrices may not be multiplied at all


def check(path: Path) -> None:
    """Raises ModelError for what llama.cpp would end the process at, or leave out in silence."""
    from gguf import GGUFReader, GGUFValueType

    header = gguf_header.read(path)
    kinds = [header.metadata.get(key) for key in ("general.type", "adapter.type")]
    if kinds != ["adapter", "lora"]:
        raise ModelError(f"{path}: no LoRA adapter (it is {kinds[0] or 'model'!r}); convert the adapter alone")
    if "adapter.alora.invocation_tokens" in header.metadata:
        raise ModelError(f"{path}: an activated LoRA, which begins at some token, cannot be used; merge or retrain it")
    try:
        alpha = GGUFReader(path).get_field("adapter.lora.alpha")  # the header's walk keeps no width of a number
    except Exception as error:  # what the header's walk lets pass, such as a name that is no UTF-8
        raise ModelError(f"{path}: damaged: {error}; convert the adapter again") from None
    if alpha is None or alpha.types != [GGUFValueType.FLOAT32]:
        raise ModelError(f"{path}: adapter.lora.alpha must be a 32-bit float; convert the adapter again")
    for tensor in header.tensors:
        target, _, part = tensor.name.rpartition(".")
        if part not in ("lora_a", "lora_b") or not ADAPTABLE.fullmatch(target):
            raise ModelError(f"{path}: llama.cpp cannot apply {tensor.name} as it runs; merge the adapter instead")
        if len(tensor.shape) > 2 or tensor.type not in _TYPES:
            message = f"{tensor.name} is {tensor.type} of shape {tensor.shape}, no matrix of {', '.join(_TYPES)}"
            raise ModelError(f"{path}: {message}; convert the adapter again")
    if not header.tensors:
        raise ModelError(f"{path}: an adapter without tensors, which changes nothing; convert it again")
