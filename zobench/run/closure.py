"""What a step evaluates: the loss of a batch, counted, in parts or captured as a CUDA graph."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zobench.errors import UserError
from zobench.run.captured import kept_still, put_into, shape_of, tensors_of
from zobench.tasks.problem import AnyBatch
from zobench.zo.graph import StepGraph, check_graph
from zobench.zo.optimizer import ZOOptimizer


@dataclass(frozen=True)
class Parts:
    """Micro-batches and what each weighs in the loss of the whole; the weighted mean is exact.

    weights: how many examples, or tokens, the mean loss of each is over.
    """

    batches: Sequence[Any]
    weights: Sequence[float]

    @property
    def tokens(self) -> int:
        return sum(batch.tokens for batch in self.batches)

    @property
    def shares(self) -> list[tuple[float, Any]]:
        """Each micro-batch with its share of the loss; the shares sum to 1."""
        whole = sum(self.weights)
        return [(w / whole, b) for w, b in zip(self.weights, self.batches, strict=True)]


def shares_of(batch: Any) -> list[tuple[float, Any]]:
    """The shares of a batch in parts; of any other, itself with all of the loss."""
    return batch.shares if isinstance(batch, Parts) else [(1.0, batch)]


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

    def __call__(self, batch: AnyBatch, points: int = 1) -> Tensor:
        """The loss of the whole batch, counted as one forward per point that it is evaluated at."""
        self.count(batch, points)
        return self.whole(batch)

    def whole(self, batch: AnyBatch) -> Tensor:
        """The loss of the whole batch, uncounted."""
        first, *others = (share * self.part(part) for share, part in shares_of(batch))
        return sum(others, start=first)

    def count(self, batch: AnyBatch, points: int = 1) -> None:
        self.forwards += points
        self.tokens += points * batch.tokens

    def part(self, batch: Any) -> Tensor:
        """The loss of a batch that is not in parts, without counting it."""
        if self._precision is None:
            return self._loss(self._model, batch)
        device = next(self._model.parameters()).device.type
        with torch.autocast(device, self._precision, cache_enabled=torch.is_grad_enabled()):
            return self._loss(self._model, batch)


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Bytes that the optimizer keeps between steps beside the weights, gradients included."""
    tensors = [v for state in optimizer.state.values() for v in state.values()]
    tensors += [p.grad for group in optimizer.param_groups for p in group["params"]]
    return sum(t.numel() * t.element_size() for t in tensors if isinstance(t, Tensor))


def check_captured(
    optimizer: torch.optim.Optimizer, parts: int | None = None, nonfinite: str | None = None
) -> None:
    """Raise UserError where `optimizer.graph` is asked for and cannot be.

    parts: the size of the parts that batches are cut into. nonfinite: `train.nonfinite`.
    """
    if not isinstance(optimizer, ZOOptimizer) or not optimizer.graph:
        return
    if parts is not None:
        raise UserError(
            "train.micro_batch_size: a captured step takes its batch whole; set it to null, or"
            " optimizer.graph=false"
        )
    if nonfinite == "skip":
        raise UserError(
            "train.nonfinite=skip: a captured step evaluates all its points, whatever the first"
            " gave, so that no ledger could skip it again; set optimizer.graph=false"
        )
    try:
        check_graph(optimizer)
    except ValueError as error:
        raise UserError(f"optimizer.{error}; or set optimizer.graph=false") from error


class GraphedSteps:
    """A step as a function of the batch, as `steps.step_of` gives it.

    A batch is copied to where the graph of its shape looks for it. All graphs share their memory.
    Raises UserError where the optimizer's steps cannot be captured.
    """

    def __init__(self, optimizer: ZOOptimizer, loss: CountedLoss) -> None:
        check_captured(optimizer)
        self._optimizer, self._loss = optimizer, loss
        self._graphs: dict[tuple[Any, ...], tuple[Any, StepGraph]] = {}
        device = optimizer.engine.slots[0].parameter.device
        self._pool = torch.cuda.graph_pool_handle() if device.type == "cuda" else None

    def __call__(self, batch: Any) -> float:
        """Take the step; raises what `ZOOptimizer.step` raises."""
        if not tensors_of(batch):
            raise UserError("optimizer.graph=true: this task's batches are not tensors")
        key = shape_of(batch)
        if key not in self._graphs:
            still = kept_still(batch)
            closure = self._closure_of(still)
            self._graphs[key] = still, StepGraph(self._optimizer, closure, self._pool)
        still, graph = self._graphs[key]
        put_into(still, batch)
        before = self._optimizer.engine.forwards
        loss = graph.step()
        self._loss.count(batch, self._optimizer.engine.forwards - before)
        return loss

    def _closure_of(self, batch: Any) -> Any:
        return lambda: self._loss.whole(batch)
