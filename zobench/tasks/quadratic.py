"""f(x) = x^T H x / 2, with optional noise in its gradient: for checks of optimizers."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from zobench.errors import UserError
from zobench.tasks.function import check_point
from zobench.tasks.problem import Answer, Indices, Loaded
from zobench.tasks.spectrum import Curvature


class Quadratic:
    """A quadratic over the tensors of a point; a Task and its own Problem.

    shapes, start, data_seed: of the point. spectrum: makes the curvatures from shapes, condition
    (largest over smallest, the largest being 1) and data_seed. noise: standard deviation, per
    coordinate, of an example's gradient around the true one; dev and test are f without noise.
    examples: training examples that differ in their noise.
    """

    differentiable = True

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

    def prepare(self, loaded: Loaded, device: torch.device) -> "Quadratic":
        del device
        check_point(loaded)
        return self

    def batch(self, indices: Sequence[int]) -> Indices:
        return Indices(tuple(indices))

    def weight(self, batch: Indices) -> int:
        return len(batch.indices)

    def loss(self, model: Any, batch: Indices) -> Tensor:
        value = self._exact(model)
        if not self.noise:
            return value
        for shift, x in zip(self._shifts(batch.indices), model.tensors, strict=True):
            value = value + (x * torch.from_numpy(shift).to(x)).sum()
        return value

    def _exact(self, model: Any) -> Tensor:
        pairs = zip(self.curvatures, model.tensors, strict=True)
        terms = [0.5 * (x * curvature(x)).sum() for curvature, x in pairs]
        return torch.stack(terms).sum()

    def _shifts(self, indices: Sequence[int]) -> list[npt.NDArray[np.float64]]:
        """Mean gradient noise of the examples, one array per tensor."""
        sources = [np.random.default_rng([self.data_seed, 2, index]) for index in indices]
        draws = [[r.standard_normal(s) for r in sources] for s in self._shapes]
        return [self.noise * np.mean(draw, axis=0) for draw in draws]

    @torch.no_grad()
    def evaluate(
        self, model: Any, split: str, batch_size: int, answers: list[Answer] | None = None
    ) -> dict[str, float]:
        del split, batch_size, answers
        return {"loss": float(self._exact(model))}
