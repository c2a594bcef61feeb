"""Directions that a recipe describes: what most samplers return for one slot."""

from dataclasses import dataclass

import torch
from torch import Tensor

from zobench.zo import noise
from zobench.zo.moves import Direction, Recipe
from zobench.zo.passes import fused


@dataclass(frozen=True)
class Drawn(Direction):
    """A recipe with its noise: kernels draw it from `recipe`, torch by the methods here.

    Attributes:
        form: The law of the slot.
        stream: Names the noise: key, slot and stream number.
    """

    form: Recipe
    stream: noise.Stream

    @classmethod
    def of(cls, form: Recipe, key: tuple[int, int, int], slot: int) -> "Drawn":
        """The direction of that name.

        Args:
            form: The law of the slot.
            key: (seed, step, query).
            slot: The slot's id.

        Returns:
            The direction.
        """
        return cls(form, noise.Stream(noise.mix(*key), slot, form.number))

    @classmethod
    def normal(
        cls, key: tuple[int, int, int], slot: int, scale: float = 1.0, number: int = 0
    ) -> "Drawn":
        """scale * `normal16` noise.

        Args:
            key: (seed, step, query).
            slot: The slot's id.
            scale: Factor of the noise.
            number: Other numbers give noise that is independent of this one.

        Returns:
            The direction.
        """
        return cls.of(Recipe(scale=scale, number=number), key, slot)

    @property
    def recipe(self) -> Recipe | None:  # type: ignore[override]
        return self.form if self.form.in_float32 else None

    def add_to(self, out: Tensor, start: int, first: float, second: float = 0.0) -> None:
        form = self.form
        if form.row is not None or (form.law is not None and form.vector is not None):
            super().add_to(out, start, first, second)
            return
        first, second = first * form.scale, second * form.scale
        if form.law is not None:
            noise.add(out, form.law, self.stream, start, first, second)
            return
        part = self._plain(start, out.numel(), out.device)
        out.add_(part, alpha=first)
        if second:
            out.add_(part, alpha=second)

    def draw(self, start: int, count: int, device: torch.device) -> Tensor:
        form = self.form
        z = self._rows(start, count, device) if form.row else self._plain(start, count, device)
        if form.law is None:
            return z * form.scale  # what is stored stays as it is
        return z if form.scale == 1.0 else z.mul_(form.scale)

    def _plain(self, start: int, count: int, device: torch.device) -> Tensor:
        """vector + sigma * noise, in float32 at least; without noise a part of the vector."""
        form = self.form
        if form.vector is None:
            assert form.law is not None, "a recipe has noise, or a vector, or both"
            return noise.draw(form.law, self.stream, start, count, device)
        part = form.vector[start : start + count]
        wide = part if part.dtype.itemsize >= 4 else part.float()
        if form.law is None:
            return wide
        out = wide.clone() if wide is part else wide
        noise.add(out, form.law, self.stream, start, form.sigma)
        return out

    def _rows(self, start: int, count: int, device: torch.device) -> Tensor:
        """The same with every row changed as `Recipe.row` says."""
        assert self.form.row is not None
        (a, pull), width = self.form.row, self.form.width
        first, last = start // width * width, -(-(start + count) // width) * width
        if self.recipe is not None and device.type == "cpu":  # the bits of the fused pass
            flat = fused.drawn(self.form, self.stream, first, last - first)
        else:
            rows = self._plain(first, last - first, device).to(a.dtype).view(-1, width)
            flat = rows.addr_(rows @ a, pull, alpha=-1.0).mul_(self.form.row_scale).view(-1)
        return flat[start - first :][:count]


def stored(vector: Tensor, scale: float = 1.0) -> Drawn:
    """scale * a vector of the slot's size, as a direction."""
    return Drawn.of(Recipe(None, scale, vector=vector), (0, 0, 0), 0)
