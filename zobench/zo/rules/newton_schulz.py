"""Orthogonalised steps: JAGUAR Muon and dense ZO-Muon (arXiv 2506.04430), subspace ZO-Muon.

The quintic Newton-Schulz iteration X <- a X + (b A + c A^2) X, A = X X^T, begins at X = G / |G| and
has Muon's (a, b, c) = (3.4445, -4.7750, 2.0315): singular values come to a band around 1, about
0.68 to 1.14, unless they were tiny; singular vectors stay. Muon's factors for a matrix's shape are
left out, as in the cards. The released code computes in bfloat16, this in the state's dtype.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from zobench.zo.directions import stored
from zobench.zo.feedback import Key
from zobench.zo.moves import Direction
from zobench.zo.rules.base import Blocks, Kind, Rule, SlotChange, estimate_of, touched_by
from zobench.zo.space import Slot

_A, _B, _C = 3.4445, -4.7750, 2.0315


def orthogonalised(matrix: Tensor, iterations: int) -> Tensor:
    """A matrix with the singular vectors of this one and singular values near 1; 0 stays 0.

    Args:
        matrix: (rows, columns), float32 or float64.
        iterations: Steps of the Newton-Schulz iteration.

    Returns:
        A matrix of the same shape and dtype.
    """
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x = wide / wide.norm().clamp_min(torch.finfo(wide.dtype).tiny)
    for _ in range(iterations):
        square = x @ x.T
        x = _A * x + (_B * square + _C * square @ square) @ x
    return x if wide is matrix else x.T


class NewtonSchulz(Rule):
    """W <- W - lr NS(m) on matrices, seen as (shape[0], everything else).

    m is the estimate g or, with beta > 0, beta m + (1 - beta) g where one of the step's directions
    is not zero; elsewhere, as on slots that take no part in the step, m keeps its value.
    Holds m and a few products of its size for a moment. State: with beta > 0 m, one float32 vector.

    Formula:
        ```text
        m <- beta m + (1 - beta) g,  g = sum_k c_k z_k  (beta = 0: m = g)
        W <- W - lr NS(m),  NS: X = m / |m|, then repeat X <- a X + (b A + c A^2) X with A = X X^T
        (a, b, c) = (3.4445, -4.7750, 2.0315)
        ```

    Args:
        beta: Weight of the old m, in [0, 1); 0 is none.
        iterations: Steps of the Newton-Schulz iteration, at least 1.
        vectors: Move vectors by -lr times the `sign` of m, or by -lr m (`plain`).

    Raises:
        ValueError: An argument is out of range.

    References:
        JAGUAR Muon and dense ZO-Muon, arXiv 2506.04430; Muon's coefficients of the iteration.
    """

    def __init__(self, *, beta: float = 0.0, iterations: int = 5, vectors: str = "sign") -> None:
        if not 0.0 <= beta < 1.0:
            raise ValueError(f"rule.beta={beta}: must be in [0, 1)")
        if iterations < 1:
            raise ValueError(f"rule.iterations={iterations}: must be at least 1")
        if vectors not in ("sign", "plain"):
            raise ValueError(f"rule.vectors={vectors}: choose sign or plain")
        self.beta, self.iterations, self.vectors = beta, iterations, vectors

    def state_bytes(self, slot: Slot) -> int:
        return slot.numel * slot.state_itemsize if self.beta else 0

    def change(self, grad: Mapping[Key, float], kind: Kind, *, lr: float, step: int) -> SlotChange:
        del step

        def stepped(slot: Slot, z: Mapping[Key, Direction]) -> Direction:
            move = self._averaged(slot, grad, z)
            if not kind.vector:
                matrix = move.view(slot.parameter.shape[0], -1)
                move = orthogonalised(matrix, self.iterations).reshape(-1)
            elif self.vectors == "sign":
                move = move.sign()
            return stored(move, -lr)

        return SlotChange(stepped)

    def _averaged(
        self, slot: Slot, grad: Mapping[Key, float], z: Mapping[Key, Direction]
    ) -> Tensor:
        """m after this step's estimate, as a vector that must not be changed."""
        if self.beta:
            average = slot.buffer("newton_schulz")
        else:
            average = torch.zeros_like(slot.flat, dtype=slot.state_dtype)
        for start, stop in slot.spans():
            part = average[start:stop]
            blocks = Blocks(z, start, part)
            touched, estimate = touched_by(grad, blocks, part), estimate_of(grad, blocks, part)
            part.copy_(torch.where(touched, part.lerp(estimate, 1.0 - self.beta), part))
        return average
