"""Float32 products and norms rounded exactly as torch does on a CPU, so that a merge is bit-identical.

A sum of products depends on the order of its terms and on where it is rounded. BLAS libraries differ in both, numpy's
even between shapes, so none is used here: the result is the same on every machine.

torch's behavior was measured with torch 2.13 (MKL 2024.2) on x86 with AVX-512, with one thread and with two: a product
adds its terms one by one by fused multiply-adds, each rounded once; every further 192 terms form another such chain,
which is added to the first. That holds from 4 rows and 12 columns on; smaller matrices, which no model has, are
computed differently. A norm along rows adds the squares in 8 lanes, then the lanes; along columns it adds row by row.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

__all__ = ["Product", "blocks", "column_norms", "row_norms"]

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

_CELLS = 1 << 15  # of a block: its float64 copies fit in a core's L2 cache; measured best of 2^12 to 2^17
_CHAIN = 192  # terms
_LANES = 8
# The mantissa bits of a float64 beyond a float32, and their value halfway between two float32 values.
_REST, _HALF = np.uint64((1 << 29) - 1), np.uint64(1 << 28)


def blocks(rows: int, columns: int, cells: int = _CELLS) -> Iterator[slice]:
    """The rows of a matrix in groups of about `cells` values, at least one row each."""
    step = max(1, cells // max(1, columns))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


class Product:
    """B @ A, some rows at a time. Shapes: B (rows, r), A (r, columns).

    A float32 fused multiply-add is the exact product, which fits a float64, plus the sum, rounded once. Rounding first
    to float64 and then to float32 can differ where the first rounding ends exactly halfway between two float32 values:
    once in about 10^9 terms. Those are detected and corrected.
    """

    def __init__(self, b: Floats, a: Floats) -> None:
        rank = a.shape[0]
        chain = rank if rank <= _CHAIN else min(rank // 2, _CHAIN)
        self.shape = (b.shape[0], a.shape[1])
        self._b, self._a = b, np.array(a, np.float64, order="C")
        self._chains = [range(k, min(k + chain, rank)) for k in range(0, rank, max(1, chain))]
        self._settles = not (_short(b) and _short(a))

    def rows(self, rows: slice) -> Floats:
        """Some rows of the product. Shape: (the slice's, columns)"""
        b = self._b[rows].astype(np.float64)
        total = np.zeros((len(b), self.shape[1]), np.float32)
        for terms in self._chains:
            total += self._chain(b, terms)
        return total

    def _chain(self, b: Doubles, terms: range) -> Floats:
        shape = (len(b), self.shape[1])
        rounded, before, after = np.zeros(shape, np.float32), np.zeros(shape), np.empty(shape)
        for k in terms:
            np.multiply(b[:, k : k + 1], self._a[k], out=after)
            np.add(after, before, out=after)
            if self._settles:
                _correct_halfway(after, before, b[:, k], self._a[k])
            rounded[...] = after
            before[...] = rounded
        return rounded


def row_norms(matrix: Floats) -> Floats:
    """The Euclidean norm of each row. Shapes: (rows, columns) to (rows,)

    Columns left after the lanes are added one by one: squares of four columns at a time, then by fused multiply-adds.
    """
    squares = matrix * matrix
    columns = matrix.shape[1]
    in_lanes = columns - columns % _LANES
    in_fours = columns - columns % 4
    lanes = np.zeros((len(matrix), _LANES), np.float32)
    for column in range(0, in_lanes, _LANES):
        lanes += squares[:, column : column + _LANES]
    total = np.zeros(len(matrix), np.float32)
    for addend in (*lanes.T, *squares[:, in_lanes:in_fours].T):
        total += addend
    for column in range(in_fours, columns):
        values = matrix[:, column : column + 1].astype(np.float64)
        before = total.astype(np.float64)[:, None]
        after = values * values + before
        _correct_halfway(after, before, values[:, 0], values)
        total = after[:, 0].astype(np.float32)
    return np.sqrt(total)


def column_norms(matrix: Floats) -> Floats:
    """The Euclidean norm of each column. Shapes: (rows, columns) to (columns,)"""
    total = np.zeros(matrix.shape[1], np.float32)
    for row in matrix:
        total += row * row
    return np.sqrt(total)


def _correct_halfway(after: Doubles, before: Doubles, b: Doubles, a: Doubles) -> None:
    """Round values that lie halfway between two float32 values to the side of the exact before + b * a.

    Shapes: after, before (rows, columns), b (rows,), a (columns,) or (rows, 1)
    """
    halfway = np.bitwise_and(after.view(np.uint64), _REST) == _HALF
    if not halfway.any():
        return
    at = np.nonzero(halfway)
    old, new = before[at], after[at]
    term = b[at[0]] * (a[at[1]] if a.ndim == 1 else a[at])
    rest = new - old
    lost = (old - (new - rest)) + (term - rest)  # the exact rounding error
    after[at] = np.where(lost == 0, new, np.nextafter(new, np.copysign(np.inf, lost)))


def _short(values: Floats) -> bool:
    """Whether no value has more than 12 significant bits, as in float16 and bfloat16: products then have at most 24, so
    no value becomes halfway by rounding."""
    return not np.bitwise_and(np.ascontiguousarray(values).view(np.uint32), np.uint32(0xFFF)).any()
