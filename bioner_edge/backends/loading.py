"""Load a model with the back end that runs it: llama.cpp for a GGUF file, onnxruntime for a folder.

Each is imported only when a model needs it, so that either may be missing.
"""

from __future__ import annotations

from pathlib import Path

from bioner_edge.backends.contract import Backend
from bioner_edge.errors import ModelError, UsageError

__all__ = ["NEEDS_LLAMA", "load_backend"]

NEEDS_LLAMA = (
    "a GGUF model needs llama.cpp: pip install 'bioner-edge[llama]' (it is compiled, which takes minutes), "
    "or name an ONNX model"
)


def load_backend(
    path: Path, *, threads: int | None = None, adapter: Path | None = None, exact: bool = False
) -> Backend:
    """Load the model in `path`. `adapter` is a GGUF LoRA file; `exact` requests a float32 cache, for comparisons.

    Raises ModelError if it cannot be loaded, UsageError for a GGUF adapter with an ONNX model.
    """
    try:
        if path.is_dir():
            if adapter is not None:
                raise UsageError(f"{adapter}: an adapter of GGUF models, but {path} is an ONNX model; merge it instead")
            from bioner_edge.backends.onnx.backend import OnnxRuntime

            return OnnxRuntime(path, threads=threads)  # its cache always is float32
        from bioner_edge.backends.llama_cpp import LlamaCpp

        return LlamaCpp(path, threads=threads, cache="f32" if exact else "f16", adapter=adapter)
    except ImportError as error:
        library = (error.name or "a library").split(".")[0]
        if not isinstance(error, ModuleNotFoundError):
            message = f"{library} is installed, but cannot be loaded: {error}; install it again"
            raise ModelError(f"{path}: {message}") from None
        if path.is_dir():
            raise ModelError(f"{path}: {library} is not installed: pip install bioner-edge") from None
        raise ModelError(f"{path}: {NEEDS_LLAMA}") from None
