"""Lazy directions: what a sampler returns for one slot; drawn again wherever it is needed."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from zobench.zo import noise


class Recipe(NamedTuple):
    """A direction as a fused pass draws it: z = scale * (vector + sigma * noise).

    Attributes:
        stream: Of the noise; None is none.
        law: Of the noise.
        scale: Factor of the whole.
        vector: Stored, of the slot's size; None is 0.
        sigma: Factor of the noise.
        row: (a, pull), float32 vectors of a row's length: every row u of the noise becomes
            row_scale * (u - <u, a> pull).
        row_scale: Factor of each row.
    """

    stream: noise.Stream | None
    law: noise.Law = noise.Law.NORMAL16
    scale: float = 1.0
    vector: Tensor | None = None
    sigma: float = 1.0
    row: tuple[Tensor, Tensor] | None = None
    row_scale: float = 1.0

    @property
    def width(self) -> int:
        return 1 if self.row is None else self.row[0].numel()


class Direction(ABC):
    """The part of z that belongs to one slot, addressed as a flat vector."""

    @property
    def recipe(self) -> Recipe | None:
        """How a fused pass draws it; None where only torch does."""
        return None

    def add_to(self, out: Tensor, start: int, first: float, second: float = 0.0) -> None:
        """out = (out + first * z) + second * z in place, z = z[start : start + len(out)].

        Args:
            out: A flat float block of the slot; both sums are rounded.
            start: Where the block begins in the slot.
            first: Scale of the first sum.
            second: Scale of the second.
        """
        z = self.draw(start, out.numel(), out.device).to(out.dtype)
        out.add_(z * first)
        if second:
            out.add_(z.mul_(second))

    @abstractmethod
    def draw(self, start: int, count: int, device: torch.device) -> Tensor:
        """A part of z as a vector.

        Args:
            start: First element.
            count: Number of elements.
            device: Where the vector is made.

        Returns:
            z[start : start + count]; float32, or float64 where state is float64.
        """


@dataclass(frozen=True)
class Multiple(Direction):
    """factor * a stored vector of the slot's size.

    Attributes:
        vector: One element per weight.
        factor: A number.
    """

    vector: Tensor
    factor: float

    @property
    def recipe(self) -> Recipe | None:
        if self.vector.dtype.itemsize > 4:
            return None
        return Recipe(None, scale=self.factor, vector=self.vector)

    def add_to(self, out: Tensor, start: int, first: float, second: float = 0.0) -> None:
        part = self.vector[start : start + out.numel()]
        out.add_(part, alpha=first * self.factor)
        if second:
            out.add_(part, alpha=second * self.factor)

    def draw(self, start: int, count: int, device: torch.device) -> Tensor:
        del device  # the vector's own
        part = self.vector[start : start + count]
        return (part if part.dtype.itemsize >= 4 else part.float()) * self.factor


@dataclass(frozen=True)
class Dense(Direction):
    """factor * noise over every element of the slot.

    Attributes:
        stream: Names the noise: key, slot and stream number.
        law: `normal16`, `normal` or `rademacher`.
        factor: A number.
    """

    stream: noise.Stream
    law: noise.Law
    factor: float = 1.0

    @property
    def recipe(self) -> Recipe:
        return Recipe(self.stream, self.law, self.factor)

    @classmethod
    def normal(
        cls, key: tuple[int, int, int], slot: int, factor: float = 1.0, number: int = 0
    ) -> "Dense":
        """`normal16` noise named by key, slot and stream number.

        Args:
            key: (seed, step, query).
            slot: The slot's id.
            factor: Factor of the noise.
            number: Other numbers give noise that is independent of this one.

        Returns:
            The direction.
        """
        stream = noise.Stream(noise.mix(*key), slot, number)
        return cls(stream, noise.Law.NORMAL16, factor)

    def add_to(self, out: Tensor, start: int, first: float, second: float = 0.0) -> None:
        first, second = first * self.factor, second * self.factor
        noise.add(out, self.law, self.stream, start, first, second)

    def draw(self, start: int, count: int, device: torch.device) -> Tensor:
        z = noise.draw(self.law, self.stream, start, count, device)
        return z if self.factor == 1.0 else z.mul_(self.factor)


@dataclass(frozen=True)
class Around(Direction):
    """A stored mean plus noise.

    Attributes:
        mean: One element per weight.
        noise: Dense noise.
    """

    mean: Tensor
    noise: Dense

    @property
    def recipe(self) -> Recipe | None:
        if self.mean.dtype.itemsize > 4:
            return None
        noise = self.noise
        return Recipe(noise.stream, noise.law, vector=self.mean, sigma=noise.factor)

    def draw(self, start: int, count: int, device: torch.device) -> Tensor:
        del device  # the mean's own
        mean = self.mean[start : start + count]
        out = mean.to(torch.promote_types(mean.dtype, torch.float32), copy=True)
        self.noise.add_to(out, start, 1.0)
        return out
