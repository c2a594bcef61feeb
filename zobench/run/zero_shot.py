"""The optimizer of a run that does not train."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor


class ZeroShot(torch.optim.Optimizer):
    """Does not change the model; the runner takes no step and evaluates once."""

    def __init__(self, named_parameters: Iterable[tuple[str, Tensor]]) -> None:
        super().__init__(named_parameters, {})

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Does nothing."""
