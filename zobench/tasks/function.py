"""Minimising a function of a point: no data, dev and test are the function itself."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from zobench.errors import UserError
from zobench.tasks.problem import Answer, ByIndices, Indices, Loaded


class OfAPoint(ByIndices, ABC):
    """A function of the tensors of a point; a Task and its own Problem."""

    sizes: dict[str, int]

    @abstractmethod
    def value(self, model: Any) -> Tensor:
        """The function at the point."""

    def prepare(self, loaded: Loaded, device: torch.device) -> Self:
        """The task itself; raises UserError for a model that is not a point."""
        del device
        if not hasattr(loaded.model, "tensors"):
            raise UserError("this task is a function of a point: leave model out, or model=point")
        return self

    def loss(self, model: Any, batch: Indices) -> Tensor:
        del batch
        return self.value(model)

    @torch.no_grad()
    def evaluate(
        self, model: Any, split: str, batch_size: int, answers: list[Answer] | None = None
    ) -> dict[str, float]:
        del split, batch_size, answers
        return {"loss": float(self.value(model))}


class Function(OfAPoint):
    """f(x) of the concatenated coordinates x.

    function: from a float vector to a scalar. shapes, start, data_seed: of the point, which
    `conf/model/point.yaml` makes from them.
    """

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

    def value(self, model: Any) -> Tensor:
        return self.function(torch.cat([t.reshape(-1) for t in model.tensors]))
