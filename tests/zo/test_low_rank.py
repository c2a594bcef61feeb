"""LowRank directions: the dense formula block by block, without ever making the dense matrix."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from zobench.zo.low_rank import LowRank
from zobench.zo.matrix import MatrixView, orthonormal, view_of

CPU = torch.device("cpu")
ROWS, COLS, INNER = 12, 10, 3
FORMS = list(itertools.product([True, False], repeat=3))  # left, right, diagonal
each = pytest.mark.parametrize(("left", "right", "diagonal"), FORMS)


def law_of(left: bool, right: bool, diagonal: bool, dtype: torch.dtype = torch.float64) -> LowRank:
    """A law on ROWS x COLS, or smaller where diagonal coordinates have no basis on a side."""
    generator = torch.Generator().manual_seed(0)

    def matrix(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    full = (INNER if left else ROWS, INNER if right else COLS)
    return LowRank(
        matrix(INNER) if diagonal else matrix(*full),
        matrix(ROWS, INNER) if left else None,
        matrix(COLS, INNER) if right else None,
        scale=1.7,
    )


def dense(law: LowRank) -> Tensor:
    """z from the formula, in float64, as a flat vector."""
    coordinates = (
        law.coordinates.double().diag() if law.coordinates.dim() == 1 else law.coordinates.double()
    )
    left = torch.eye(len(coordinates)).double() if law.left is None else law.left.double()
    right = torch.eye(coordinates.shape[1]).double() if law.right is None else law.right.double()
    return (law.scale * left @ coordinates @ right.T).reshape(-1)


@each
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rows", [1, 2, 100])
def test_blocks_of_rows_have_the_dense_formula(
    left: bool, right: bool, diagonal: bool, dtype: torch.dtype, rows: int
) -> None:
    """`draw` and both sums of `add_to` agree with the product of the three matrices."""
    law = law_of(left, right, diagonal, dtype)
    z, tolerance = dense(law), 1e-5 if dtype == torch.float32 else 1e-12
    out = torch.ones_like(z, dtype=dtype)
    for start in range(0, len(z), rows * law.cols):
        block = out[start : start + rows * law.cols]
        drawn = law.draw(start, len(block), CPU)
        assert drawn.dtype == dtype
        expected = z[start : start + len(block)].to(dtype)
        torch.testing.assert_close(drawn, expected, rtol=tolerance, atol=tolerance)
        law.add_to(block, start, 0.5, -2.0)
    torch.testing.assert_close(out, (1.0 - 1.5 * z).to(dtype), rtol=tolerance, atol=10 * tolerance)


@each
@pytest.mark.parametrize("size", [1, 7, 33])
def test_blocks_may_be_cut_inside_a_row(left: bool, right: bool, diagonal: bool, size: int) -> None:
    """A view of another shape than the parameter is cut anywhere, and nothing changes."""
    law = law_of(left, right, diagonal)
    z = dense(law)
    out = torch.zeros_like(z)
    for start in range(0, len(z), size):
        block = out[start : start + size]
        torch.testing.assert_close(law.draw(start, len(block), CPU), z[start : start + len(block)])
        law.add_to(block, start, 1.0, 2.0)
    torch.testing.assert_close(out, 3.0 * z)


class Largest(TorchDispatchMode):
    """Notes the most elements that any operation's result had."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        del types
        result = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        self.numel = max([self.numel, *sizes])
        return result


@pytest.mark.parametrize(("left", "right", "diagonal"), [f for f in FORMS if f[0] or f[1]])
@pytest.mark.parametrize("cut", [0, 3], ids=["rows", "inside a row"])
def test_the_matrix_is_never_made(left: bool, right: bool, diagonal: bool, cut: int) -> None:
    """Moving a matrix block by block makes no tensor of half its size: bases and blocks only."""
    law = law_of(left, right, diagonal)
    out = torch.zeros_like(dense(law))
    size = 2 * law.cols - cut
    blocks = [(start, out[start : start + size]) for start in range(0, len(out), size)]
    with Largest() as largest:
        for start, block in blocks:
            law.add_to(block, start, 1.0, 2.0)
            law.draw(start, len(block), CPU)
    assert 0 < largest.numel <= max(4 * law.cols, ROWS * INNER)


def test_other_coordinates_and_squares_keep_the_bases() -> None:
    """`with_coordinates` changes nothing else; `squared` squares bases and scale."""
    law = law_of(True, True, False)
    other = torch.arange(9.0, dtype=torch.float64)
    assert (
        law.with_coordinates(other).left is law.left
        and law.with_coordinates(other).scale == law.scale
    )
    torch.testing.assert_close(law.with_coordinates(other).coordinates, other.view(3, 3))
    squares = law.squared(other)
    assert squares.left is not None and law.left is not None and law.right is not None
    expected = law.scale**2 * law.left**2 @ other.view(3, 3) @ (law.right**2).T
    torch.testing.assert_close(dense(squares).view(ROWS, COLS), expected)


@pytest.mark.parametrize("size", [20, 33])
def test_a_walk_comes_back(size: int) -> None:
    """A hundred displacements through the clean point move float32 weights by 1e-6 at most."""
    law = law_of(True, True, False, torch.float32)
    clean = torch.randn(ROWS * COLS, generator=torch.Generator().manual_seed(1))
    out = clean.clone()
    for _ in range(100):
        for first, second in ((0.0, 1e-3), (-1e-3, -1e-3), (1e-3, 0.0)):
            for start in range(0, len(out), size):
                law.add_to(out[start : start + size], start, first, second)
    assert float((out - clean).norm() / clean.norm()) < 1e-6


@pytest.mark.parametrize(
    ("shape", "rank", "view"),
    [
        ((20, 30), 4, MatrixView(20, 30, 4)),
        ((20, 3, 10), 4, MatrixView(20, 30, 4)),
        ((4, 100), 8, MatrixView(20, 20, 8)),  # slim: as square as it gets
        ((8, 24), 8, MatrixView(12, 16, 8)),
        ((24, 8), 8, MatrixView(16, 12, 8)),
        ((64, 64), 64, MatrixView(64, 64, 64)),
        ((2, 3), 8, MatrixView(2, 3, 2)),
        ((36, 1), 1, MatrixView(6, 6, 1)),
        ((37, 1), 1, None),
        ((1, 1), 1, None),
        ((40,), 2, None),
        ((), 2, None),
    ],
)
def test_the_matrix_view(shape: tuple[int, ...], rank: int, view: MatrixView | None) -> None:
    """Slim matrices are made square, the rank is what fits, primes and vectors have no view."""
    assert view_of(shape, rank) == view


@pytest.mark.parametrize("haar", [False, True])
def test_orthonormal_factors(haar: bool) -> None:
    """Columns are orthonormal and span the matrix's; with `haar` R's diagonal is positive."""
    noise = torch.randn(9, 4, generator=torch.Generator().manual_seed(2)).double()
    q = orthonormal(noise, haar=haar)
    torch.testing.assert_close(q.T @ q, torch.eye(4).double())
    torch.testing.assert_close(q @ q.T @ noise, noise)
    assert bool(((q.T @ noise).diagonal() > 0).all()) or not haar
