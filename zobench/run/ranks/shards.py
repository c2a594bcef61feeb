"""Sharded batches: each rank's model reads one shard, and all ranks gather the outputs.

The outputs are a few numbers per example: the scores of its choices, or the log-probability of its
answer. Every rank gathers the same bits in the order of the data, and computes the loss of the
whole batch by the arithmetic that one process uses.
"""

import itertools
import platform
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import Function
from torch.nn.parallel import DistributedDataParallel

from zobench.run.ranks.agreed import Agreed
from zobench.run.ranks.group import Group
from zobench.run.zero_shot import ZeroShot
from zobench.tasks.problem import Answer, ByExample, ByLength, Divisible, Problem
from zobench.tasks.sampling import Redrawn
from zobench.zo.optimizer import ZOOptimizer


@dataclass(frozen=True)
class Shard:
    """A batch, this rank's part of it, and the number of examples of each rank."""

    whole: Divisible
    part: Any
    counts: Sequence[int]

    @property
    def tokens(self) -> int:
        return self.whole.tokens

    def drawn(self, step: int, stream: int) -> "Shard":
        """As of a `Redrawn` batch; itself where the batch is none."""
        if not isinstance(self.whole, Redrawn):
            return self
        whole, part = (batch.drawn(step, stream) for batch in (self.whole, self.part))
        return replace(self, whole=whole, part=part)


class SharedProblem:
    """A Problem whose batches and evaluations are split over the ranks.

    A problem without examples (a function of a point) is evaluated by each rank alone.
    Gradients are averaged over the ranks if the optimizer needs them; otherwise a gradient is a
    diagnosis, which every rank computes on the whole batch.
    """

    def __init__(
        self, problem: Problem, agreed: Agreed, model: Any, optimizer: torch.optim.Optimizer
    ) -> None:
        self.problem, self.agreed = problem, agreed
        self.sizes: Mapping[str, int] = problem.sizes
        self._by_example = problem if isinstance(problem, ByExample) else None
        self._trained = None
        first_order = not isinstance(optimizer, ZOOptimizer | ZeroShot)
        if first_order and self._by_example is not None:
            self._trained = parallel(_Loss(model, self._shared), agreed.group)

    @property
    def differentiable(self) -> bool:
        return self.problem.differentiable

    def batch(self, indices: Sequence[int]) -> Any:
        whole: Any = self.problem.batch(indices)
        if self._by_example is None:
            return whole
        group = self.agreed.group
        ends = [rank * whole.examples // group.size for rank in range(group.size + 1)]
        counts = [end - start for start, end in itertools.pairwise(ends)]
        first = ends[group.rank]  # a rank without examples reads one, whose output is not used
        return Shard(whole, whole.cut(first, first + max(1, counts[group.rank])), counts)

    def length(self, index: int) -> int:
        return self.problem.length(index) if isinstance(self.problem, ByLength) else 0

    def weight(self, batch: Any) -> float:
        return self.problem.weight(batch.whole if isinstance(batch, Shard) else batch)

    def loss(self, model: Any, batch: Any) -> Tensor:
        """The same bits on all ranks."""
        if not isinstance(batch, Shard):
            return self.problem.loss(model, batch)
        if not torch.is_grad_enabled():
            return self._shared(model, batch)
        if self._trained is None:
            return self.problem.loss(model, batch.whole)
        value: Tensor = self._trained(batch)
        return value

    def _shared(self, model: Any, batch: Shard) -> Tensor:
        assert self._by_example is not None
        outputs = self._by_example.outputs(model, batch.part)
        gathered: Tensor = _Gathered.apply(outputs, batch.counts, self.agreed.group)
        return self._by_example.loss_of(gathered, batch.whole)

    def evaluate(
        self, model: Any, split: str, batch_size: int, answers: list[Answer] | None = None
    ) -> dict[str, float]:
        """Evaluate with each batch on one rank; the scores are those of one process."""
        if self._by_example is None:
            return self.problem.evaluate(model, split, batch_size, answers)
        over_ranks = self.agreed.map_over_ranks
        return self._by_example.evaluate(model, split, batch_size, answers, over_ranks)


class _Loss(nn.Module):
    """The loss of a shard as the output of a module, for DistributedDataParallel."""

    def __init__(self, model: nn.Module, loss: Any) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, batch: Shard) -> Tensor:
        loss: Tensor = self.loss(self.model, batch)
        return loss


class _Gathered(Function):
    """Gathers the rows of all ranks; supports jvp and vmap.

    backward gives each rank the gradient of its own rows times the number of ranks, since
    DistributedDataParallel averages.
    """

    @staticmethod
    def forward(rows: Tensor, counts: Sequence[int], group: Group) -> Tensor:
        return group.rows(rows, counts)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        del output
        rows, ctx.counts, ctx.group = inputs
        ctx.read = len(rows)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        first, count = sum(ctx.counts[: ctx.group.rank]), ctx.counts[ctx.group.rank]
        own = gradient.new_zeros((ctx.read, *gradient.shape[1:]))
        own[:count] = ctx.group.size * gradient[first : first + count]
        return own, None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: Any) -> Tensor:
        return ctx.group.rows(tangent, ctx.counts)

    @staticmethod
    def vmap(
        info: Any, dims: tuple[Any, ...], rows: Tensor, counts: Sequence[int], group: Group
    ) -> tuple[Tensor, int]:
        del info
        rows = rows.movedim(dims[0], -1)
        return _Gathered.apply(rows, counts, group), rows.dim() - 1


def parallel(module: nn.Module, group: Group) -> nn.Module:
    """The module with gradients averaged over the ranks: by NCCL if each has a GPU, else gloo."""
    if not any(parameter.requires_grad for parameter in module.parameters()):
        return module
    warnings.filterwarnings("ignore", "find_unused_parameters=True was specified")
    return DistributedDataParallel(
        module,
        process_group=_over(next(module.parameters()).device, group),
        broadcast_buffers=False,
        find_unused_parameters=True,  # a tuning may train weights that a task does not use
    )


def _over(device: torch.device, group: Group) -> dist.ProcessGroup | None:
    places = group.all((platform.node(), str(device)))
    if device.type != "cuda" or len(set(places)) < group.size or not dist.is_nccl_available():
        return None
    torch.cuda.set_device(device)
    return dist.new_group(backend="nccl")
