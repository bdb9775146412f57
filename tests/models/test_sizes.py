"""The memory that models of usual sizes take, as it is told before there is a file, is that of a file."""

from __future__ import annotations

from typing import cast

import pytest

from bioner_edge.models import gguf_header, memory, registry
from bioner_edge.models.sizes import SHAPES, Shape


def test_a_size_is_estimated_as_a_files_is() -> None:
    path = registry.listed_models()["chemdis-9m"].path
    header = gguf_header.read(path)
    told = header.metadata

    def number(key: str) -> int:
        return int(cast(int, told[f"llama.{key}"]))

    heads, width = number("attention.head_count"), number("embedding_length")
    cached = 2 * number("attention.head_count_kv") * width // heads
    words = cast(gguf_header.Array, told["tokenizer.ggml.tokens"]).length
    weights = sum(tensor.weights for tensor in header.tensors)
    shape = Shape("9M", weights, number("block_count"), width, number("feed_forward_length"), cached, words, 5.0)
    assert shape.by_level()["Q8_0"] == pytest.approx(memory.estimate(path, 2048), rel=0.01)


def test_sizes_and_levels_grow() -> None:
    sizes = [shape.by_level() for shape in SHAPES]
    assert [shape.name for shape in SHAPES] == ["0.5B", "1B", "1.5B", "3B", "7B"]
    for levels in sizes:
        assert list(levels) == ["Q4_K_M", "Q8_0", "F16"] and list(levels.values()) == sorted(levels.values())
    assert [levels["Q8_0"] for levels in sizes] == sorted(levels["Q8_0"] for levels in sizes)
    for shape, levels in zip(SHAPES, sizes, strict=True):
        assert 2 * shape.parameters < levels["F16"] < 2.4 * shape.parameters
