"""Steps that are captured whole, one CUDA graph for each shape of a padded batch."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from zobench.errors import UserError
from zobench.run.closure import CountedLoss
from zobench.zo.graph import StepGraph, check_graph
from zobench.zo.optimizer import ZOOptimizer

_COUNTED = "tokens"  # the field of a batch that no loss looks at


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
    """A step as a function of the batch, as `closure.step_of` gives it.

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
        fields = vars(batch)
        tensors = {name: value for name, value in fields.items() if isinstance(value, Tensor)}
        if not tensors:
            raise UserError("optimizer.graph=true: this task's batches are not tensors")
        others = {name: fields[name] for name in fields.keys() - tensors.keys() - {_COUNTED}}
        key = (*((n, x.shape, x.dtype) for n, x in tensors.items()), *sorted(others.items()))
        if key not in self._graphs:
            still = replace(batch, **{name: value.clone() for name, value in tensors.items()})
            closure = self._closure_of(still)
            self._graphs[key] = still, StepGraph(self._optimizer, closure, self._pool)
        still, graph = self._graphs[key]
        for name, value in tensors.items():
            getattr(still, name).copy_(value, non_blocking=True)
        before = self._optimizer.engine.forwards
        loss = graph.step()
        self._loss.count(batch, self._optimizer.engine.forwards - before)
        return loss

    def _closure_of(self, batch: Any) -> Any:
        return lambda: self._loss.whole(batch)
