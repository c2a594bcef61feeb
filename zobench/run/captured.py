"""Forwards as CUDA graphs, one for each shape of a batch, whatever optimizer asks for the loss.

A small forward on a GPU waits for its launches most of the time; a graph launches all of it at
once. The weights are moved beforehand and stay where they are, so that no sampler, estimator or
rule has to know of it. Every loss comes from a graph, the first of a shape, too: a run that goes on
finds what it would have found.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from zobench.errors import UserError
from zobench.run.notes import tell_once
from zobench.tasks.batch import Batch
from zobench.tasks.positions import longest_text
from zobench.zo.displacement import InPlace
from zobench.zo.engine import Engine
from zobench.zo.optimizer import ZOOptimizer

CUDA = "cuda"  # the type of device that records
MOST = 32  # graphs at once; the one that was not used for longest goes first
_COUNTED = "tokens"  # the field of a batch that no loss looks at

Loss = Callable[[Any, Any], Tensor]
Recorder = Callable[[Callable[[], Tensor]], Callable[[], Tensor]]  # a computation, and it again


@dataclass
class _Room:
    """A batch whose tensors stay where they are, and its loss by the weights as they are.

    holds: the batch whose contents are in it.
    """

    batch: Any
    loss: Callable[[], Tensor]
    holds: Any


def why_not(
    model: nn.Module,
    some: Callable[[], Any],
    optimizer: torch.optim.Optimizer | None = None,
    ranks: int = 1,
) -> str | None:
    """Why forwards on batches such as `some` makes cannot be captured; None where they can.

    optimizer: who asks for their losses; None where nobody moves a weight.
    """
    devices = {parameter.device for parameter in model.parameters()}
    if {device.type for device in devices} != {CUDA}:
        return "that takes a CUDA device"
    if len(devices) > 1:
        return "the model is spread over several devices"
    if ranks > 1:
        return "ranks exchange what they find in the middle of a loss"
    if optimizer is not None and (reason := _why_not_for(optimizer)):
        return reason
    batch = some()
    if not tensors_of(batch):
        return "this task's batches are not tensors"
    if isinstance(batch, Batch) and batch.alone:
        return "this model reads rows of different lengths one length at a time"
    return None


def _why_not_for(optimizer: torch.optim.Optimizer) -> str | None:
    if not isinstance(optimizer, ZOOptimizer):
        return "only what a zeroth-order optimizer evaluates is captured"
    if optimizer.graph:
        return "optimizer.graph=true captures whole steps"
    if optimizer.engine.pack > 1:
        return "optimizer.pack evaluates several points at once, on copies of what is trained"
    if not isinstance(optimizer.engine.displacement, InPlace):
        return "arithmetic=stochastic displaces each module's weights while the model computes"
    return None


class CapturedLoss:
    """The loss of a model on a batch, as `loss` gives it, by a graph where one will do.

    record: makes of a computation one that takes place again, on the same tensors, at each call.
    engine: who asks, and knows whether the loss of the weights as they stand is all that is wanted;
    None where it always is. wide: batches get filler, so that there are few shapes. must: raise
    UserError where a forward cannot be captured; else it is said once, and all are launched one by
    one from then on.
    """

    def __init__(
        self,
        loss: Loss,
        engine: Engine | None,
        record: Recorder,
        *,
        wide: bool = True,
        must: bool = False,
        most: int = MOST,
    ) -> None:
        self._loss, self._engine, self._record, self._wide = loss, engine, record, wide
        self._must, self._most, self._works = must, most, True
        self._rooms: OrderedDict[tuple[Any, ...], _Room] = OrderedDict()
        self._tensors: list[Tensor] = []  # of the model, and their addresses
        self._places: list[int] = []
        self._longest = 0  # tokens that the model takes

    def __call__(self, model: nn.Module, batch: Any) -> Tensor:
        """A scalar, in memory of its own."""
        bare = self._engine is None or self._engine.bare
        if self._works and bare and not torch.is_grad_enabled():
            room = self._entered(model, batch)
            if room is not None:
                return room.loss().clone()
        return self._loss(model, batch)

    def _entered(self, model: nn.Module, batch: Any) -> _Room | None:
        """The room of the batch's shape with the batch in it; None where it cannot be recorded."""
        self._forget_moved(model)
        for key, room in self._rooms.items():
            if room.holds is batch:  # at another point of the same step
                self._rooms.move_to_end(key)
                return room
        wide = batch.widened(self._longest) if self._wide and isinstance(batch, Batch) else batch
        key = shape_of(wide)
        if key in self._rooms:
            room = self._rooms[key]
            put_into(room.batch, wide)
            room.holds = batch
        else:
            still = kept_still(wide)
            try:
                loss = self._record(lambda: self._loss(model, still))
            except RuntimeError as error:  # CUDA's are, want of memory included
                self._give_up(error)
                return None
            room = self._rooms[key] = _Room(still, loss, batch)
            if len(self._rooms) > self._most:
                self._rooms.popitem(last=False)
        self._rooms.move_to_end(key)
        return room

    def _forget_moved(self, model: nn.Module) -> None:
        """Graphs know weights by their addresses."""
        if not self._tensors:
            self._tensors = [*model.parameters(), *model.buffers()]
            self._longest = longest_text(model)
        places = [tensor.data_ptr() for tensor in self._tensors]
        if places != self._places:
            self._rooms.clear()
            self._places = places

    def _give_up(self, error: Exception) -> None:
        """From now on forwards are launched one by one."""
        self._works = False
        self._rooms.clear()
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        if self._must:
            raise UserError(f"model.capture=true: capturing a forward failed: {reason}") from error
        tell_once(f"model.capture: forwards are launched one by one: {reason}")


