"""EGGROLL's law (arXiv 2511.16652): fresh low-rank noise, from which a forward can be batched.

On an m x n matrix Z = A B^T / sqrt(r), with Gaussian A (m x r) and B (n x r), both fresh: E[z z^T]
is the identity as for a full Gaussian, at r (m + n) random numbers. Vectors are plain Gaussian.
The batched forward x W + (x B) A^T, where the paper's speed comes from, is `optimizer.pack`.
"""

import math

from torch import Tensor

from zobench.zo.directions import Drawn
from zobench.zo.feedback import Key
from zobench.zo.low_rank import LowRank
from zobench.zo.matrix import gaussian, view_of
from zobench.zo.samplers.base import ReplayClass, Sampler
from zobench.zo.space import Slot

_LEFT, _RIGHT = 6, 7  # stream numbers of A and B


class FreshLowRank(Sampler):
    """EGGROLL's law: fresh low-rank noise. Nothing is kept.

    Two directions have no bases in common, so there are no COORDINATES for a rule to work in.

    Formula:
        ```text
        Z = A B^T / sqrt(r),  A (m x r) and B (n x r) Gaussian, both fresh
        ```

    Args:
        rank: r, at least 1.

    Raises:
        ValueError: `rank` is below 1.

    References:
        Sarkar et al. 2025, EGGROLL, arXiv 2511.16652.
    """

    replay_class = ReplayClass.PURE

    def __init__(self, *, rank: int = 1) -> None:
        if rank < 1:
            raise ValueError(f"sampler.rank={rank}: must be at least 1")
        self.rank = rank

    def direction(self, slot: Slot, key: Key) -> LowRank | Drawn:
        view = view_of(slot.parameter.shape, self.rank)
        if view is None:
            return Drawn.normal(key, slot.id)
        left: Tensor = gaussian(key, slot, (view.rows, view.rank), _LEFT)
        right: Tensor = gaussian(key, slot, (view.cols, view.rank), _RIGHT)
        return LowRank(left, right=right, scale=1.0 / math.sqrt(view.rank))
