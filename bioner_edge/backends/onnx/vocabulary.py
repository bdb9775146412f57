"""An ONNX model without its graph: enough to count tokens and write prompts, without onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bioner_edge.backends.onnx.tokenizer import HfTokenizer
from bioner_edge.models.onnx.folder import Runtime

__all__ = ["OnnxVocabulary"]


class OnnxVocabulary:
    """The vocabulary and chat template of a model's folder. Raises ModelError if one of its files is damaged."""

    def __init__(self, folder: Path) -> None:
        runtime = Runtime.load(folder)
        self.bos = runtime.bos
        self.chat_template = runtime.chat_template
        self.template_tokens: Mapping[str, str] = {"bos_token": runtime.bos_token, "eos_token": runtime.eos_token}
        self._tokenizer = HfTokenizer(folder / "tokenizer.json", frozenset(runtime.end_tokens))

    def tokenize(self, text: bytes, special: bool) -> list[int]:
        return self._tokenizer.tokenize(text, special)
