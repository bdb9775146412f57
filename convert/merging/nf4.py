"""The weights that QLoRA trains on: rounded to NF4's four bits and unpacked again.

bitsandbytes stores each linear layer of the blocks as groups of 64 values that share a scale, each value the nearest of
16 quantiles of a normal distribution ("NormalFloat", QLoRA, arXiv:2305.14314), and the scales, minus their mean, in 8
bits with one float32 per 256 of them. The forward pass unpacks that. An adapter trained this way has also learned to
compensate its errors, which the original weights do not have.

Compared with bitsandbytes 0.50.2 on a CPU, every 4-bit level is the same, and scales agree to their last bits except in
about one block in 40,000, which gets the next 8-bit level because the mean is rounded in summation (against its
compiled CPU kernel, which is less exact about the nearest level, one in 600; a value then changes by at most 1.3 %). In
training the unpacked values are rounded once more, to the compute type (usually bfloat16, at most 2^-9 of a value); no
file records which, so that is omitted. Nor does any file record whether an adapter was trained with `nf4` and double
quantization.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bioner_edge.convert.checkpoint import Source
from bioner_edge.convert.shards import Shapes

__all__ = ["Rounded", "round_values"]

Floats = NDArray[np.float32]

# The levels of NF4 in bitsandbytes.
_NF4 = np.array(
    [
        -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
        -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
        0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
    ],
    np.float32,
)  # fmt: skip
_BLOCK, _SCALES = 64, 256  # values per scale, scales per scale of scales
_PIECE = 1 << 20  # values at a time


class Rounded:
    """A source with the linear layers that QLoRA saw: all matrices of the blocks, not embedding and output."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.folder: Path = source.folder
        self.config: Mapping[str, Any] = source.config
        self.files: tuple[Path, ...] = source.files

    def shapes(self) -> Shapes:
        return self._source.shapes()

    def tensor(self, name: str) -> Floats:
        """One tensor, as in `Source.tensor`."""
        values = self._source.tensor(name)
        in_block = re.search(r"\.\d+\.", name) and name.endswith(".weight") and values.ndim == 2
        return round_values(values) if in_block else values


def round_values(values: Floats) -> Floats:
    """Round values to NF4 with double quantization and unpack them, in place. Shape: unchanged."""
    flat = values.reshape(-1)
    scales = np.empty(-(-flat.size // _BLOCK), np.float32)
    for start in range(0, flat.size, _PIECE):
        piece = flat[start : start + _PIECE]
        largest = np.maximum.reduceat(np.abs(piece), np.arange(0, piece.size, _BLOCK))
        scales[start // _BLOCK : start // _BLOCK + largest.size] = largest
    unpacked = _round_scales(scales)
    for start in range(0, flat.size, _PIECE):
        piece = flat[start : start + _PIECE]
        blocks = slice(start // _BLOCK, start // _BLOCK - (-piece.size // _BLOCK))
        nearest = _nearest(piece * _spread(_inverse(scales[blocks]), piece.size, _BLOCK), _NF4)
        piece[...] = nearest * _spread(unpacked[blocks], piece.size, _BLOCK)
    return values


def _round_scales(scales: Floats) -> Floats:
    """Round scales to 8 bits and unpack them. Shape: unchanged."""
    if not scales.size:
        return scales
    mean = np.float32(scales.mean(dtype=np.float64))
    centred = scales - mean
    largest = np.maximum.reduceat(np.abs(centred), np.arange(0, centred.size, _SCALES))
    nearest = _nearest(centred * _spread(_inverse(largest), centred.size, _SCALES), _dynamic_levels())
    return np.asarray(nearest * _spread(largest, centred.size, _SCALES) + mean, np.float32)


def _dynamic_levels() -> Floats:
    """The 256 levels of the 8-bit type "dynamic tree" (arXiv:1511.04561): decades of ever finer steps, 0 and 1."""
    levels = [0.0, 1.0]
    for exponent in range(7):
        edges = np.linspace(0.1, 1, 2**exponent + 1, dtype=np.float32)
        middles = (edges[:-1] + edges[1:]) / np.float32(2)
        for sign in (1, -1):
            levels += (np.float32(sign * 10.0 ** (exponent - 6)) * middles).tolist()
    return np.sort(np.array(levels, np.float32))


def _nearest(values: Floats, levels: Floats) -> Floats:
    """Each value's nearest level, the lower one if halfway. Shape: unchanged."""
    edges = (levels[:-1] + levels[1:]) / np.float32(2)
    return levels[np.searchsorted(edges, values, side="left")]


def _inverse(scales: Floats) -> Floats:
    return np.asarray(np.float32(1) / np.maximum(scales, np.float32(1e-38)), np.float32)


def _spread(scales: Floats, size: int, block: int) -> Floats:
    """Repeat the scales for each of `size` values."""
    return np.repeat(scales, block)[:size]
