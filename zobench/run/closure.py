"""The only place that knows whether an optimizer back-propagates."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from zobench.run.micro import shares_of
from zobench.tasks.problem import Batch
from zobench.zo.engine import Diverged
from zobench.zo.optimizer import ZOOptimizer


class CountedLoss:
    """A loss function that counts the forwards and tokens it was asked for.

    precision: of the arithmetic inside, by autocast; None is the weights' own. A batch in parts
    counts as one forward; its loss is the exact mean over all of it.
    """

    def __init__(
        self,
        model: Any,
        loss: Callable[[Any, Any], Tensor],
        precision: torch.dtype | None = None,
    ) -> None:
        self._model, self._loss, self._precision = model, loss, precision
        self.forwards = 0
        self.tokens = 0

    def __call__(self, batch: Batch, points: int = 1) -> Tensor:
        """The loss of the whole batch, counted as one forward per point that it is evaluated at."""
        self.count(batch, points)
        return self.whole(batch)

    def whole(self, batch: Batch) -> Tensor:
        """The loss of the whole batch, uncounted."""
        first, *others = (share * self.part(part) for share, part in shares_of(batch))
        return sum(others, start=first)

    def count(self, batch: Batch, points: int = 1) -> None:
        self.forwards += points
        self.tokens += points * batch.tokens

    def part(self, batch: Any) -> Tensor:
        """The loss of a batch that is not in parts, without counting it."""
        if self._precision is None:
            return self._loss(self._model, batch)
        device = next(self._model.parameters()).device.type
        with torch.autocast(device, self._precision, cache_enabled=torch.is_grad_enabled()):
            return self._loss(self._model, batch)


def step_of(
    optimizer: torch.optim.Optimizer,
    loss: CountedLoss,
    anchor: Callable[[int], Batch] | None = None,
    grad_clip: float | None = None,
    sound: bool = False,
) -> Callable[[Batch], float]:
    """One optimizer step as a function of the batch, returning the loss.

    anchor: the n-th batch of the training set, for optimizers that look at more than the step's.
    grad_clip: the largest norm of a gradient by back-propagation. A batch in parts is
    back-propagated part by part, so that one part's activations are alive at a time.
    sound: also look at the norm of a gradient, which a finite loss does not make finite.
    The step raises Diverged, with the weights as before it, when a loss is not finite.
    """

    def zeroth_order(batch: Batch) -> float:
        assert isinstance(optimizer, ZOOptimizer)
        engine = optimizer.engine
        others = (lambda n: loss(anchor(n), engine.at_once)) if anchor else None
        return optimizer.step(lambda: loss(batch, engine.at_once), others)

    def first_order(batch: Batch) -> float:
        optimizer.zero_grad(set_to_none=True)
        loss.count(batch)
        whole = 0.0
        for share, part in shares_of(batch):
            value = share * loss.part(part)
            whole += float(value.detach())
            if not math.isfinite(whole):
                raise Diverged(f"the loss is {whole}")
            value.backward()
        if grad_clip is not None or sound:
            trained = [p for group in optimizer.param_groups for p in group["params"]]
            most = math.inf if grad_clip is None else grad_clip
            norm = torch.nn.utils.clip_grad_norm_(trained, most)
            if sound and not norm.isfinite():
                raise Diverged(f"the norm of the gradient is {float(norm)}")
        optimizer.step()
        return whole

    if isinstance(optimizer, ZOOptimizer) and optimizer.graph:
        from zobench.run.graphed import GraphedSteps

        return GraphedSteps(optimizer, loss)
    return zeroth_order if isinstance(optimizer, ZOOptimizer) else first_order


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Bytes that the optimizer keeps between steps beside the weights, gradients included."""
    tensors = [v for state in optimizer.state.values() for v in state.values()]
    tensors += [p.grad for group in optimizer.param_groups for p in group["params"]]
    return sum(t.numel() * t.element_size() for t in tensors if isinstance(t, Tensor))
