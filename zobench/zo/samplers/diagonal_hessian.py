"""HiZOO (Zhao et al. 2025, arXiv 2402.15173): one curvature for every weight, see `hessian`."""

from collections.abc import Sequence

import torch
from torch import Tensor

from zobench.zo.feedback import Key
from zobench.zo.samplers.hessian import Hessian
from zobench.zo.space import Slot


class DiagonalHessian(Hessian):
    """HiZOO's law with one curvature for every weight. alpha = 0 is MeZO.

    State: H, one float32 vector per slot (4 bytes a parameter). The arguments are those of
    `Hessian`.

    Formula:
        ```text
        z = u / sqrt(H),  u ~ N(0, I)
        H <- (1 - alpha) H + alpha kappa H u^2,  H = 1 at first
        kappa = |f+ + f- - 2 f0| / (2 eps^2)
        ```

    References:
        Zhao et al. 2025, HiZOO, arXiv 2402.15173.
    """

    def bind(self, slots: Sequence[Slot], seed: int) -> None:
        super().bind(slots, seed)
        for slot in slots:
            slot.buffers["hessian"] = torch.ones_like(slot.flat, dtype=slot.state_dtype)

    def state_bytes(self, slot: Slot) -> int:
        return slot.numel * slot.state_itemsize

    def diagonal(self, slot: Slot, start: int, stop: int) -> Tensor:
        return slot.buffers["hessian"][start:stop]

    def learn(self, slot: Slot, key: Key, curvature: float) -> None:
        for start, stop in slot.spans():
            h = self.diagonal(slot, start, stop)
            growth = self.noise_squared(slot, key, start, stop).mul_(self.alpha * curvature)
            h.mul_(growth.add_(1.0 - self.alpha))
