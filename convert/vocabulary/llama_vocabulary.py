"""Load a tokenizer in llama.cpp without a model: its tokenization of a text is what counts."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gguf import GGUFWriter

from bioner_edge.backends.vocab_only import VocabOnly
from bioner_edge.convert.vocabulary.tokenizer import Tokenizer

__all__ = ["open_vocabulary"]


@contextmanager
def open_vocabulary(tokenizer: Tokenizer) -> Iterator[VocabOnly]:
    """Load the tokenizer in llama.cpp from a temporary file without weights."""
    with tempfile.TemporaryDirectory(prefix="vocabulary-") as folder:
        path = Path(folder) / "vocabulary.gguf"
        writer = GGUFWriter(path, "llama")
        try:
            tokenizer.write(writer)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
        finally:
            writer.close()
        with VocabOnly(path) as model:
            yield model
