"""The pass over many tensors: in kernels where they can do a move, tensor by tensor elsewhere."""

from collections.abc import Iterable

import torch

from zobench.zo.moves import Move
from zobench.zo.passes import fused, gpu
from zobench.zo.passes.blocks import edit


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
