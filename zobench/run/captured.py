"""Forwards as CUDA graphs, one for each shape of a batch, whatever optimizer asks for the loss.

A small forward on a GPU waits for its launches most of the time; a graph launches all of it at
once. The weights are moved beforehand and stay where they are, so that no sampler, estimator or
rule has to know of it. Every loss comes from a graph, the first of a shape, too: a run that goes on
finds what it would have found.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import is_dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from zobench.errors import UserError
from zobench.run.notes import tell_once
from zobench.tasks.batch import Batch
from zobench.tasks.positions import longest_text
from zobench.zo.engine import Engine
from zobench.zo.optimizer import ZOOptimizer
from zobench.zo.walk import InPlace

CUDA = "cuda"  # the type of device that records
MOST = 32  # graphs at once; the one that was not used for longest goes first
_COUNTED = "tokens"  # the field of a batch that no loss looks at

Loss = Callable[[Any, Any], Tensor]
Recorder = Callable[[Callable[[], Tensor]], Callable[[], Tensor]]  # a computation, and it again


class _Room(NamedTuple):
    """A batch whose tensors stay where they are, and its loss by the weights as they are."""

    batch: Any
    loss: Callable[[], Tensor]


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
    if not _tensors_of(batch):
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
    if not isinstance(optimizer.engine.walk, InPlace):
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
        self._inside: dict[int, Any] = {}  # by room: the batch that was copied into it last
        self._weights: list[int] = []
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
        widens = self._wide and isinstance(batch, Batch)
        wide = batch.widened(self._longest) if widens else batch
        tensors = _tensors_of(wide)
        others = {k: v for k, v in vars(wide).items() if k not in tensors and k != _COUNTED}
        key = (*((n, x.shape, x.dtype) for n, x in tensors.items()), *sorted(others.items()))
        room = self._rooms.get(key)
        if room is None:
            still = replace(wide, **{name: value.clone() for name, value in tensors.items()})
            try:
                loss = self._record(lambda: self._loss(model, still))
            except RuntimeError as error:  # CUDA's are, want of memory included
                self._give_up(error)
                return None
            room = self._rooms[key] = _Room(still, loss)
            if len(self._rooms) > self._most:
                _, gone = self._rooms.popitem(last=False)
                self._inside.pop(id(gone.batch), None)
        elif self._inside.get(id(room.batch)) is not batch:
            for name, value in tensors.items():
                getattr(room.batch, name).copy_(value, non_blocking=True)
        self._inside[id(room.batch)] = batch
        self._rooms.move_to_end(key)
        return room

    def _forget_moved(self, model: nn.Module) -> None:
        """Graphs know weights by their addresses."""
        places = [tensor.data_ptr() for tensor in (*model.parameters(), *model.buffers())]
        if places != self._weights:
            self._rooms.clear()
            self._inside.clear()
            self._weights, self._longest = places, longest_text(model)

    def _give_up(self, error: Exception) -> None:
        """From now on forwards are launched one by one."""
        self._works = False
        self._rooms.clear()
        self._inside.clear()
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
    reason = None if wanted is False else why_not(model, some, optimizer, ranks)
    if wanted is False or (reason and not torch.cuda.is_available() and not wanted):
        return None
    if reason is None:
        device = next(model.parameters()).device
        engine = optimizer.engine if isinstance(optimizer, ZOOptimizer) else None
        return CapturedLoss(loss, engine, recorder_on(device), wide=wide, must=bool(wanted))
    if wanted:
        raise UserError(f"model.capture=true: {reason}; set it to null")
    if isinstance(optimizer, ZOOptimizer) and not optimizer.graph:
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


def _tensors_of(batch: Any) -> dict[str, Tensor]:
    if not is_dataclass(batch):
        return {}
    return {name: value for name, value in vars(batch).items() if isinstance(value, Tensor)}
