"""What a pass does to one tensor: directions and their scales, as plain data for the back ends."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor

from zobench.zo import noise
from zobench.zo.rounding import NEAREST, Rounding


class Recipe(NamedTuple):
    """The law of z on one slot: z = scale * (vector + sigma * noise), the key left open.

    Attributes:
        law: Of the noise; None is none.
        scale: Factor of the whole.
        number: Stream number of the noise: other numbers give independent noise.
        vector: Stored, of the slot's size; None is 0.
        sigma: Factor of the noise.
        row: (a, pull), vectors of a row's length: every row u of the noise becomes
            row_scale * (u - <u, a> pull).
        row_scale: Factor of each row.
    """

    law: noise.Law | None = noise.Law.NORMAL16
    scale: float = 1.0
    number: int = 0
    vector: Tensor | None = None
    sigma: float = 1.0
    row: tuple[Tensor, Tensor] | None = None
    row_scale: float = 1.0

    @property
    def width(self) -> int:
        return 1 if self.row is None else self.row[0].numel()

    @property
    def in_float32(self) -> bool:
        """Whether kernels can draw it, which know no float64."""
        stored = (self.vector, *(self.row or ()))
        return all(tensor is None or tensor.dtype.itemsize <= 4 for tensor in stored)

    def same(self, other: "Recipe") -> bool:
        """Whether it is the other law: equal numbers, and the same tensors."""
        for mine, theirs in zip(self, other, strict=True):
            if isinstance(mine, tuple) and isinstance(theirs, tuple):
                equal = mine[0] is theirs[0] and mine[1] is theirs[1]
            else:
                equal = mine is theirs or (not isinstance(mine, Tensor) and mine == theirs)
            if not equal:
                return False
        return True


class Direction(ABC):
    """The part of z that belongs to one slot, addressed as a flat vector; drawn where it is needed.

    Attributes:
        recipe: How a fused pass draws it; None where only torch does.
        stream: Of the noise of its recipe.
    """

    recipe: Recipe | None = None
    stream: noise.Stream | None = None

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


class Term(NamedTuple):
    """A direction, and what of it is added: first * z, then second * z, each sum rounded.

    Attributes:
        direction: A direction of the slot.
        first: Scale of the first sum: the way back.
        second: Scale of the second: the way on, or the update.
    """

    direction: Direction
    first: float
    second: float = 0.0


class StateUpdate(Protocol):
    """Elementwise state between the estimate and the weights, such as a momentum.

    kernel: what the fused pass knows it as. buffers: its float32 vectors. scalars: see `kernel`.
    """

    kernel: ClassVar[int]

    @property
    def buffers(self) -> tuple[Tensor, ...]: ...

    @property
    def scalars(self) -> tuple[float, ...]: ...

    def apply(self, place: slice, weights: Tensor, estimate: Tensor) -> None:
        """The same on one block, in torch."""


class RowSums(NamedTuple):
    """Sums over the raw rows u of directions, taken while a pass draws them.

    weights: one per term. outer: float64, (groups, width), += weight <u, a> u; energy: float64,
    (groups,), += weight <u, a>^2. Where directions have no rows, energy += weight z^2, before
    their scale, and the width is 1. groups: `tables.groups_of` the tensor.
    """

    weights: Sequence[float]
    outer: Tensor
    energy: Tensor


@dataclass(frozen=True, eq=False)
class Move:
    """w <- decay * w + sum of (first + second) * z, on a flat tensor, block by block.

    row: blocks are cut at multiples of so many elements. state_update: takes the sum of second * z
    instead of the weights. rounding: of 16-bit storage. out: where the result goes instead of the
    tensor, of any dtype and rounded to nearest; rows: those that are needed there. row_sums: only
    where the fused pass is `able` to do the move.
    """

    target: Tensor
    row: int
    terms: Sequence[Term]
    decay: float = 1.0
    state_update: StateUpdate | None = None
    rounding: Rounding = NEAREST
    out: Tensor | None = None
    rows: Tensor | None = None
    row_sums: RowSums | None = None
