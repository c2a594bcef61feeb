"""State of many slots that a step changes at once: one pass, or one operation, over all of it."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from zobench.zo.directions import Drawn
from zobench.zo.feedback import Key
from zobench.zo.moves import Move, Recipe, Term
from zobench.zo.passes.apply import apply_moves
from zobench.zo.slot_tables import SlotTables
from zobench.zo.space import Slot


class BufferNoise:
    """Adds plain noise to one buffer of many slots, in one pass.

    Args:
        slots: That have the buffer.
        name: Of the buffer.
    """

    def __init__(self, slots: Sequence[Slot], name: str) -> None:
        self.slots, self._name = slots, name
        self._tables = self._made()

    def _made(self) -> SlotTables | None:
        tables = SlotTables.of(self.slots, self._name)
        if tables is not None:
            tables.set_recipes([Recipe()] * len(self.slots))
        return tables

    def add(self, terms: Sequence[tuple[Key, int, float]], decay: float = 1.0) -> None:
        """buffer <- decay * buffer + sum of scale * noise.

        Args:
            terms: Of each noise its key, its stream number, and its scale.
            decay: Factor of the buffer.
        """
        if self._tables is None:
            apply_moves(self._move(slot, terms, decay) for slot in self.slots)
            return
        if self._tables.stale():
            self._tables = self._made()
            self.add(terms, decay)
            return
        written = self._tables.written([key for key, _, _ in terms])
        written.targets["decay"] = decay
        for place, (_, number, scale) in enumerate(terms):
            written.terms["stream"][:, place] = number
            written.terms["first"][:, place] = scale
        self._tables.run(written, displaced=False)

    def _move(self, slot: Slot, terms: Sequence[tuple[Key, int, float]], decay: float) -> Move:
        drawn = [
            Term(Drawn.normal(key, slot.id, number=number), scale) for key, number, scale in terms
        ]
        return slot.move_buffer(self._name, drawn, decay=decay)


class SlotVectors:
    """One vector of each slot, end to end.

    Args:
        slots: On one device.
        name: Of the buffer that shows a slot its vector.
        vectors: Of the slots in their order, in one dtype.

    Attributes:
        slots: As given.
        all: The vectors, end to end.
        lengths: Of the vectors, int64.
    """

    def __init__(self, slots: Sequence[Slot], name: str, vectors: Sequence[Tensor]) -> None:
        self.slots, self._name, self.all = slots, name, torch.cat([*vectors])
        self._sizes = [len(vector) for vector in vectors]
        self._places = {slot.id: place for place, slot in enumerate(slots)}
        self.lengths = torch.tensor(self._sizes, device=self.all.device)
        self._alike = []  # for each length, the places of its slots and of their elements
        elements = torch.arange(len(self.all), device=self.all.device).split(self._sizes)
        for length in sorted({*self._sizes}):
            same = [place for place, own in enumerate(self._sizes) if own == length]
            self._alike.append((same, torch.stack([elements[place] for place in same])))
        self._own = self.all.split(self._sizes)
        for slot, part in zip(slots, self._own, strict=True):
            slot.buffers[name] = part

    def adopt(self) -> None:
        """Take in the slots' buffers, which may have been replaced."""
        for slot, part in zip(self.slots, self._own, strict=True):
            part.copy_(slot.buffers[self._name])
            slot.buffers[self._name] = part

    def by_slot(self, elements: Tensor) -> Mapping[int, Tensor]:
        """Each slot's part of elements, by the slots' ids."""
        return dict(zip(self._places, elements.split(self._sizes), strict=True))

    def spread(self, numbers: Tensor) -> Tensor:
        """A number of each slot at each of its elements."""
        return numbers.repeat_interleave(self.lengths, output_size=len(self.all))

    def sums(self, elements: Tensor) -> Tensor:
        """The sum over each slot's elements."""
        sums = elements.new_empty(len(self.slots))
        for places, index in self._alike:
            sums[places] = elements[index].sum(1)
        return sums

    def among_all(
        self, slots: Sequence[Slot], elements: Tensor, *numbers: Tensor
    ) -> tuple[Tensor, ...]:
        """Elements and numbers of some slots, among zeros for the others."""
        if len(slots) == len(self.slots):
            return elements, *numbers
        places = [self._places[slot.id] for slot in slots]
        every = elements.new_zeros(len(self.all))
        parts = every.split(self._sizes)
        own = [parts[place] for place in places]
        for part, found in zip(own, elements.split([len(part) for part in own]), strict=True):
            part.copy_(found)
        index = torch.tensor(places, device=every.device)
        zeros = [values.new_zeros(len(self.slots)) for values in numbers]
        return every, *(z.index_copy(0, index, v) for z, v in zip(zeros, numbers, strict=True))
