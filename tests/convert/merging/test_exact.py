"""Products and norms have torch's bits."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bioner_edge.convert.merging import exact

torch = pytest.importorskip("torch")


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Several share the rows of a product among them, and fewer than four go through another kernel."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def product(b: NDArray[np.float32], a: NDArray[np.float32]) -> NDArray[np.float32]:
    whole = exact.Product(b, a)
    return np.concatenate([whole.rows(rows) for rows in exact.blocks(*whole.shape, cells=500)])


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(4, 40),
    rank=st.integers(1, 40) | st.integers(150, 600),
    columns=st.integers(12, 70),
    types=st.tuples(*[st.sampled_from(["float32", "bfloat16", "float16"])] * 2),
    seed=st.integers(0, 2**32 - 1),
)
def test_products_are_torchs(rows: int, rank: int, columns: int, types: tuple[str, str], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    b, a = (
        torch.randn(shape, generator=generator).to(getattr(torch, dtype)).float()
        for shape, dtype in zip([(rows, rank), (rank, columns)], types, strict=True)
    )
    assert product(b.numpy(), a.numpy()).tobytes() == (b @ a).numpy().tobytes()


def test_a_rounding_that_float64_hides() -> None:
    """1 + x * y is a little more than halfway to the next float32, by less than a float64 of this size can tell."""
    random = np.random.default_rng(0)
    x = random.uniform(1, 2, 1 << 16).astype(np.float32)
    y = (1 / x.astype(np.float64)).astype(np.float32)
    excess = x.astype(np.float64) * y - 1
    x, y, excess = (values[(excess != 0) & (np.abs(excess) < 2**-30)] for values in (x, y, excess))
    assert len(x) > 16 and (excess > 0).any() and (excess < 0).any()
    for first in (1.0, 1 + 2**-23):
        a = np.stack([np.full_like(x, first), y * np.float32(2**-24)])
        for row in range(0, len(x) - 4, 4):
            b = np.stack([np.ones(4, np.float32), x[row : row + 4]], axis=1)
            assert product(b, a).tobytes() == (torch.from_numpy(b) @ torch.from_numpy(a)).numpy().tobytes()
    chosen = product(np.array([[1, x[0]]], np.float32), a[:, :1])[0, 0]
    assert chosen == (1 + 2**-23 if excess[0] < 0 else 1 + 2**-22)


@settings(max_examples=60, deadline=None)
@given(rows=st.integers(2, 40), columns=st.integers(1, 70), seed=st.integers(0, 2**32 - 1))
def test_norms_are_torchs(rows: int, columns: int, seed: int) -> None:
    matrix = torch.randn((rows, columns), generator=torch.Generator().manual_seed(seed))
    assert exact.row_norms(matrix.numpy()).tobytes() == torch.linalg.norm(matrix, dim=1).numpy().tobytes()
    turned = np.ascontiguousarray(matrix.T.numpy())
    assert (
        exact.column_norms(turned).tobytes() == torch.linalg.norm(torch.from_numpy(turned).T, dim=1).numpy().tobytes()
    )


@pytest.mark.parametrize(("bits", "short"), [(1, True), (11, True), (12, True), (13, False), (24, False)])
def test_when_no_rounding_can_be_hidden(bits: int, short: bool) -> None:
    assert exact._short(np.array([[0, 1], [-2, 1 + 2.0 ** (1 - bits)]], np.float32)) is short
