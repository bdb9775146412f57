"""Estimated memory of common model sizes by level, without a model file."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["SHAPES", "Shape"]


@dataclass(frozen=True, slots=True)
class Shape:
    """The shape of a common model. `q4_k_m` is the measured bits per weight of its GGUF files at that level, which is
    more than 4: embeddings keep more bits, and so do matrices whose width is not a multiple of 256 (0.5B)."""

    name: str
    parameters: int
    layers: int
    width: int
    feed_forward: int
    cached: int  # values that a layer caches per token: 2 × KV heads × head size
    words: int
    q4_k_m: float

    def by_level(self) -> dict[str, int]:
        """Bytes by level, as `models.memory.estimate` computes them for a file.

        Weights, a cache of 2048 tokens in float16, 340 bytes per vocabulary entry, 512 rows of activations in float32,
        and 12 MiB of code.
        """
        beside = 2048 * self.layers * self.cached * 2 + 340 * self.words
        beside += 512 * 4 * (4 * self.width + 3 * self.feed_forward) + (12 << 20)
        levels = {"Q4_K_M": self.q4_k_m, "Q8_0": 8.5, "F16": 16.0}
        return {level: int(self.parameters * bits / 8) + beside for level, bits in levels.items()}


SHAPES = (
    Shape("0.5B", 494_032_768, 24, 896, 4864, 256, 151_936, 6.4),  # Qwen2.5
    Shape("1B", 1_235_814_400, 16, 2048, 8192, 1024, 128_256, 5.2),  # Llama 3.2
    Shape("1.5B", 1_543_714_304, 28, 1536, 8960, 512, 151_936, 5.1),  # Qwen2.5
    Shape("3B", 3_212_749_824, 28, 3072, 8192, 2048, 128_256, 5.0),  # Llama 3.2
    Shape("7B", 7_615_616_512, 28, 3584, 18944, 1024, 152_064, 4.9),  # Qwen2.5
)
