"""Copies of slots on the device, which are displaced there in the slots' place."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from torch import Tensor

from zobench.offload.uploads import Pair
from zobench.zo.feedback import Point
from zobench.zo.plan import Plan
from zobench.zo.samplers.base import Sampler
from zobench.zo.space import Slot


class Twins:
    """Some slots and their copies.

    The noise of a twin is its slot's, and so is the arithmetic: a walk on the device ends at the
    bits at which it ends in main memory.

    Args:
        slots: In main memory, or wherever the optimizer has them.
        weights: Of each slot, its copy.
        remainders: Of each slot, the copy of its remainder; None for slots without.
        sampler: The law of z, which is plain noise.
    """

    def __init__(
        self,
        slots: Sequence[Slot],
        weights: Sequence[Tensor],
        remainders: Sequence[Tensor | None],
        sampler: Sampler,
    ) -> None:
        self.slots = slots
        each = zip(slots, weights, remainders, strict=True)
        self.twins = [
            Slot(slot.name, w, slot.id, rounding=replace(slot.rounding, remainder=left))
            for slot, w, left in each
        ]
        self._sampler = sampler
        self._plan = Plan(self.twins, sampler)

    def pairs(self) -> Iterator[Pair]:
        """What holds the weights, on the device and in the slots."""
        for twin, slot in zip(self.twins, self.slots, strict=True):
            yield from zip(twin.stored, slot.stored, strict=True)

    def begin(self, at: Point) -> None:
        """Begin a walk at the point where the slots are; the weights are copied by the caller.

        Clean vectors are saved in the slots, too, which will be restored from there.
        """
        self._displaced = [slot.displaced for slot in self.slots]
        for twin, slot in zip(self.twins, self.slots, strict=True):
            twin.displaced = slot.displaced
            if not slot.displaced:
                slot.save_clean()
                continue
            for mine, its in zip(twin.clean_copy, slot.clean_copy, strict=True):
                mine.copy_(its)
        self._plan.at = at

    def go_to(self, point: Point) -> None:
        """Take the twins to the point."""
        if self.twins:
            self._plan.go_to(point)

    def end(self) -> None:
        """The slots have what the twins have."""
        for twin, slot in zip(self.twins, self.slots, strict=True):
            slot.displaced = twin.displaced

    def abandon(self) -> None:
        """The slots are as they were when the walk began."""
        for slot, displaced in zip(self.slots, self._displaced, strict=True):
            slot.displaced = displaced

    def take_back(self, last: Point, first: Point) -> None:
        """Take the slots themselves from the end of a walk to its beginning."""
        if self.slots:
            plan = Plan(self.slots, self._sampler)
            plan.at = last
            plan.go_to(first)
