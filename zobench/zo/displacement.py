"""In-place displacement: the weights themselves move, in one pass from point to point.

Every pass goes through the clean point: from w + a z to w + b z it adds -a z, then b z, with one
draw. A float32 sum within one binade that is undone by the same number comes back to its bits, so
the weights drift at binade borders only; -2 eps z in one sum would drift at every step. A 16-bit
weight moves together with its remainder, as one float32. 16 bits alone drift at every step, in any
order, as they do in MeZO's code.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from zobench.zo.feedback import Point, Request
from zobench.zo.passes.move import Term, apply_moves
from zobench.zo.planner import Planner
from zobench.zo.samplers.base import Sampler
from zobench.zo.space import Slot


class Displacement(Protocol):
    """Moves the weights to the points at which the loss is evaluated.

    at: where the weights are, relative to the clean point; the update has to undo it. hint: another
    reason than training for a NaN as a run's first loss, which is added to the message.
    """

    at: Point
    hint: str

    def evaluating(self, request: Request) -> AbstractContextManager[None]:
        """A context in which the model computes with w + sum of scale * z(key)."""

    def leave(self) -> None:
        """Back to the clean weights, without an update."""


class InPlace:
    """No copy of the weights: they stay at the last point until the next one or the update."""

    hint = ""

    def __init__(self, slots: Sequence[Slot], sampler: Sampler, planner: Planner) -> None:
        self.slots, self.sampler, self.planner = slots, sampler, planner
        self.at: Point = {}

    @contextmanager
    def evaluating(self, request: Request) -> Iterator[None]:
        self._go_to(request.point)
        yield

    def leave(self) -> None:
        self._go_to({})

    def _go_to(self, point: Point) -> None:
        """Take every slot to the point, through the clean weights, in one pass."""
        target = {key: scale for key, scale in point.items() if scale != 0.0}
        if target == self.at:
            return
        if not self.planner.displace(self.at, target):
            self._one_by_one(target)
        self.at = target

    def _one_by_one(self, target: Point) -> None:
        keys = {**self.at, **target}
        moves = []
        for slot in self.slots:
            drawn = [(k, z) for k in keys if (z := self.sampler.direction(slot, k)) is not None]
            if not drawn:
                continue
            at = {} if slot.restore() else self.at
            if target:
                slot.save_clean()
            terms = [Term(z, -at.get(k, 0.0), target.get(k, 0.0)) for k, z in drawn]
            moves.append(slot.move(terms))
        apply_moves(moves)
