"""f(x) = x^T H x / 2, with optional noise in its gradient: for checks of optimizers."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from zobench.errors import UserError
from zobench.tasks.function import OfAPoint
from zobench.tasks.problem import Indices
from zobench.tasks.spectrum import Curvature


class Quadratic(OfAPoint):
    """A quadratic over the tensors of a point.

    shapes, start, data_seed: of the point. spectrum: makes the curvatures from shapes, condition
    (largest over smallest, the largest being 1) and data_seed. noise: standard deviation, per
    coordinate, of an example's gradient around the true one; dev and test are f without noise.
    examples: training examples that differ in their noise.
    """

    def __init__(
        self,
        *,
        shapes: Sequence[Sequence[int]],
        start: float | Sequence[float],
        spectrum: Callable[[Sequence[Sequence[int]], float, int], list[Curvature]],
        condition: float,
        noise: float = 0.0,
        examples: int = 1,
        data_seed: int = 0,
    ) -> None:
        del start  # read by the model
        if condition < 1.0 or noise < 0.0 or examples < 1:
            raise UserError(
                f"task.condition={condition}, noise={noise}, examples={examples}:"
                " at least 1, 0 and 1"
            )
        self.curvatures = spectrum(shapes, condition, data_seed)
        self.noise, self.data_seed, self._shapes = noise, data_seed, list(map(tuple, shapes))
        self.sizes = {"train": examples, "dev": 1, "test": 1}

    def loss(self, model: Any, batch: Indices) -> Tensor:
        value = self.value(model)
        if not self.noise:
            return value
        for shift, x in zip(self._shifts(batch.indices), model.tensors, strict=True):
            value = value + (x * torch.from_numpy(shift).to(x)).sum()
        return value

    def value(self, model: Any) -> Tensor:
        pairs = zip(self.curvatures, model.tensors, strict=True)
        terms = [0.5 * (x * curvature(x)).sum() for curvature, x in pairs]
        return torch.stack(terms).sum()

    def _shifts(self, indices: Sequence[int]) -> list[npt.NDArray[np.float64]]:
        """Mean gradient noise of the examples, one array per tensor."""
        sources = [np.random.default_rng([self.data_seed, 2, index]) for index in indices]
        draws = [[r.standard_normal(s) for r in sources] for s in self._shapes]
        return [self.noise * np.mean(draw, axis=0) for draw in draws]
