"""ZO-AdaMM: AMSGrad on the estimate (Chen et al. 2019, arXiv 1910.06513), as LDSD plugs into it."""

from collections.abc import Sequence

import torch

from zobench.zo.feedback import DrawnTerm
from zobench.zo.rules.base import Rule, estimate_blocks
from zobench.zo.space import Slot


class AdaMM(Rule):
    """AMSGrad without bias correction: w <- w - lr m / (sqrt(V) + adam_eps), V the largest v yet.

    State: three float32 vectors per slot (12 bytes a parameter).

    Formula:
        ```text
        m <- beta1 m + (1 - beta1) g,  v <- beta2 v + (1 - beta2) g^2,  V <- max(V, v)
        w <- w - lr m / (sqrt(V) + adam_eps),  g = sum_k c_k z_k
        ```

    Args:
        beta1: Decay rate of the first moment, in [0, 1).
        beta2: Decay rate of the second moment, in [0, 1).
        adam_eps: Is added to the root.

    Raises:
        ValueError: A decay rate is out of range.

    References:
        Chen et al. 2019, ZO-AdaMM, arXiv 1910.06513.
    """

    def __init__(
        self, *, beta1: float = 0.9, beta2: float = 0.999, adam_eps: float = 1e-10
    ) -> None:
        if not (0.0 <= beta1 < 1.0 and 0.0 <= beta2 < 1.0):
            raise ValueError(f"rule.beta1={beta1}, rule.beta2={beta2}: must be in [0, 1)")
        self.beta1, self.beta2, self.adam_eps = beta1, beta2, adam_eps

    def state_bytes(self, slot: Slot) -> int:
        return 3 * slot.numel * slot.state_itemsize

    def update(self, slot: Slot, drawn: Sequence[DrawnTerm], *, lr: float, step: int) -> None:
        del step
        mean, square, largest = (slot.buffer(f"adamm_{n}") for n in ("mean", "square", "largest"))
        for place, weights, estimate in estimate_blocks(slot, drawn):
            m = mean[place].lerp_(estimate, 1.0 - self.beta1)
            v = square[place].mul_(self.beta2).addcmul_(estimate, estimate, value=1.0 - self.beta2)
            top = torch.maximum(largest[place], v, out=largest[place])
            weights.addcdiv_(m, top.sqrt().add_(self.adam_eps), value=-lr)
