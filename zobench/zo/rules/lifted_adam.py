"""TeZO-Adam's rule (arXiv 2501.19057): Adam whose moments are coordinates, divided after lifting.

With the estimate's coordinates g: m <- beta1 m + (1 - beta1) g, v <- beta2 v + (1 - beta2) g^2; for
TeZO these have r numbers. M = U m V^T and, as a separable surrogate of the entries' second moments,
V = (U*U) v (V*V)^T with squared factors; W <- W - lr M / (sqrt(V) + adam_eps). The card does not
tell whether the moments are corrected for their start at 0; they are here, as in Adam.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from zobench.zo.feedback import DrawnTerm
from zobench.zo.low_rank import LowRank
from zobench.zo.moves import Direction
from zobench.zo.rules.base import Rule
from zobench.zo.rules.coordinate_rule import CoordinateRule
from zobench.zo.space import Slot


@dataclass(frozen=True, eq=False)
class _Quotient(Direction):
    """factor * mean / (sqrt(square) + floor), entry by entry."""

    mean: LowRank
    square: LowRank
    factor: float
    floor: float

    def draw(self, start: int, count: int, device: torch.device) -> Tensor:
        below = self.square.draw(start, count, device).sqrt_().add_(self.floor)
        return self.mean.draw(start, count, device).div_(below).mul_(self.factor)


class LiftedAdam(CoordinateRule):
    """Adam whose moments are coordinates, divided after lifting.

    State: twice the coordinates, in float32, and that of `vectors`.

    Formula:
        ```text
        m <- beta1 m + (1 - beta1) x,  v <- beta2 v + (1 - beta2) x^2,  x = sum_k c_k tau_k
        W <- W - lr (U m V^T) / (sqrt((U*U) v (V*V)^T) + adam_eps),  m, v corrected as in Adam
        ```

    Args:
        vectors: The rule of slots without coordinates.
        vector_lr: Factor of the learning rate on those, at least 0.
        beta1: Decay rate of the first moment, in [0, 1).
        beta2: Decay rate of the second moment, in [0, 1).
        adam_eps: Is added to the root.

    Raises:
        ValueError: An argument is out of range.

    References:
        TeZO-Adam, arXiv 2501.19057.
    """

    def __init__(
        self,
        vectors: Rule,
        *,
        vector_lr: float = 1.0,
        beta1: float = 0.9,
        beta2: float = 0.999,
        adam_eps: float = 1e-8,
    ) -> None:
        super().__init__(vectors, vector_lr)
        if not (0.0 <= beta1 < 1.0 and 0.0 <= beta2 < 1.0):
            raise ValueError(f"rule.beta1={beta1}, rule.beta2={beta2}: must be in [0, 1)")
        self.beta1, self.beta2, self.adam_eps = beta1, beta2, adam_eps

    def linear_state(self) -> Iterable[str]:
        return ("lifted_mean",)

    def moved(
        self, slot: Slot, law: LowRank, projected: Sequence[DrawnTerm], *, lr: float, step: int
    ) -> _Quotient:
        estimate = torch.zeros_like(law.coordinates).view(-1)
        for term in projected:
            term.direction.add_to(estimate, 0, term.grad)
        for name in ("lifted_mean", "lifted_square"):
            slot.buffers.setdefault(name, torch.zeros_like(estimate))
        m = slot.buffers["lifted_mean"].lerp_(estimate, 1.0 - self.beta1)
        v = slot.buffers["lifted_square"].mul_(self.beta2)
        v.addcmul_(estimate, estimate, value=1.0 - self.beta2)
        # both corrections are drawn in front of the quotient
        correction1 = 1.0 - self.beta1 ** (step + 1)
        correction2 = math.sqrt(1.0 - self.beta2 ** (step + 1))
        factor = -lr * correction2 / correction1
        return _Quotient(
            law.with_coordinates(m), law.squared(v), factor, self.adam_eps * correction2
        )

    def state_bytes(self, slot: Slot) -> int:
        if slot.coordinates_shape is None:
            return self.vectors.state_bytes(slot)
        return 2 * math.prod(slot.coordinates_shape) * slot.state_itemsize
