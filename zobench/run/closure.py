"""The loss that a step evaluates: counted, in micro-batches, or captured as a CUDA graph."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from zobench.errors import UserError
from zobench.run.captured import copy_into, shape_of, static_copy, tensors_of
from zobench.run.zero_shot import ZeroShot
from zobench.settings import RunSettings
from zobench.tasks.problem import AnyBatch
from zobench.zo.estimators.forward_gradient import ForwardGradient
from zobench.zo.graph import StepGraph, check_graph, is_plain_noise
from zobench.zo.noise import Law
from zobench.zo.optimizer import ZOOptimizer


@dataclass(frozen=True)
class Parts:
    """A batch in micro-batches. weights: the number of examples, or tokens, in each mean loss."""

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
    """The micro-batches of a batch with their shares of the loss."""
    return batch.shares if isinstance(batch, Parts) else [(1.0, batch)]


@dataclass(eq=False)
class CountedLoss:
    """A loss function that counts forwards and tokens; a batch in parts is one forward.

    precision: of autocast; None computes in the precision of the weights. by_example: the loss is a
    vector, an element per example.
    """

    model: Any
    loss: Callable[[Any, Any], Tensor]
    precision: torch.dtype | None = None
    by_example: bool = False
    forwards: int = 0
    tokens: int = 0

    def __call__(self, batch: AnyBatch, points: int = 1) -> Tensor:
        """The loss of the whole batch, counted as one forward per point."""
        self.count(batch, points)
        return self.whole(batch)

    def whole(self, batch: AnyBatch) -> Tensor:
        """The loss of the whole batch, uncounted."""
        if self.by_example:
            return torch.cat([self.part(part) for _, part in shares_of(batch)])
        first, *others = (share * self.part(part) for share, part in shares_of(batch))
        return sum(others, start=first)

    def count(self, batch: AnyBatch, points: int = 1) -> None:
        self.forwards += points
        self.tokens += points * batch.tokens

    def part(self, batch: Any) -> Tensor:
        """The loss of a batch that is not in parts, uncounted."""
        if self.precision is None:
            return self.loss(self.model, batch)
        device = next(self.model.parameters()).device.type
        with torch.autocast(device, self.precision, cache_enabled=torch.is_grad_enabled()):
            return self.loss(self.model, batch)


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Bytes that the optimizer keeps between steps, gradients included."""
    tensors = [v for state in optimizer.state.values() for v in state.values()]
    tensors += [p.grad for group in optimizer.param_groups for p in group["params"]]
    return sum(t.numel() * t.element_size() for t in tensors if isinstance(t, Tensor))


def check_captured(
    optimizer: torch.optim.Optimizer, parts: int | None = None, nonfinite: str | None = None
) -> None:
    """Raise UserError if `optimizer.graph` is set but steps cannot be captured.

    parts: `train.micro_batch_size`. nonfinite: `train.nonfinite`.
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
            "train.nonfinite=skip: a captured step evaluates all its points even if the first loss"
            " is not finite, so the ledger could not replay a skip; set optimizer.graph=false"
        )
    try:
        check_graph(optimizer)
    except ValueError as error:
        raise UserError(f"optimizer.{error}; or set optimizer.graph=false") from error


def check_offload(settings: RunSettings, optimizer: torch.optim.Optimizer) -> None:
    """Raise UserError if `model.offload` is set for a run that needs all weights on the device."""
    if not settings.model.get("offload"):
        return
    train, reason = settings.train, None
    if isinstance(optimizer, ZOOptimizer):
        sampler, estimator = optimizer.engine.sampler, optimizer.estimator
        if not is_plain_noise(sampler):
            reason = f"sampler {type(sampler).__name__} does not draw plain noise for every weight"
        elif any((recipe := sampler.recipe(s)) and recipe.law is Law.NORMAL for s in sampler.slots):
            reason = "law=normal has other bits on a GPU than on a CPU, which makes the updates"
        elif isinstance(estimator, ForwardGradient):
            reason = "forward-mode differentiation goes through all layers at once"
        elif optimizer.engine.displacement is not optimizer.engine.plan:
            reason = "arithmetic=stochastic displaces copies of modules"
        elif optimizer.graph or optimizer.engine.pack > 1:
            reason = "optimizer.graph and optimizer.pack evaluate in their own way"
    elif not isinstance(optimizer, ZeroShot):
        reason = "the optimizer is not a zeroth-order one"
    if train.micro_batch_size is not None:
        reason = "train.micro_batch_size would upload each layer for each part of a batch"
    elif train.nonfinite == "skip":
        reason = "train.nonfinite=skip needs each loss before the next point"
    elif settings.diagnose.every:
        reason = "diagnose.every back-propagates"
    elif settings.pack_runs:
        reason = "pack_runs evaluates runs in one call"
    if reason is not None:
        raise UserError(f"model.offload={settings.model['offload']}: {reason}; set it to null")


class GraphedSteps:
    """Captured steps as a function of the batch; one graph per shape, in one memory pool."""

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
            static = static_copy(batch)
            closure = partial(self._loss.whole, static)
            self._graphs[key] = static, StepGraph(self._optimizer, closure, self._pool)
        static, graph = self._graphs[key]
        copy_into(static, batch)
        before = self._optimizer.engine.forwards
        loss = graph.step()
        self._loss.count(batch, self._optimizer.engine.forwards - before)
        return loss
