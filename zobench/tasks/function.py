"""Minimising a function of a point: no data, dev and test are the function itself."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from zobench.errors import UserError
from zobench.tasks.problem import Answer, Indices, Loaded


class Function:
    """f(x) of the concatenated coordinates x; a Task and its own Problem.

    function: from a float vector to a scalar. shapes, start, data_seed: of the point, which
    `conf/model/point.yaml` makes from them.
    """

    differentiable = True

    def __init__(
        self,
        *,
        function: Callable[[Tensor], Tensor],
        shapes: Sequence[Sequence[int]],
        start: float | Sequence[float],
        data_seed: int = 0,
    ) -> None:
        del shapes, start, data_seed  # read by the model
        self.function = function
        self.sizes = {"train": 1, "dev": 1, "test": 1}

    def prepare(self, loaded: Loaded, device: torch.device) -> "Function":
        del device
        check_point(loaded)
        return self

    def batch(self, indices: Sequence[int]) -> Indices:
        return Indices(tuple(indices))

    def weight(self, batch: Indices) -> int:
        return len(batch.indices)

    def loss(self, model: Any, batch: Indices) -> Tensor:
        del batch
        return self.function(torch.cat([t.reshape(-1) for t in model.tensors]))

    @torch.no_grad()
    def evaluate(
        self, model: Any, split: str, batch_size: int, answers: list[Answer] | None = None
    ) -> dict[str, float]:
        del split, batch_size, answers
        return {"loss": float(self.loss(model, self.batch([])))}


def check_point(loaded: Loaded) -> None:
    """Raise UserError for a model that is not a point."""
    if not hasattr(loaded.model, "tensors"):
        raise UserError("this task is a function of a point: leave model out, or model=point")
