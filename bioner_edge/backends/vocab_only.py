"""A GGUF file without its weights: enough to count tokens and write prompts, and quick to load."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from bioner_edge.backends.llama_cpp import LlamaCpp
from bioner_edge.backends.native import lib, listen, plain_text, set_fields
from bioner_edge.errors import ModelError

__all__ = ["VocabOnly"]


class VocabOnly(LlamaCpp):
    """The vocabulary and chat template of a model file of any size. It has no sequences, so nothing can be evaluated.

    Raises ModelError if llama.cpp cannot read the file.
    """

    def __init__(self, path: Path) -> None:
        listen()
        lib.llama_backend_init()
        settings = set_fields(
            lib.llama_model_default_params(), vocab_only=True, n_gpu_layers=0, kv_overrides=plain_text()
        )
        self._model = lib.llama_model_load_from_file(os.fsencode(path), settings)
        if not self._model:
            raise ModelError(f"{path}: llama.cpp cannot read its vocabulary; is it a language model in GGUF, complete?")
        self._vocab = lib.llama_model_get_vocab(self._model)
        self._context = None
        self._free = []  # `new_sequence` raises: without weights, evaluating would crash the process
        self.context = 0
        self._describe()

    def close(self) -> None:
        if self._model:
            lib.llama_model_free(self._model)
            self._model = None

    def found_in_text(self) -> Iterator[tuple[int, bool]]:
        """The tokens that are matched in a text by name, each with whether it is a control token."""
        control = lib.LLAMA_TOKEN_ATTR_CONTROL | lib.LLAMA_TOKEN_ATTR_UNKNOWN
        for token in range(self.vocabulary_size):
            kind = lib.llama_vocab_get_attr(self._vocab, token)
            if kind & (control | lib.LLAMA_TOKEN_ATTR_USER_DEFINED):
                yield token, bool(kind & control)
