"""The tables of passes over all slots at once, kept from pass to pass.

A pass differs from the one before by keys and a few scales. So the rows are made once, those of the
laws once a step where laws change, and a pass is written into copies of them.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from zobench.zo import noise
from zobench.zo.moves import Move, Recipe, RowSums, StateUpdate
from zobench.zo.passes import fused, gpu, kernel
from zobench.zo.passes.gpu_tables import gpu_tables_from
from zobench.zo.passes.tables import (
    Tables,
    groups_of,
    piece_length,
    pieces_of,
    target_row,
    term_row,
)
from zobench.zo.space import Slot

Places = npt.NDArray[np.intp]


class SlotTables:
    """The rows of the slots' weights, or of one of their buffers.

    Attributes:
        slots: All of them, on one device.
        taking: Places of those that take part in the step.
        recipes: Of the slots that take part.
        scales: Of all slots' recipes.
        clean_copies: Addresses of the slots' clean copies, 0 for those without.
        on_gpu: Whether passes run there.
    """

    def __init__(self, slots: Sequence[Slot], moves: Sequence[Move], buffer: str | None) -> None:
        self.slots, self._buffer = slots, buffer
        self._parameters = [slot.parameter for slot in slots]
        self._device, self.on_gpu = moves[0].target.device, gpu.able(moves[0])
        self._targets = np.array([target_row(move, 0, 0) for move in moves], kernel.TARGET)
        self._numels = [slot.numel for slot in slots]
        self._places = self._addresses()
        copies = [slot.clean_copy if buffer is None else () for slot in slots]
        addresses = [[*(tensor.data_ptr() for tensor in own), 0, 0] for own in copies]
        self.clean_copies, self._clean_remainders = (
            np.array([a[i] for a in addresses]) for i in range(2)
        )
        self._copied = [slot for slot, own in zip(slots, copies, strict=True) if own]
        self._copies = _by_dtype(self._copied)
        self._stated: dict[int, list[int]] = {}
        self._widths: list[int] | None = None

    @classmethod
    def of(cls, slots: Sequence[Slot], buffer: str | None = None) -> "SlotTables | None":
        """The slots' tables; None where no kernel can store all of them."""
        moves = [s.move([]) if buffer is None else s.move_buffer(buffer, []) for s in slots]
        devices = {move.target.device for move in moves}
        able = len(devices) == 1 and all(gpu.able(m) or fused.able(m) for m in moves)
        return cls(slots, moves, buffer) if able else None

    def set_recipes(self, recipes: Sequence[Recipe | None]) -> None:
        """Take the laws of the step; None leaves a slot out."""
        self.taking = np.array([i for i, recipe in enumerate(recipes) if recipe], np.intp)
        self.recipes = [recipe for recipe in recipes if recipe]
        known = [recipe or Recipe() for recipe in recipes]
        rows = [
            term_row(recipe, noise.Stream(0, slot.id, recipe.number), 0.0, 0.0)
            for slot, recipe in zip(self.slots, known, strict=True)
        ]
        self._terms = np.array(rows, kernel.TERM)
        self.scales = np.array([recipe.scale for recipe in known])
        widths = [0 if recipe.row is None else recipe.width for recipe in known]
        if widths != self._widths:
            self._widths, self._widest = widths, max(1, *widths)
            lengths = [piece_length({width} if width else set()) for width in widths]
            self._all_pieces, self._longest = pieces_of(self._numels, lengths)
        if len(self.taking) == len(self.slots):
            self._pieces = self._all_pieces
        else:
            self._pieces = self._all_pieces[np.isin(self._all_pieces["target"], self.taking)]

    def stale(self) -> bool:
        """Whether the tensors have moved to other addresses since."""
        return self._places != self._addresses()

    def _addresses(self) -> list[int]:
        if self._buffer is None:
            return [parameter.data_ptr() for parameter in self._parameters]
        return [slot.buffers[self._buffer].data_ptr() for slot in self.slots]

    def written(self, keys: Sequence[tuple[int, int, int]]) -> Tables:
        """A pass along the keys, from the clean copies where there are some.

        Its terms are a matrix, slot by key, and their scales are 0.
        """
        count, number = len(self.slots), len(keys)
        terms = np.repeat(self._terms, number).reshape(count, number)
        for place, key in enumerate(keys):
            mixed = noise.mix(*key)
            terms["key0"][:, place], terms["key1"][:, place] = mixed & 0xFFFFFFFF, mixed >> 32
        targets = self._targets.copy()
        targets["first_term"] = number * np.arange(count)
        targets["last_term"] = targets["first_term"] + number
        if any(slot.displaced for slot in self._copied):
            for name, clean in (("source", self.clean_copies), ("left", self._clean_remainders)):
                targets[name] = np.where(self.clean_copies != 0, clean, targets[name])
        return Tables(targets, terms, self._pieces, self._longest, self._widest)

    def set_state(
        self, tables: Tables, places: Sequence[int], state: Callable[[Slot], StateUpdate]
    ) -> None:
        """Let some slots' estimates go through their state, whose buffers stay where they are."""
        targets, first, places = tables.targets, state(self.slots[places[0]]), [*places]
        targets["state_update"][places] = first.kernel
        for name, value in zip(kernel.SCALARS, first.scalars, strict=False):
            targets[name][places] = value
        for place in places:
            if place not in self._stated:
                buffers = state(self.slots[place]).buffers
                self._stated[place] = [*(buffer.data_ptr() for buffer in buffers), 0, 0][:2]
        addresses = np.array([self._stated[place] for place in places])
        targets["state0"][places], targets["state1"][places] = addresses.T

    def forget_state(self) -> None:
        """Look the state up again: another rule keeps it."""
        self._stated.clear()

    def save_clean(self) -> None:
        """Copy the clean weights of the slots that are restored by copy."""
        for clean, stored in self._copies:
            torch._foreach_copy_(clean, stored)
        self._set_displaced(True)

    def run(self, tables: Tables, *, displaced: bool) -> None:
        """Run a pass. displaced: whether the weights are displaced after it."""
        tables = tables._replace(terms=tables.terms.reshape(-1))
        if self.on_gpu:
            numels = np.zeros(len(self.slots), np.int64)
            numels[self.taking] = np.array(self._numels)[self.taking]
            gpu.launch(gpu_tables_from(tables, numels.tolist()), self._device)
        else:
            fused.run(tables)
        self._set_displaced(displaced)

    def _set_displaced(self, displaced: bool) -> None:
        for slot in self._copied:
            slot.displaced = displaced


