"""Check the structure of a GGUF LoRA file before native code reads it.

llama.cpp aborts the process on an unexpected type, and silently ignores tensors that it cannot apply.
"""

from __future__ import annotations

import re
from pathlib import Path

from bioner_edge.errors import ModelError
from bioner_edge.models import gguf_header

__all__ = ["ADAPTABLE", "check"]

# The tensors whose adapters llama.cpp applies. It silently ignores those of others, and aborts the process on an
# adapter of an embedding that is also the output matrix.
ADAPTABLE = re.compile(r"(output|blk\.\d+\.(attn_(q|k|v|qkv|output)|ffn_(gate|up|down)))\.weight")
_TYPES = ("F32", "F16", "BF16", "Q8_0")  # other types may have no matrix multiplication


def check(path: Path) -> None:
    """Raises ModelError for what llama.cpp would abort the process on, or silently ignore."""
    from gguf import GGUFReader, GGUFValueType

    header = gguf_header.read(path)
    kinds = [header.metadata.get(key) for key in ("general.type", "adapter.type")]
    if kinds != ["adapter", "lora"]:
        raise ModelError(f"{path}: not a LoRA adapter (it is {kinds[0] or 'model'!r}); convert the adapter alone")
    if "adapter.alora.invocation_tokens" in header.metadata:
        raise ModelError(f"{path}: activated LoRA (aLoRA) adapters cannot be used; merge or retrain it")
    try:
        alpha = GGUFReader(path).get_field("adapter.lora.alpha")  # our header reader drops the width of numbers
    except Exception as error:  # what our header reader accepts, such as a name that is not UTF-8
        raise ModelError(f"{path}: damaged: {error}; convert the adapter again") from None
    if alpha is None or alpha.types != [GGUFValueType.FLOAT32]:
        raise ModelError(f"{path}: adapter.lora.alpha must be a 32-bit float; convert the adapter again")
    for tensor in header.tensors:
        target, _, part = tensor.name.rpartition(".")
        if part not in ("lora_a", "lora_b") or not ADAPTABLE.fullmatch(target):
            raise ModelError(f"{path}: llama.cpp cannot apply {tensor.name} at run time; merge the adapter instead")
        if len(tensor.shape) > 2 or tensor.type not in _TYPES:
            message = f"{tensor.name} is {tensor.type} of shape {tensor.shape}, not a matrix of {' or '.join(_TYPES)}"
            raise ModelError(f"{path}: {message}; convert the adapter again")
    if not header.tensors:
        raise ModelError(f"{path}: the adapter has no tensors; convert it again")
