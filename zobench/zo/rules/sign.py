"""The three things called ZO-SignSGD (Liu et al. 2019, ICLR): what the sign is taken of.

With c_k the coefficients and z_k the directions of q queries,
scalar: w <- w - lr / q sum_k sign(c_k) z_k, the code of ZO-Bench (arXiv 2402.11592) and of LDSD;
elements: w <- w - lr / q sum_k sign(c_k z_k), all steps of one size;
mean: w <- w - lr sign(sum_k c_k z_k), the sign of the averaged estimate, the original definition.
"""

from collections.abc import Sequence

import torch

from zobench.zo.feedback import GRAD, DrawnTerm
from zobench.zo.passes.move import Move, Term
from zobench.zo.rules.base import Rule, estimate_blocks
from zobench.zo.space import Slot


class Sign(Rule):
    """Steps along signs; no state. What is exactly zero does not move.

    Formula:
        ```text
        scalar:   w <- w - lr / q sum_k sign(c_k) z_k
        elements: w <- w - lr / q sum_k sign(c_k z_k)
        mean:     w <- w - lr sign(sum_k c_k z_k)
        ```

    Args:
        of: What the sign is taken of: `scalar` (each coefficient), `elements` (each coefficient
            times each element of its direction) or `mean` (each element of the averaged estimate).
            The first two divide by q, the queries in which the slot takes part.

    Raises:
        ValueError: `of` is another name.

    References:
        Liu et al. 2019, signSGD via Zeroth-Order Oracle, ICLR; ZO-Bench, arXiv 2402.11592.
    """

    def __init__(self, *, of: str = "mean") -> None:
        if of not in ("scalar", "elements", "mean"):
            raise ValueError(f"rule.of={of}: choose scalar, elements or mean")
        self.of = of

    def update(
        self, slot: Slot, drawn: Sequence[DrawnTerm], *, lr: float, step: int
    ) -> Move | None:
        del step
        if not drawn:
            return None  # the slot took no part in this step
        if self.of == "mean":
            for _, weights, estimate in estimate_blocks(slot, drawn):
                weights.add_(estimate.sign_(), alpha=-lr)
            return None
        queries = max(1, sum(GRAD in term.coefficients for term in drawn))
        scaled = [(term, -lr * _sign(term.grad) / queries) for term in drawn]
        if self.of == "scalar":
            return slot.move([Term(term.direction, term.restore, scale) for term, scale in scaled])
        for start, weights in slot.edit():
            for term, scale in scaled:
                z = term.direction.draw(start, weights.numel(), weights.device).to(weights.dtype)
                weights.add_(z * term.restore)  # rounded as at the displacement
                weights.add_(torch.sign(z), alpha=scale)
        return None


def _sign(number: float) -> int:
    return (number > 0.0) - (number < 0.0)
