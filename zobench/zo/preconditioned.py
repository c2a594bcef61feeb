"""Noise divided by the root of a positive diagonal: the directions of laws that keep a Hessian."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from zobench.zo.directions import Drawn
from zobench.zo.moves import Direction


@dataclass(frozen=True)
class Preconditioned(Direction):
    """u / sqrt(h), h = diagonal(start, stop) a block of a positive vector."""

    noise: Drawn
    diagonal: Callable[[int, int], Tensor]

    def draw(self, start: int, count: int, device: torch.device) -> Tensor:
        h = self.diagonal(start, start + count)
        return self.noise.draw(start, count, device).to(h.dtype).mul_(h.rsqrt())
