"""The only place that knows whether an optimizer back-propagates."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from zobench.tasks.encoding import Batch
from zobench.zo.engine import Diverged
from zobench.zo.optimizer import ZOOptimizer


class CountedLoss:
    """A loss function that counts the forwards and tokens it was asked for."""

    def __init__(self, model: Any, loss: Callable[[Any, Batch], Tensor]) -> None:
        self._model, self._loss = model, loss
        self.forwards = 0
        self.tokens = 0

    def __call__(self, batch: Batch) -> Tensor:
        self.forwards += 1
        self.tokens += batch.tokens
        return self._loss(self._model, batch)


def step_of(
    optimizer: torch.optim.Optimizer,
    loss: Callable[[Batch], Tensor],
    anchor: Callable[[int], Batch] | None = None,
) -> Callable[[Batch], float]:
    """One optimizer step as a function of the batch, returning the loss.

    anchor: the n-th batch of the training set, for optimizers that look at more than the step's.
    The step raises Diverged, with the weights as before it, when a loss is not finite.
    """

    def zeroth_order(batch: Batch) -> float:
        assert isinstance(optimizer, ZOOptimizer)
        others = (lambda n: loss(anchor(n))) if anchor else None
        return optimizer.step(lambda: loss(batch), others)

    def first_order(batch: Batch) -> float:
        optimizer.zero_grad(set_to_none=True)
        value = loss(batch)
        number = float(value.detach())
        if not math.isfinite(number):
            raise Diverged(f"the loss is {number}")
        value.backward()
        optimizer.step()
        return number

    return zeroth_order if isinstance(optimizer, ZOOptimizer) else first_order


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Bytes that the optimizer keeps between steps beside the weights, gradients included."""
    tensors = [v for state in optimizer.state.values() for v in state.values()]
    tensors += [p.grad for group in optimizer.param_groups for p in group["params"]]
    return sum(t.numel() * t.element_size() for t in tensors if isinstance(t, Tensor))
