"""The pass over many tensors: in kernels where they can do a move, tensor by tensor elsewhere."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from zobench.zo.moves import Move
from zobench.zo.passes import fused, gpu
from zobench.zo.rounding import NEAREST, Rounding

BLOCK = 1 << 20  # elements; the largest temporary of a pass is one float32 block


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


def spans(numel: int, row: int = 1) -> Iterator[tuple[int, int]]:
    """(start, stop) of consecutive blocks of about BLOCK elements, cut between rows."""
    size = max(1, BLOCK // max(1, row)) * max(1, row)
    for start in range(0, numel, size):
        yield start, min(start + size, numel)


def edit(
    flat: Tensor, row: int = 1, rounding: Rounding = NEAREST, out: Tensor | None = None
) -> Iterator[tuple[int, Tensor]]:
    """(start, block) over a flat tensor; 16-bit storage is widened, and rounded when left.

    Changes made to a block in place are stored at the next iteration: in the tensor, or rounded to
    nearest in `out`, of any dtype, which leaves the tensor unchanged.
    """
    for start, stop in spans(flat.numel(), row):
        place = slice(start, stop)
        work = rounding.widen(flat, place)
        if out is None:
            yield start, work
            rounding.store(work, flat, place)
        else:
            work = work.clone() if flat.dtype.itemsize >= 4 else work
            yield start, work
            out[place].copy_(work)
