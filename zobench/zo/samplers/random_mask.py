"""R-MeZO, the control of Sparse-MeZO (arXiv 2402.15751): a random part of the weights is perturbed.

z = u on a random share of the elements, 0 elsewhere. What other repositories ship under the name of
Sparse-MeZO, and ZO-Bench's sparse gradients, are this.
"""

import math
from statistics import NormalDist

import torch

from zobench.zo.directions import Drawn
from zobench.zo.feedback import Key
from zobench.zo.masked import Masked
from zobench.zo.samplers.base import ReplayClass, Sampler
from zobench.zo.space import Slot

_MASK = 10  # stream number of the draw that decides who takes part


class RandomMask(Sampler):
    """R-MeZO's law: a random part of the weights is perturbed. No state: the mask is drawn again.

    Formula:
        ```text
        z_i = u_i on a random share of the elements, else 0,  u ~ N(0, I)
        ```

    Args:
        sparsity: Chance of an element to stay put, in [0, 1); 0 is MeZO.
        resample: Steps after which another mask is drawn, at least 1; None keeps one for the run.

    Raises:
        ValueError: An argument is out of range.

    References:
        R-MeZO, the control of Sparse-MeZO, arXiv 2402.15751.
    """

    replay_class = ReplayClass.PURE

    def __init__(self, *, sparsity: float = 0.75, resample: int | None = None) -> None:
        if not 0.0 <= sparsity < 1.0:
            raise ValueError(f"sampler.sparsity={sparsity}: must be in [0, 1)")
        if resample is not None and resample < 1:
            raise ValueError(f"sampler.resample={resample}: must be at least 1, or null")
        self.resample = resample
        self.threshold = NormalDist().inv_cdf(sparsity) if sparsity else -math.inf

    def direction(self, slot: Slot, key: Key) -> Masked:
        since = key.step - key.step % self.resample if self.resample else 0
        noise = Drawn.normal((self.seed, since, 0), slot.id, number=_MASK)

        def mask(start: int, count: int, device: torch.device) -> torch.Tensor:
            return noise.draw(start, count, device) > self.threshold

        return Masked(Drawn.normal(key, slot.id), mask)
