"""Moves: what a pass does to one tensor, and the pass over many of them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor

from zobench.zo.directions import Direction
from zobench.zo.passes import fused, gpu
from zobench.zo.passes.blocks import edit
from zobench.zo.rounding import NEAREST, Rounding


class Term(NamedTuple):
    """A direction, and what of it is added: first * z, then second * z, each sum rounded.

    Attributes:
        direction: A direction of the slot.
        first: Scale of the first sum: the way back.
        second: Scale of the second: the way on, or the update.
    """

    direction: Direction
    first: float
    second: float = 0.0


class StateUpdate(Protocol):
    """Elementwise state between the estimate and the weights, such as a momentum.

    kernel: what the fused pass knows it as. buffers: its float32 vectors. scalars: see `kernel`.
    """

    kernel: ClassVar[int]

    @property
    def buffers(self) -> tuple[Tensor, ...]: ...

    @property
    def scalars(self) -> tuple[float, ...]: ...

    def apply(self, place: slice, weights: Tensor, estimate: Tensor) -> None:
        """The same on one block, in torch."""


class RowSums(NamedTuple):
    """Sums over the raw rows u of directions that have rows, taken while a pass draws them.

    weights: one per term. outer: float64, (groups, width), += weight <u, a> u; energy: float64,
    (groups,), += weight <u, a>^2. groups: `tables.groups_of` the tensor.
    """

    weights: Sequence[float]
    outer: Tensor
    energy: Tensor


@dataclass(frozen=True, eq=False)
class Move:
    """w <- decay * w + sum of (first + second) * z, on a flat tensor, block by block.

    row: blocks are cut at multiples of so many elements. state_update: takes the sum of second * z
    instead of the weights. rounding: of 16-bit storage. out: where the result goes instead of the
    tensor, of any dtype and rounded to nearest; rows: those that are needed there. row_sums: only
    where the fused pass is `able` to do the move.
    """

    target: Tensor
    row: int
    terms: Sequence[Term]
    decay: float = 1.0
    state_update: StateUpdate | None = None
    rounding: Rounding = NEAREST
    out: Tensor | None = None
    rows: Tensor | None = None
    row_sums: RowSums | None = None


def apply_moves(moves: Iterable[Move]) -> None:
    """All moves in one pass: fused where the back end can, tensor by tensor elsewhere."""
    here, there = [], []
    for move in moves:
        if gpu.able(move):
            there.append(move)
        elif fused.able(move):
            here.append(move)
        else:
            _alone(move)
    if here:
        fused.run_numba(here)
    if there:
        gpu.run_triton(there)


def _alone(move: Move) -> None:
    """The move in torch operations, on any device and dtype, block by block."""
    for start, weights in edit(move.target, move.row, move.rounding, move.out):
        if move.decay != 1.0:
            weights.mul_(move.decay)
        if move.state_update is None:
            for term in move.terms:
                term.direction.add_to(weights, start, term.first, term.second)
            continue
        estimate = torch.zeros_like(weights)
        for term in move.terms:
            z = term.direction.draw(start, weights.numel(), weights.device).to(weights.dtype)
            weights.add_(z * term.first)  # a product and a sum, as at the displacement: it cancels
            estimate.add_(z, alpha=term.second)
        move.state_update.apply(slice(start, start + weights.numel()), weights, estimate)
