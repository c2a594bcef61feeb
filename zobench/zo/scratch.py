"""Displacement in a scratch buffer, for stochastic rounding: the weights stay clean.

16-bit weights without remainders cannot be displaced and restored exactly: copies are displaced.

While a point is evaluated, a hook gives each module displaced copies of its own tensors in a
scratch buffer, which is free again when the module returns: the memory of the largest module.
Modules that hold vectors only, such as normalisations, compute in float32 where the weights have 16
bits, since most elements near 1 would not move at all in 16 bits. Between modules the parameters
are NaN: a model that reads a tensor outside its own module's forward gets no loss, instead of the
loss of clean weights.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)

from zobench.zo.feedback import Point, Request
from zobench.zo.moves import Move, Term
from zobench.zo.passes.apply import apply_moves
from zobench.zo.plan import Plan
from zobench.zo.space import Slot

_ALIGNED = 64  # bytes: where a tensor may begin


class Scratch:
    """Evaluates around the clean weights; the hooks are registered during evaluations only."""

    hint = (
        "; if the model reads a tensor outside its own module's forward, it needs"
        " arithmetic.walk=inplace"
    )

    def __init__(self, plan: Plan) -> None:
        self.slots, self.sampler = plan.slots, plan.sampler
        self._by_parameter = {id(slot.parameter): slot for slot in self.slots}
        self._owned: WeakKeyDictionary[nn.Module, list[Slot]] = WeakKeyDictionary()
        self._room = _ScratchBuffer()
        self._clean: dict[int, Tensor] = {}
        self._terms: dict[int, list[Term]] = {}
        self._open: list[_Inside] = []

    @contextmanager
    def evaluating(self, request: Request) -> Iterator[None]:
        if request.along is not None:  # forward mode puts its tangents on the weights themselves
            yield
            return
        # before the weights are hidden: a sampler may look at them
        self._terms = {slot.id: self._terms_of(slot, request.point) for slot in self.slots}
        self._clean = {slot.id: slot.parameter.data for slot in self.slots}
        hooks = [
            register_module_forward_pre_hook(self._enter),  # type: ignore[arg-type]
            register_module_forward_hook(self._leave, always_call=True),
        ]
        try:
            for slot in self.slots:
                slot.parameter.data = _nowhere(slot.parameter.data)
            yield
        finally:
            for hook in hooks:
                hook.remove()
            for slot in self.slots:
                slot.parameter.data = self._clean[slot.id]
            self._open.clear()
            self._room.used = 0

    @property
    def room_bytes(self) -> int:
        """Of the scratch buffers."""
        return self._room.bytes

    def leave(self) -> None:
        """The weights are clean already."""

    def _terms_of(self, slot: Slot, point: Point) -> list[Term]:
        drawn = [(self.sampler.direction(slot, key), scale) for key, scale in point.items()]
        return [Term(z, scale) for z, scale in drawn if z is not None and scale != 0.0]

    def _slots_of(self, module: nn.Module) -> list[Slot]:
        if module not in self._owned:
            own = [p for p in module._parameters.values() if p is not None]
            slots = [self._by_parameter.get(id(p)) for p in own]
            self._owned[module] = [slot for slot in slots if slot is not None]
        return self._owned[module]

    def _enter(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        slots = self._slots_of(module)
        if not slots:
            return None
        half = _half_inputs(inputs) if _of_vectors(module, slots) else None
        self._open.append(_Inside(self._room.used, half))
        rows = _rows_read(module, inputs)
        self._displace(slots, None if half is None else torch.float32, rows)
        return None if half is None else tuple(x.float() if _is_half(x) else x for x in inputs)

    def _displace(
        self, slots: Sequence[Slot], dtype: torch.dtype | None, rows: Tensor | None
    ) -> None:
        """Give the slots displaced copies. dtype: of the copies; rows: those that are needed."""
        moves = []
        for slot in slots:
            terms, clean = self._terms[slot.id], self._clean[slot.id]
            if not terms and dtype is None:
                slot.parameter.data = clean
                continue
            flat, copy = clean.view(-1), self._copy(slot, dtype)
            moves.append(Move(flat, slot.row, terms, out=copy, rows=rows))
        apply_moves(moves)

    def _copy(self, slot: Slot, dtype: torch.dtype | None) -> Tensor:
        """Room for the slot's weights, which it has from now on; flat."""
        clean = self._clean[slot.id]
        copy = self._room.take(clean.numel(), dtype or clean.dtype, clean.device)
        slot.parameter.data = copy.view(clean.shape)
        return copy

    def _leave(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
        del inputs
        slots = self._slots_of(module)
        if not slots or not self._open:
            return None
        inside = self._open.pop()
        self._room.used = inside.room_before
        for slot in slots:
            slot.parameter.data = _nowhere(self._clean[slot.id])
        return output if inside.half is None else output.to(inside.half)


class _Inside(NamedTuple):
    """A module in its forward: the room used before it, and what it was widened from, if it was."""

    room_before: int
    half: torch.dtype | None


def _nowhere(like: Tensor) -> Tensor:
    """NaN of a tensor's shape and dtype, in no memory."""
    return _nan(like.dtype, like.device).expand(like.shape)


@cache
def _nan(dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.full((), float("nan"), dtype=dtype, device=device)


def _is_half(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and value.dtype.itemsize == 2


def _half_inputs(inputs: tuple[Any, ...]) -> torch.dtype | None:
    return next((x.dtype for x in inputs if _is_half(x)), None)


def _of_vectors(module: nn.Module, slots: Sequence[Slot]) -> bool:
    """Whether the module is nothing but the slots, and those are vectors."""
    own = [p for p in module._parameters.values() if p is not None]
    lonely = len(own) == len(slots) and not module._modules
    return lonely and all(p.dim() <= 1 for p in own)


def _rows_read(module: nn.Module, inputs: tuple[Any, ...]) -> Tensor | None:
    """The rows of an embedding that its input reads; None where all may be needed.

    On a GPU some may be listed twice: removing duplicates would wait for the device.
    """
    if type(module) is not nn.Embedding or module.max_norm is not None or not inputs:
        return None
    if inputs[0].device.type == "cpu":
        return torch.unique(inputs[0])
    return inputs[0].long().reshape(-1) if inputs[0].numel() < module.num_embeddings else None


class _ScratchBuffer:
    """A stack of tensors in one buffer per device, which grows to the largest size needed."""

    def __init__(self) -> None:
        self.used = 0
        self._rooms: dict[torch.device, Tensor] = {}

    @property
    def bytes(self) -> int:
        return sum(room.numel() for room in self._rooms.values())

    def take(self, numel: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        start = -(-self.used // _ALIGNED) * _ALIGNED
        stop = start + numel * dtype.itemsize
        room = self._rooms.get(device)
        if room is None or room.numel() < stop:
            room = torch.empty(stop, dtype=torch.uint8, device=device)
            self._rooms[device] = room  # what is in use keeps the old one alive
        self.used = stop
        return room[start:stop].view(dtype)
