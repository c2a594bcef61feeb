"""Lazy directions: what a sampler hands out for one slot; drawn again wherever it is needed."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from zobench.zo import noise


class Direction(Protocol):
    """The part of z that belongs to one slot, addressed as a flat vector."""

    def add_to(self, out: Tensor, start: int, first: float, second: float = 0.0) -> None:
        """out = (out + first * z) + second * z in place, z = z[start : start + len(out)].

        `out` is a flat float block of the slot; both sums are rounded.
        """

    def draw(self, start: int, count: int, device: torch.device) -> Tensor:
        """z[start : start + count] as a vector of float32, or float64 where state is float64."""


@dataclass(frozen=True)
class Multiple:
    """factor * a stored vector of the slot's size; a Direction."""

    vector: Tensor
    factor: float

    def add_to(self, out: Tensor, start: int, first: float, second: float = 0.0) -> None:
        part = self.vector[start : start + out.numel()]
        out.add_(part, alpha=first * self.factor)
        if second:
            out.add_(part, alpha=second * self.factor)

    def draw(self, start: int, count: int, device: torch.device) -> Tensor:
        del device  # the vector's own
        part = self.vector[start : start + count]
        return (part if part.dtype.itemsize >= 4 else part.float()) * self.factor


def add_drawn(direction: Direction, out: Tensor, start: int, first: float, second: float) -> None:
    """`add_to` by way of `draw`, for directions that have no quicker one."""
    z = direction.draw(start, out.numel(), out.device).to(out.dtype)
    out.add_(z * first)
    if second:
        out.add_(z.mul_(second))


@dataclass(frozen=True)
class Dense:
    """factor * noise over every element of the slot; a Direction."""

    stream: noise.Stream
    law: noise.Law
    factor: float = 1.0

    @classmethod
    def normal(
        cls, key: tuple[int, int, int], slot: int, factor: float = 1.0, number: int = 0
    ) -> "Dense":
        """`normal16` noise named by (seed, step, query), slot id and stream number."""
        stream = noise.Stream(noise.mix(*key), slot, number)
        return cls(stream, noise.Law.NORMAL16, factor)

    def add_to(self, out: Tensor, start: int, first: float, second: float = 0.0) -> None:
        first, second = first * self.factor, second * self.factor
        noise.add(out, self.law, self.stream, start, first, second)

    def draw(self, start: int, count: int, device: torch.device) -> Tensor:
        z = noise.draw(self.law, self.stream, start, count, device)
        return z if self.factor == 1.0 else z.mul_(self.factor)


@dataclass(frozen=True)
class Around:
    """A stored mean plus noise; a Direction."""

    mean: Tensor
    noise: Dense

    def add_to(self, out: Tensor, start: int, first: float, second: float = 0.0) -> None:
        add_drawn(self, out, start, first, second)

    def draw(self, start: int, count: int, device: torch.device) -> Tensor:
        del device  # the mean's own
        mean = self.mean[start : start + count]
        out = mean.to(torch.promote_types(mean.dtype, torch.float32), copy=True)
        self.noise.add_to(out, start, 1.0)
        return out
