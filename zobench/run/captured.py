"""Forwards as CUDA graphs: one graph per batch shape, for every optimizer.

A small forward on a GPU spends most of its time on kernel launches; a graph launches all kernels at
once. The weights are displaced in place before the replay, so samplers, estimators and rules are
not affected. Every loss comes from a graph, including the first of a shape, so a resumed run gets
the same bits.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from zobench.errors import UserError
from zobench.run.notes import print_once
from zobench.tasks.batch import Batch
from zobench.tasks.evaluation import Forward
from zobench.tasks.positions import longest_text
from zobench.tasks.problem import Evaluates
from zobench.tasks.shared_prefix import PrefixBatch
from zobench.zo.engine import Engine
from zobench.zo.optimizer import ZOOptimizer

CUDA = "cuda"  # the device type that captures
MAX_GRAPHS = 32  # graphs kept at once; the least recently used one is dropped first
MAX_EVALUATED = 64  # the same of evaluations, which take all shapes of a split in turn
_COUNTED = "tokens"  # the field of a batch that no loss reads

Loss = Callable[[Any, Any], Tensor]
Recorder = Callable[[Callable[[], Tensor]], Callable[[], Tensor]]  # computation -> its replay


@dataclass
class _Graph:
    """A captured loss, its static input batch, and the batch last copied into it."""

    batch: Any
    loss: Callable[[], Tensor]
    current: Any


def why_not(
    model: nn.Module,
    make_batch: Callable[[], Any],
    optimizer: torch.optim.Optimizer | None = None,
    ranks: int = 1,
) -> str | None:
    """Return why forwards on batches like `make_batch()` cannot be captured; None if they can.

    optimizer: evaluates the losses; None if the weights do not move.
    """
    if reason := _why_not_there(model):
        return reason
    if ranks > 1:
        return "ranks exchange data in the middle of a loss"
    if isinstance(optimizer, ZOOptimizer):
        if optimizer.graph:
            return "optimizer.graph=true captures whole steps"
        if optimizer.engine.pack > 1:
            return "optimizer.pack evaluates several points at once, on copies of what is trained"
        if optimizer.engine.displacement is not optimizer.engine.plan:
            return "arithmetic=stochastic displaces each module's weights while the model computes"
    elif optimizer is not None:
        return "only losses of a zeroth-order optimizer are captured"
    batch = make_batch()
    if not tensors_of(batch):
        return "this task's batches are not tensors"
    if isinstance(batch, Batch) and batch.alone:
        return "this model reads rows of different lengths one length at a time"
    return None


def _why_not_there(model: nn.Module) -> str | None:
    """Return why nothing of a model can be captured where its weights are."""
    devices = {parameter.device for parameter in model.parameters()}
    if {device.type for device in devices} != {CUDA}:
        return "a CUDA device is needed"
    return "the model is spread over several devices" if len(devices) > 1 else None


@dataclass(eq=False)
class CapturedLoss:
    """The loss of a model on a batch, as `loss` computes it, by a CUDA graph where possible.

    Also other outputs of a model, each of which is one tensor.

    Args:
        loss: computes the loss of a model on a batch.
        engine: of the optimizer; it tells whether the plain loss is enough. None: it always is.
        record: captures a computation and returns a function that replays it.
        wide: pad batches, so that there are few shapes.
        required: raise UserError if a capture fails; else print the reason once and launch all
            later forwards without a graph.
        limit: the number of graphs kept.
    """

    loss: Loss
    engine: Engine | None
    record: Recorder
    _: KW_ONLY
    wide: bool = True
    required: bool = False
    limit: int = MAX_GRAPHS

    def __post_init__(self) -> None:
        self._works = True
        self._graphs: OrderedDict[tuple[Any, ...], _Graph] = OrderedDict()
        self._tensors: list[Tensor] = []  # of the model
        self._addresses: list[int] = []  # of these tensors
        self._longest = 0  # tokens that the model takes

    def __call__(self, model: nn.Module, batch: Any) -> Tensor:
        """Return the loss, a tensor that later calls do not overwrite."""
        bare = self.engine is None or self.engine.bare
        bare &= not getattr(batch, "alone", False)  # its forwards depend on the rows
        if self._works and bare and not torch.is_grad_enabled():
            graph = self._graph_of(model, batch)
            if graph is not None:
                return graph.loss().clone()
        return self.loss(model, batch)

    def _graph_of(self, model: nn.Module, batch: Any) -> _Graph | None:
        """The graph of the batch's shape, holding the batch; None if the capture failed."""
        self._forget_moved(model)
        for key, graph in self._graphs.items():
            if graph.current is batch:  # at another point of the same step
                self._graphs.move_to_end(key)
                return graph
        widens = self.wide and isinstance(batch, Batch | PrefixBatch)
        wide = batch.widened(self._longest) if widens else batch
        key = shape_of(wide)
        if key in self._graphs:
            graph = self._graphs[key]
            copy_into(graph.batch, wide)
            graph.current = batch
        else:
            static = static_copy(wide)
            try:
                loss = self.record(lambda: self.loss(model, static))
            except RuntimeError as error:  # all CUDA errors, out of memory included
                self._give_up(error)
                return None
            graph = self._graphs[key] = _Graph(static, loss, batch)
            if len(self._graphs) > self.limit:
                self._graphs.popitem(last=False)
        self._graphs.move_to_end(key)
        return graph

    def _forget_moved(self, model: nn.Module) -> None:
        """Drop all graphs if a weight has moved in memory: graphs hold addresses."""
        if not self._tensors:
            self._tensors = [*model.parameters(), *model.buffers()]
            self._longest = longest_text(model)
        addresses = [tensor.data_ptr() for tensor in self._tensors]
        if addresses != self._addresses:
            self._graphs.clear()
            self._addresses = addresses

    def _give_up(self, error: Exception) -> None:
        self._works = False
        self._graphs.clear()
        if self.required:
            reason = _reason(error)
            raise UserError(f"model.capture=true: capturing a forward failed: {reason}") from error
        print_once(f"model.capture: forwards are launched one by one: {_reason(error)}")


