"""The rows of a fused pass's tables for all slots that take part in a step's directions."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from zobench.zo import noise
from zobench.zo.directions import Direction, Recipe
from zobench.zo.feedback import Key
from zobench.zo.passes import fused, gpu, kernel
from zobench.zo.passes.gpu_tables import gpu_tables_from
from zobench.zo.passes.move import Move
from zobench.zo.passes.storage import NEAREST
from zobench.zo.passes.tables import (
    DTYPES,
    Table,
    Tables,
    piece_length,
    pieces_of,
    target_row,
    term_row,
)
from zobench.zo.samplers.base import Sampler
from zobench.zo.space import Slot


class Plan:
    """Rows by slot; passes are written into copies of them.

    scales: of the recipes. clean_copies: addresses of the slots' clean copies, 0 for those without.
    copied: slots with such. kinds: the places of slots that a rule treats alike.
    """

    def __init__(self, slots: Sequence[Slot], recipes: Sequence[Recipe]) -> None:
        self.slots, self._device = slots, slots[0].parameter.device
        self.on_gpu = gpu.able(slots[0].move([]))
        self._alive: list[Any] = [*recipes]  # what the tables point to
        self._terms = np.array([term_row(r, 0.0, 0.0) for r in recipes], kernel.TERM)
        self._targets = np.array([target_row(s.move([]), 0, 0) for s in slots], kernel.TARGET)
        widths = [{r.width} if r.row is not None else set() for r in recipes]
        self._lengths = [piece_length(w) for w in widths]
        self._pieces, self._longest = pieces_of([slot.numel for slot in slots], self._lengths)
        self._widest = max((w for own in widths for w in own), default=1)
        self._places = self._addresses()
        self._parts: dict[tuple[int, ...], tuple[Table, int]] = {}
        self.places = {slot.id: place for place, slot in enumerate(slots)}
        self.scales = np.array([r.scale for r in recipes])
        addresses = [[t.data_ptr() for t in slot.clean_copy] + [0, 0] for slot in slots]
        self.clean_copies, self._clean_remainders = (
            np.array([a[i] for a in addresses]) for i in range(2)
        )
        self.copied = [slot for slot in slots if slot.clean_copy]
        self._copies = _by_dtype(self.copied)
        kind = [(slot.parameter.dim() <= 1, not slot.clean_copy) for slot in slots]
        ordered = sorted(range(len(slots)), key=lambda i: kind[i])
        self.kinds = [np.array([*same]) for _, same in groupby(ordered, lambda i: kind[i])]

    @classmethod
    def of(cls, slots: Sequence[Slot], sampler: Sampler, key: Key) -> "Plan | None":
        """The plan of a step's law; None where a fused pass cannot draw or store its directions.

        Raises ValueError for a sampler that is declared steady and uses other keys in its noise.
        """
        drawn = [(slot, z) for slot in slots if (z := sampler.direction(slot, key)) is not None]
        recipes = [z.recipe for _, z in drawn if z.recipe is not None]
        able = {_back_end(slot) for slot, _ in drawn}
        if len(recipes) < max(1, len(drawn)) or len(able) > 1 or None in able:
            return None
        if any(r.stream and r.stream.key != noise.mix(*key) for r in recipes):
            raise ValueError(f"{type(sampler).__name__}.steady: its noise has a key of its own")
        return cls([slot for slot, _ in drawn], recipes)

    def stale(self) -> bool:
        """Whether the weights have moved to other addresses since."""
        return self._places != self._addresses()

    def _addresses(self) -> list[int]:
        return [slot.parameter.data_ptr() for slot in self.slots]

    def tables(self, keys: Sequence[Key]) -> Tables:
        """A pass along the keys, from the clean copies where there are some.

        Its terms are ordered by (slot, key), and their scales are 0.
        """
        count, number = len(self.slots), len(keys)
        terms = np.repeat(self._terms, number).reshape(count, number)
        for place, key in enumerate(keys):
            mixed = noise.mix(*key)
            terms["key0"][:, place], terms["key1"][:, place] = mixed & 0xFFFFFFFF, mixed >> 32
        targets = self._targets.copy()
        targets["first_term"] = number * np.arange(count)
        targets["last_term"] = targets["first_term"] + number
        if any(slot.displaced for slot in self.copied):
            for name, clean in (("source", self.clean_copies), ("left", self._clean_remainders)):
                targets[name] = np.where(self.clean_copies != 0, clean, targets[name])
        return Tables(targets, terms, self._pieces, self._longest, self._widest)

    def part(
        self, tables: Tables, places: tuple[int, ...], out: Sequence[Tensor], rows: Tensor | None
    ) -> Tables:
        """The pass over a few slots alone, from where they are into other tensors.

        rows: those of each slot that are needed there; more may be written.
        """
        targets = tables.targets[[*places]]
        targets["address"] = [tensor.data_ptr() for tensor in out]
        targets["out_dtype"] = [DTYPES[tensor.dtype] for tensor in out]
        targets["rounding"] = NEAREST
        numels = [self.slots[place].numel for place in places]
        if rows is not None and self._widest == 1:
            lengths = [self.slots[place].row for place in places]
            pieces, longest = pieces_of(numels, lengths, [rows.numpy()] * len(places))
        else:
            if places not in self._parts:
                self._parts[places] = pieces_of(numels, [self._lengths[p] for p in places])
            pieces, longest = self._parts[places]
        return tables._replace(targets=targets, pieces=pieces, longest=longest)

    def add_state(self, moves: Sequence[Move]) -> None:
        """Take in the state that the slots' updates go through."""
        self._state = np.array([target_row(move, 0, 0) for move in moves], kernel.TARGET)
        self._alive += [move.state_update for move in moves]

    def write(
        self, tables: Tables, kind: npt.NDArray[np.intp], move: Move, drawn: Sequence[Direction]
    ) -> None:
        """Update the slots of a kind as one of them. drawn: its directions, in the keys' order."""
        one = np.array([target_row(move, 0, 0)], kernel.TARGET)[0]
        for name in ("decay", *kernel.SCALARS):
            tables.targets[name][kind] = one[name]
        for name in ("state_update", "state0", "state1"):
            tables.targets[name][kind] = self._state[name][kind]
        places = {id(direction): place for place, direction in enumerate(drawn)}
        for term in move.terms:
            place = places[id(term.direction)]
            tables.terms["first"][kind, place] = term.first * self.scales[kind]
            tables.terms["second"][kind, place] = term.second * self.scales[kind]

    def save_clean(self) -> None:
        """Copy the clean weights of the slots that are restored by copy."""
        for clean, stored in self._copies:
            torch._foreach_copy_(clean, stored)
        self._set_displaced(True)

    def run(self, tables: Tables, *, displaced: bool) -> None:
        """Run a pass. displaced: whether the weights are displaced after it."""
        tables = tables._replace(terms=tables.terms.reshape(-1))
        if self.on_gpu:
            gpu.launch(gpu_tables_from(tables, [slot.numel for slot in self.slots]), self._device)
        else:
            fused.run(tables)
        self._set_displaced(displaced)

    def _set_displaced(self, displaced: bool) -> None:
        for slot in self.copied:
            slot.displaced = displaced


def _by_dtype(copied: Sequence[Slot]) -> list[tuple[list[Tensor], list[Tensor]]]:
    """The slots' clean copies and stored weights, as lists of one dtype each."""
    pairs = [pair for slot in copied for pair in zip(slot.clean_copy, slot.stored, strict=True)]
    alike = [[p for p in pairs if p[0].dtype == dtype] for dtype in {p[0].dtype for p in pairs}]
    return [([clean for clean, _ in own], [stored for _, stored in own]) for own in alike]


def _back_end(slot: Slot) -> torch.device | None:
    """Where a fused pass can store the slot's weights."""
    move = slot.move([])
    return slot.parameter.device if gpu.able(move) or fused.able(move) else None
