"""The matrix that a low-rank direction sees in a tensor, and the random matrices it is made of.

A tensor of two or more dimensions is viewed as (shape[0], everything else). Where that has a side
no longer than the given rank, it is viewed as the most nearly square matrix with as many elements
instead: SubZero's policy for LoRA and prefix tensors, which are too slim for a subspace.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from zobench.zo.directions import Drawn
from zobench.zo.space import Slot


class MatrixView(NamedTuple):
    """A slot's flat memory as a (rows, cols) matrix, and the rank that fits into it."""

    rows: int
    cols: int
    rank: int


def view_of(shape: Sequence[int], rank: int) -> MatrixView | None:
    """The view of a tensor of that shape; None for vectors and for what has none but (1, n)."""
    if len(shape) < 2:
        return None
    numel = math.prod(shape)
    rows, cols = shape[0], numel // shape[0]
    if min(rows, cols) <= rank:
        short = next(n for n in range(math.isqrt(numel), 0, -1) if numel % n == 0)
        rows, cols = (short, numel // short) if rows <= cols else (numel // short, short)
    return None if min(rows, cols) == 1 else MatrixView(rows, cols, min(rank, rows, cols))


def gaussian(
    key: tuple[int, int, int], slot: Slot, shape: Sequence[int], number: int = 0
) -> Tensor:
    """Standard normal noise of that shape in the slot's state dtype, on its device."""
    noise = Drawn.normal(key, slot.id, number=number)
    flat = noise.draw(0, math.prod(shape), slot.parameter.device)
    return flat.to(slot.state_dtype).view(*shape)


def orthonormal(matrix: Tensor, *, haar: bool) -> Tensor:
    """The Q of matrix = Q R; haar: with the signs that make R's diagonal positive.

    Only then is Q of a Gaussian matrix uniform over all orthonormal ones.
    """
    q, r = torch.linalg.qr(matrix)
    return q * torch.where(r.diagonal() < 0, -1.0, 1.0).to(q.dtype) if haar else q
