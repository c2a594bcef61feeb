"""ZO-AdaMM: AMSGrad on the estimate (Chen et al. 2019, arXiv 1910.06513), as LDSD plugs into it."""

from collections.abc import Mapping

import torch
from torch import Tensor

from zobench.zo.feedback import Key
from zobench.zo.rules.base import Change, InTorch, Kind, Rule
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

    def change(self, grad: Mapping[Key, float], kind: Kind, *, lr: float, step: int) -> Change:
        del kind, step

        def update(weights: Tensor, g: Tensor, m: Tensor, v: Tensor, largest: Tensor) -> None:
            m.lerp_(g, 1.0 - self.beta1)
            v.mul_(self.beta2).addcmul_(g, g, value=1.0 - self.beta2)
            torch.maximum(largest, v, out=largest)
            weights.addcdiv_(m, largest.sqrt().add_(self.adam_eps), value=-lr)

        names = "adamm_mean", "adamm_square", "adamm_largest"
        return Change(grad, state=lambda slot: InTorch(tuple(map(slot.buffer, names)), update))
