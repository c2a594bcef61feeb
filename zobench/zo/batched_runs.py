"""Several runs in one process: their points are evaluated in one call, as rows of one batch.

Each run is an optimizer of its own over copies of the trained weights; the frozen model is shared.
The runs step together: the points that all estimators request are evaluated by one vmapped call
(`zobench.zo.batched_points`), each with the batch of its run, until every step has its losses.
Noise, state and the order of evaluations are those of the run alone, and so are losses but for
the rounding of a batched matrix product.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from functools import partial
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from zobench.zo.batched_points import BatchedPoints, copying
from zobench.zo.engine import Diverged
from zobench.zo.feedback import Request
from zobench.zo.forward_mode import loss_and_slope
from zobench.zo.moves import Move
from zobench.zo.optimizer import ZOOptimizer
from zobench.zo.passes.apply import apply_moves
from zobench.zo.samplers.base import ReplayClass
from zobench.zo.space import slots_of

Batch = TypeVar("Batch")
Tensors = Mapping[str, Tensor]
# For the batches of some rows: their tensors, one row of them per batch, and the loss of a row.
Losses = Callable[[Sequence[Batch]], tuple[Tensors, Callable[[Tensors], Tensor]]]


class RequestRow(NamedTuple, Generic[Batch]):
    """A request of one member, and the batch that it is about."""

    member: int
    request: Request
    batch: Batch


def copies_of(model: nn.Module, device: torch.device | None = None) -> dict[str, nn.Parameter]:
    """Copies of what the model trains, by its names: the weights of one of the batched runs.

    device: theirs; that of each tensor unless given.
    """
    trained = [(name, p.detach()) for name, p in model.named_parameters() if p.requires_grad]
    return {name: nn.Parameter(p.to(device or p.device, copy=True)) for name, p in trained}


class BatchedRuns(Generic[Batch]):
    """Optimizers over `copies_of` one model, which stays as it is.

    most: rows of one call, at least 2. A member's points are evaluated from clean weights, as with
    `pack=most` alone. Raises ValueError for a member over other names or shapes, one that watches
    activations, and copies that would outweigh the model.
    """

    def __init__(self, model: nn.Module, members: Sequence[ZOOptimizer], most: int) -> None:
        if most < 2:
            raise ValueError(f"pack={most}: a batch of runs evaluates at least 2 points at a time")
        slots = slots_of(model.named_parameters())
        self.members, self.most = members, most
        self._model, self._batched = model, BatchedPoints(model, slots, most)
        shapes = [(slot.name, slot.parameter.shape, slot.parameter.dtype) for slot in slots]
        for member in members:
            engine = member.engine
            own = [(slot.name, slot.parameter.shape, slot.parameter.dtype) for slot in engine.slots]
            if own != shapes:
                raise ValueError(
                    "the batched runs must train copies of the same tensors of the model"
                )
            if engine.sampler.replay_class is ReplayClass.DATA:
                raise ValueError(
                    f"sampler {type(engine.sampler).__name__} watches the activations of a forward"
                    " of its own, which batched runs do not make"
                )
            if member.estimator.by_example:
                raise ValueError(
                    f"estimator {type(member.estimator).__name__} needs the loss of each example,"
                    " and batched runs have one for the batch"
                )
            engine.pack = most

    @torch.no_grad()
    def step(
        self,
        batches: Mapping[int, Batch],
        losses: Losses[Batch],
        anchor: Callable[[int, int], Batch] | None = None,
    ) -> dict[int, float | Diverged]:
        """One step of each member that has a batch: its loss, or why it made no step.

        losses: stacks the batches of at most `most` rows, and returns the loss of a row. anchor:
        (member, n) gives the member's n-th batch of the training set, for estimators that evaluate
        other batches than the step's. All weights are clean after it, also when it raises.
        """
        steps = {n: self.members[n].stepping() for n in batches}
        values: dict[int, Sequence[float] | None] = dict.fromkeys(batches)
        ends: dict[int, float | Diverged] = {}
        with ExitStack() as stack:
            for step in steps.values():
                stack.enter_context(closing(step))
            while values:
                rows: list[RequestRow[Batch]] = []
                for n, losses_of_n in values.items():
                    try:
                        requests = steps[n].send(losses_of_n)  # type: ignore[arg-type]
                    except StopIteration as stop:
                        ends[n] = stop.value
                    except Diverged as error:
                        ends[n] = error
                    else:
                        rows += [
                            RequestRow(n, r, self._batch(n, r, batches, anchor)) for r in requests
                        ]
                values = self._evaluate(rows, losses)
        return {n: ends[n] for n in batches}

    def _batch(
        self,
        member: int,
        request: Request,
        batches: Mapping[int, Batch],
        anchor: Callable[[int, int], Batch] | None,
    ) -> Batch:
        if request.batch is None:
            return batches[member]
        if anchor is None:
            raise ValueError(
                f"estimator {type(self.members[member].estimator).__name__} evaluates other batches"
                " than the step's: call step(batches, losses, anchor)"
            )
        return anchor(member, request.batch)

    def _evaluate(
        self, rows: Sequence[RequestRow[Batch]], losses: Losses[Batch]
    ) -> dict[int, Sequence[float] | None]:
        """The losses of each member, in the order of its requests."""
        values: dict[int, list[float]] = {row.member: [] for row in rows}
        together = [row for row in rows if row.request.along is None]
        for at in range(0, len(together), self.most):
            group = together[at : at + self.most]
            inputs, loss = losses([row.batch for row in group])
            found = self._batched.evaluated(loss, self._stacks(group), len(group), inputs)
            for row, value in zip(group, found, strict=True):
                values[row.member].append(value)
        for row in rows:
            if row.request.along is not None:
                values[row.member] += self._slope(row, losses)
        return dict(values)

    def _stacks(self, rows: Sequence[RequestRow[Batch]]) -> list[Tensor]:
        """Of each slot the weights of every row, all made in one pass."""
        points: dict[int, list[int]] = {}
        for place, row in enumerate(rows):
            points.setdefault(row.member, []).append(place)
        stacks: list[Tensor] = []
        moves: list[Move] = []
        for number, slot in enumerate(self._batched.slots):
            like = slot.parameter.detach()
            stack = like.new_empty((len(rows), *like.shape))
            for member, places in points.items():
                engine = self.members[member].engine
                at = [rows[place].request.point for place in places]
                copies = (stack[place] for place in places)
                moves += copying(engine.slots[number], engine.sampler, at, copies)
            stacks.append(stack)
        apply_moves(moves)
        return stacks

    def _slope(self, row: RequestRow[Batch], losses: Losses[Batch]) -> tuple[float, float]:
        """Loss and slope of a request `along`, which is evaluated by itself."""
        engine = self.members[row.member].engine
        inputs, loss = losses([row.batch])
        weights = [slot.parameter for slot in engine.slots]
        one = {name: stack[0] for name, stack in inputs.items()}
        assert row.request.along is not None
        return loss_and_slope(
            partial(self._batched.with_weights, weights, partial(loss, one)),
            engine.slots,
            engine.sampler,
            row.request.along,
        )