def _reason(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


@dataclass(eq=False)
class CapturedForwards:
    """The forwards of evaluations by CUDA graphs where possible; `tasks.evaluation.Forwards`.

    Args:
        record: captures a computation and returns a function that replays it.
    """

    record: Recorder
    records = True

    def __post_init__(self) -> None:
        self._captured: dict[Forward, CapturedLoss] = {}

    def __call__(self, forward: Forward, model: Any, batch: Any) -> Tensor:
        """The output of a function of model and batch, each by graphs of its own."""
        if not tensors_of(batch):
            return forward(model, batch)
        if forward not in self._captured:
            captured = CapturedLoss(forward, None, self.record, limit=MAX_EVALUATED)
            self._captured[forward] = captured
        return self._captured[forward](model, batch)

    def recorded(self, body: Callable[[], Tensor]) -> Callable[[], Tensor] | None:
        """The replay of a computation; None if it cannot be captured, which is printed once."""
        try:
            return self.record(body)
        except RuntimeError as error:
            self.launched_for(f"texts are generated without graphs: {_reason(error)}")
            return None

    def launched_for(self, reason: str) -> None:
        """Print the reason once."""
        print_once(f"model.capture: {reason}")


def capture_evaluation(
    problem: Any, model: nn.Module, capture: bool | None, loss: CapturedLoss | None = None
) -> Any:
    """The problem, whose evaluations capture their forwards where that is possible and wanted.

    loss: of the training, whose graphs share their memory with those of evaluations.
    """
    if capture is False or not isinstance(problem, Evaluates) or _why_not_there(model):
        return problem
    record = recorder_on(next(model.parameters()).device) if loss is None else loss.record
    return problem.evaluated_by(CapturedForwards(record))


def captured(
    loss: Loss,
    model: nn.Module,
    make_batch: Callable[[], Any],
    capture: bool | None,
    optimizer: torch.optim.Optimizer | None = None,
    ranks: int = 1,
    *,
    wide: bool = True,
) -> CapturedLoss | None:
    """The loss with captured forwards; None without them. The arguments are those of `why_not`.

    capture: the setting; null captures where it is possible.

    Raises:
        UserError: if `capture` is true and forwards cannot be captured.
    """
    if capture is False:
        return None
    reason = why_not(model, make_batch, optimizer, ranks)
    if reason is None:
        device = next(model.parameters()).device
        engine = optimizer.engine if isinstance(optimizer, ZOOptimizer) else None
        return CapturedLoss(loss, engine, recorder_on(device), wide=wide, required=bool(capture))
    if capture:
        raise UserError(f"model.capture=true: {reason}; set it to null")
    zeroth_order = isinstance(optimizer, ZOOptimizer) and not optimizer.graph
    if zeroth_order and torch.cuda.is_available():
        print_once(f"model.capture: forwards are launched one by one: {reason}")
    return None


def recorder_on(device: torch.device) -> Recorder:
    """A recorder of CUDA graphs, which share one memory pool: only one of them runs at a time."""
    pool, stream = torch.cuda.graph_pool_handle(), torch.cuda.Stream(device)

    def record(body: Callable[[], Tensor]) -> Callable[[], Tensor]:
        outer = torch.cuda.current_stream(device)
        stream.wait_stream(outer)
        with torch.cuda.stream(stream):  # warm-up, for instance a library's workspace
            body()
        outer.wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool, stream, capture_error_mode="thread_local"):
            result = body()

        def replay() -> Tensor:
            graph.replay()
            return result

        return replay

    return record


def tensors_of(batch: Any) -> dict[str, Tensor]:
    """The tensors of a batch by field; empty if the batch is not a dataclass."""
    if not is_dataclass(batch):
        return {}
    return {name: value for name, value in vars(batch).items() if isinstance(value, Tensor)}


def shape_of(batch: Any) -> tuple[Any, ...]:
    """A key that is equal for batches that can share a graph."""
    tensors = tensors_of(batch)
    others = {k: v for k, v in vars(batch).items() if k not in tensors and k != _COUNTED}
    return (*((n, x.shape, x.dtype) for n, x in tensors.items()), *sorted(others.items()))


def static_copy(batch: Any) -> Any:
    """A copy whose tensors a graph reads; `copy_into` replaces their contents."""
    return replace(batch, **{name: value.clone() for name, value in tensors_of(batch).items()})


def copy_into(static: Any, batch: Any) -> None:
    """Copy a batch's contents into a static copy of the same shape."""
    for name, value in tensors_of(batch).items():
        getattr(static, name).copy_(value, non_blocking=True)
