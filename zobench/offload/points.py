"""The loss at several points, with each layer uploaded once.

All points of a call go through the model together. A layer is uploaded, displaced to the first
point and evaluated there, displaced to the next point and evaluated there, and so on; then the next
layer. What a layer is at the last point is copied back, so that the optimizer finds the weights
where its own walk would have left them, to the bit, and updates them in main memory.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from zobench.errors import UserError
from zobench.offload.blocks import tensors_of
from zobench.offload.model import Offload, in_main_memory
from zobench.offload.side import Side
from zobench.offload.twins import Twins
from zobench.offload.uploads import views_in_turn
from zobench.offload.visit import Visit
from zobench.zo.arithmetic import REMAINDER
from zobench.zo.engine import Engine
from zobench.zo.feedback import Point
from zobench.zo.space import Slot


class OffloadedPoints:
    """Evaluates the points of an optimizer's steps on an offloaded model.

    Takes, on the device, the remainders of three layers, and a copy of all weights outside of the
    layers that train, for each point and one more.

    Args:
        offload: The model's, which has been placed.
        engine: Of the optimizer over this model.
    """

    def __init__(self, offload: Offload, engine: Engine) -> None:
        self._offload, self._plan = offload, engine.plan
        own = {id(slot.parameter): slot for slot in engine.slots}
        tensors = [tensors_of(block) for block in offload.blocks]
        places = [[i for i, t in enumerate(block) if id(t) in own] for block in tensors]
        slots = [
            [own.pop(id(block[i])) for i in trained]
            for block, trained in zip(tensors, places, strict=True)
        ]
        for slot in (slot for block in slots for slot in block):
            _pin(slot, offload.device)
        lefts = [
            [left for slot in block if (left := slot.rounding.remainder) is not None]
            for block in slots
        ]
        there = views_in_turn(lefts, offload.device)
        self._more = [[*zip(*both, strict=True)] for both in zip(there, lefts, strict=True)]
        self._blocks = []
        for number, block in enumerate(slots):
            copies = [offload.uploads.copies[number][i] for i in places[number]]
            rest = iter(there[number])
            remainders = [None if s.rounding.remainder is None else next(rest) for s in block]
            self._blocks.append(Twins(block, copies, remainders, engine.sampler))
        outer = [*own.values()]
        copies = [torch.empty_like(slot.parameter) for slot in outer]
        kept = [slot.rounding.remainder for slot in outer]
        remainders = [None if left is None else torch.empty_like(left) for left in kept]
        self._outer = Twins(outer, copies, remainders, engine.sampler)

    @torch.no_grad()
    def values(self, loss: Callable[[], Any], points: Sequence[Point]) -> list[Any]:
        """What the closure returns at each point; the weights are left at the last one.

        Args:
            loss: The closure; it calls each layer once.
            points: Where to evaluate, in this order.

        Raises:
            UserError: The closure does not call each layer once.
        """
        start = self._plan.at
        last = {key: scale for key, scale in points[-1].items() if scale != 0.0}
        uploads, device = self._offload.uploads, self._offload.device
        visits: list[Visit[Any]] = [Visit(loss, device) for _ in points]
        visited: list[int] = []
        uploads.forget()
        uploads.more = self._more
        try:
            self._outer.begin(start)
            sides = self._sides(points)
            place = self._onward(visits, sides)
            while place is not None:
                if place in visited:
                    raise _not_once(self._offload, place, "twice")
                block = self._blocks[place]
                block.begin(start)
                try:
                    uploads.take(place)
                    following = self._onward(visits, sides, block, points)
                except BaseException:
                    block.abandon()
                    uploads.hide(place)
                    uploads.release(place)
                    raise
                uploads.hide(place)
                uploads.release(place, block.pairs())
                block.end()
                visited.append(place)
                place = following
            if missing := {*range(len(self._blocks))} - {*visited}:
                raise _not_once(self._offload, min(missing), "never")
        except BaseException:
            for visit in visits:
                visit.close()
            self._outer.abandon()
            uploads.finish()
            for number in visited:
                self._blocks[number].take_back(last, start)
            raise
        finally:
            self._offload.visit = None
            uploads.more = ()
            uploads.finish()
        for there, here in self._outer.pairs():
            here.copy_(there)
        self._outer.end()
        self._plan.at = last
        return [visit.values[0] for visit in visits]

    def _sides(self, points: Sequence[Point]) -> list[Side]:
        """Of each point, what is outside of the layers."""
        for there, here in self._outer.pairs():
            there.copy_(here)
        parameters = [slot.parameter for slot in self._outer.slots]
        sides = []
        for point in points:
            self._outer.go_to(point)
            weights = [twin.parameter.clone() for twin in self._outer.twins]
            sides.append(Side(self._offload.outside, parameters, weights))
        return sides

    def _onward(
        self,
        visits: Sequence[Visit[Any]],
        sides: Sequence[Side],
        block: Twins | None = None,
        points: Sequence[Point] = (),
    ) -> int | None:
        """Take all visits through a block, to the next one; returns its number, None at the end."""
        places = set()
        for number, (visit, side) in enumerate(zip(visits, sides, strict=True)):
            if block is not None:
                block.go_to(points[number])
            with side:
                self._offload.visit = visit
                places.add(visit.resume())
        if len(places) > 1:
            raise UserError(
                "model.offload=cpu: the model does not take the same layers at each point; set it"
                " to null"
            )
        return places.pop()


def _pin(slot: Slot, device: torch.device) -> None:
    """Let the remainder be uploaded while the device computes."""
    if (left := slot.rounding.remainder) is not None:
        slot.buffers[REMAINDER] = in_main_memory(left, device)
        slot.rounding = replace(slot.rounding, remainder=slot.buffers[REMAINDER])


def _not_once(offload: Offload, number: int, times: str) -> UserError:
    kind = type(offload.blocks[number]).__name__
    return UserError(
        f"model.offload=cpu: a loss calls layer {number} ({kind}) {times}, and each has to be"
        " called once; set it to null"
    )