class Sums:
    """Sums over the directions of an update, taken while its pass draws them.

    Args:
        slots: That take part, in order.
        widths: Lengths of their rows.
        weights: Of the directions, in the pass's order.

    Attributes:
        parts: Of each slot, in groups (see `RowSums`).
    """

    def __init__(
        self, slots: Sequence[Slot], widths: Sequence[int], weights: Sequence[float]
    ) -> None:
        self._groups = [groups_of(slot.numel) for slot in slots]
        sizes = [count * width for count, width in zip(self._groups, widths, strict=True)]
        self._outer = torch.zeros(sum(sizes), dtype=torch.float64)
        self._energy = torch.zeros(sum(self._groups), dtype=torch.float64)
        outer, energy = self._outer.split(sizes), self._energy.split(self._groups)
        each = zip(outer, energy, widths, strict=True)
        self.parts = [RowSums(weights, o.view(-1, width), e) for o, e, width in each]

    def write(self, tables: Tables, places: Places) -> None:
        """Have a pass take them."""
        tables.terms["sum_weight"][places] = self.parts[0].weights
        tables.targets["outer"][places] = [part.outer.data_ptr() for part in self.parts]
        tables.targets["energy"][places] = [part.energy.data_ptr() for part in self.parts]

    def outer(self) -> Tensor:
        """The slots' sums of weight <u, a> u, end to end."""
        if max(self._groups) == 1:
            return self._outer
        return torch.cat([part.outer.sum(0) for part in self.parts])

    def energy(self) -> Tensor:
        """The slots' sums of weight <u, a>^2, or of weight z^2 where there are no rows."""
        if max(self._groups) == 1:
            return self._energy
        return torch.stack([part.energy.sum() for part in self.parts])


def _by_dtype(copied: Sequence[Slot]) -> list[tuple[list[Tensor], list[Tensor]]]:
    """The slots' clean copies and stored weights, as lists of one dtype each."""
    pairs = [pair for slot in copied for pair in zip(slot.clean_copy, slot.stored, strict=True)]
    alike = [[p for p in pairs if p[0].dtype == dtype] for dtype in {p[0].dtype for p in pairs}]
    return [([clean for clean, _ in own], [stored for _, stored in own]) for own in alike]