def captured(
    loss: Loss,
    model: nn.Module,
    some: Callable[[], Any],
    wanted: bool | None,
    optimizer: torch.optim.Optimizer | None = None,
    ranks: int = 1,
    *,
    wide: bool = True,
) -> CapturedLoss | None:
    """The loss with its forwards captured; wanted: None is where they can be. See `why_not`.

    Raises UserError where it is wanted and cannot be.
    """
    if wanted is False:
        return None
    reason = why_not(model, some, optimizer, ranks)
    if reason is None:
        device = next(model.parameters()).device
        engine = optimizer.engine if isinstance(optimizer, ZOOptimizer) else None
        return CapturedLoss(loss, engine, recorder_on(device), wide=wide, must=bool(wanted))
    if wanted:
        raise UserError(f"model.capture=true: {reason}; set it to null")
    zeroth_order = isinstance(optimizer, ZOOptimizer) and not optimizer.graph
    if zeroth_order and torch.cuda.is_available():
        tell_once(f"model.capture: forwards are launched one by one: {reason}")
    return None


def recorder_on(device: torch.device) -> Recorder:
    """Records CUDA graphs, which share their memory: one of them runs at a time."""
    pool, stream = torch.cuda.graph_pool_handle(), torch.cuda.Stream(device)

    def record(body: Callable[[], Tensor]) -> Callable[[], Tensor]:
        usual = torch.cuda.current_stream(device)
        stream.wait_stream(usual)
        with torch.cuda.stream(stream):  # what is made once, such as a library's workspace
            body()
        usual.wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool, stream, capture_error_mode="thread_local"):
            result = body()

        def again() -> Tensor:
            graph.replay()
            return result

        return again

    return record


def tensors_of(batch: Any) -> dict[str, Tensor]:
    """The tensors of a batch by field; none where it is no record of tensors."""
    if not is_dataclass(batch):
        return {}
    return {name: value for name, value in vars(batch).items() if isinstance(value, Tensor)}


def shape_of(batch: Any) -> tuple[Any, ...]:
    """What two batches have alike that one graph serves."""
    tensors = tensors_of(batch)
    others = {k: v for k, v in vars(batch).items() if k not in tensors and k != _COUNTED}
    return (*((n, x.shape, x.dtype) for n, x in tensors.items()), *sorted(others.items()))


def kept_still(batch: Any) -> Any:
    """The same in tensors of its own, for other batches of its shape to be put into."""
    return replace(batch, **{name: value.clone() for name, value in tensors_of(batch).items()})


def put_into(still: Any, batch: Any) -> None:
    """Copy the contents of a batch to where a graph looks for them."""
    for name, value in tensors_of(batch).items():
        getattr(still, name).copy_(value, non_blocking=True)
