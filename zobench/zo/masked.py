"""Noise on some elements of a slot only; the others stay where they are."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from zobench.zo.directions import Drawn
from zobench.zo.moves import Direction


@dataclass(frozen=True)
class Masked(Direction):
    """u where mask(start, count, device) is true, 0 elsewhere."""

    noise: Drawn
    mask: Callable[[int, int, torch.device], Tensor]

    def draw(self, start: int, count: int, device: torch.device) -> Tensor:
        return self.noise.draw(start, count, device).mul_(self.mask(start, count, device))


def pack(mask: Tensor) -> Tensor:
    """A bool vector as bytes, eight to one, the first in the lowest bit."""
    padded = torch.nn.functional.pad(mask.to(torch.uint8), (0, -mask.numel() % 8)).view(-1, 8)
    bits = torch.arange(8, device=mask.device, dtype=torch.uint8)
    return padded.bitwise_left_shift(bits).sum(1, dtype=torch.uint8)


def unpack(packed: Tensor, start: int, count: int) -> Tensor:
    """Elements start .. start+count of what `pack` packed, as a bool vector."""
    first = start // 8
    part = packed[first : -(-(start + count) // 8)].unsqueeze(1)
    bits = torch.arange(8, device=packed.device, dtype=torch.uint8)
    flags = part.bitwise_right_shift(bits).bitwise_and(1).view(-1)
    return flags[start - first * 8 :][:count].bool()
