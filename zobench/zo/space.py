"""The trainable tensors ("slots"), and the moves of their weights and state.

Weights stored in 16 bits are moved with float32 arithmetic: a pass widens a block, moves it, and
rounds the result once, by the slot's rounding.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import pad

from zobench.zo.moves import Direction, Move, StateUpdate, Term
from zobench.zo.noise import tensor_id
from zobench.zo.passes.apply import BLOCK, edit, spans
from zobench.zo.passes.tables import PIECE, groups_of
from zobench.zo.rounding import NEAREST, Rounding


@dataclass(eq=False)
class Slot:
    """One trainable tensor, its id in the noise stream and its named state buffers.

    Attributes:
        name: The parameter's name in the model.
        parameter: The tensor; contiguous, of any float dtype.
        id: 32-bit hash of the name, which names the tensor's noise.
        buffers: State vectors by name, by default with one element per weight.
        coordinates_shape: Shape of z's coordinates, where a sampler has such.
        rounding: How 16-bit weights are rounded.
        displaced: True while the weights are displaced and `clean_copy` has the clean ones.
    """

    name: str
    parameter: Tensor
    id: int
    buffers: dict[str, Tensor] = field(default_factory=dict)
    coordinates_shape: tuple[int, ...] | None = None
    rounding: Rounding = NEAREST
    displaced: bool = False

    @property
    def numel(self) -> int:
        return self.parameter.numel()

    @property
    def state_dtype(self) -> torch.dtype:
        """What state is kept in: float32, or float64 for float64 weights."""
        return torch.promote_types(self.parameter.dtype, torch.float32)

    @property
    def state_itemsize(self) -> int:
        return self.state_dtype.itemsize

    @property
    def flat(self) -> Tensor:
        """The weights as a flat view: writing to it moves the model."""
        return self.parameter.data.view(-1)

    def buffer(self, name: str, dtype: torch.dtype | None = None) -> Tensor:
        """The state vector of that name; zeros at its first use.

        Args:
            name: Any name; parts of one method should not share it by accident.
            dtype: `state_dtype` unless given.

        Returns:
            A vector of `numel` elements on the parameter's device.
        """
        if name not in self.buffers:
            dtype = dtype or self.state_dtype
            self.buffers[name] = torch.zeros(self.numel, dtype=dtype, device=self.parameter.device)
        return self.buffers[name]

    def take_buffers(self, saved: Mapping[str, Tensor]) -> None:
        """Hold copies of the saved state vectors and no others.

        An existing one is overwritten in place, since others may hold it, too.
        """
        for name in self.buffers.keys() - saved.keys():
            del self.buffers[name]
        for name, value in saved.items():
            mine = self.buffers.get(name)
            if mine is not None and (mine.shape, mine.dtype) == (value.shape, value.dtype):
                mine.copy_(value)
            else:
                self.buffers[name] = value.to(self.parameter.device, copy=True)

    @property
    def row(self) -> int:
        """Elements of a matrix's row; 1 for a vector."""
        return self.numel // self.parameter.shape[0] if self.parameter.dim() > 1 else 1

    def spans(self) -> Iterator[tuple[int, int]]:
        """(start, stop) of consecutive blocks of the flat tensor, cut between rows."""
        return spans(self.numel, self.row)

    def edit(self) -> Iterator[tuple[int, Tensor]]:
        """(start, weights) per block; changes made in place are stored when the loop goes on."""
        return edit(self.flat, self.row, self.rounding)

    def square_norm(self, direction: Direction) -> float:
        """||z||^2 of a direction over the slot, in float64, in the order in which a pass sums it.

        Args:
            direction: A direction of this slot.

        Returns:
            The sum of squares.
        """
        pieces = []
        for start in range(0, self.numel, BLOCK):
            count = min(BLOCK, self.numel - start)
            z = direction.draw(start, count, self.parameter.device).double().square()
            lanes = pad(z, (0, -count % PIECE)).view(-1, PIECE // 128, 128)
            sums = torch.zeros_like(lanes[:, 0])
            for lane in lanes.unbind(1):
                sums.add_(lane)
            while sums.shape[1] > 1:
                sums = sums[:, : sums.shape[1] // 2] + sums[:, sums.shape[1] // 2 :]
            pieces.append(sums.view(-1))
        energies, groups = torch.cat(pieces).cpu(), groups_of(self.numel)
        group = torch.arange(len(energies)) * groups // len(energies)
        # cumsum adds one after another, as the pass does
        totals = [float(energies[group == g].cumsum(0)[-1]) for g in range(groups)]
        return float(torch.tensor(totals, dtype=torch.float64).sum())

    def restore(self) -> bool:
        """Copy a displaced vector back; False for a slot whose way back is part of the pass."""
        if not self.displaced:
            return False
        for mine, clean in zip(self.stored, self.clean_copy, strict=True):
            mine.copy_(clean)
        self.displaced = False
        return True

    def save_clean(self) -> None:
        """Copy the clean weights of a slot that is restored by copy; call it before they move."""
        if self.clean_copy:
            for mine, clean in zip(self.stored, self.clean_copy, strict=True):
                clean.copy_(mine)
            self.displaced = True

    @property
    def stored(self) -> tuple[Tensor, ...]:
        """What holds the weights: their flat view, and the remainders where there are some."""
        left = self.rounding.remainder
        return (self.flat,) if left is None else (self.flat, left)

    @cached_property
    def clean_copy(self) -> tuple[Tensor, ...]:
        """Room for what is `stored` of a clean vector while it is displaced; empty for others.

        Normalisation weights are near 1, where the spacing of floats changes: displacing and
        restoring them would drift. Vectors are a thousandth of a model, so their clean values are
        copied, of float32 and of 16 bits with remainders. 16 bits alone round as in MeZO's code.
        """
        vector = self.parameter.dim() <= 1 and self.numel <= BLOCK
        exact = self.parameter.dtype == torch.float32 or self.rounding.remainder is not None
        return tuple(map(torch.empty_like, self.stored)) if vector and exact else ()

    def move(
        self, terms: Sequence[Term], *, decay: float = 1.0, state_update: StateUpdate | None = None
    ) -> Move:
        """Plan weights <- decay * weights, then plus first * z, plus second * z for each term.

        It is a plan only: `apply_moves` does the moves of many slots in one pass.

        Args:
            terms: Directions and their two scales.
            decay: Factor of the weights, for weight decay.
            state_update: State that the sum of second * z goes through, such as a momentum.

        Returns:
            The plan.
        """
        return Move(self.flat, self.row, terms, decay, state_update, self.rounding)

    def move_buffer(self, name: str, terms: Sequence[Term], *, decay: float = 1.0) -> Move:
        """Plan the same on a state vector of the slot's size, which must be there.

        Args:
            name: Name of the buffer.
            terms: Directions and their two scales.
            decay: Factor of the vector.

        Returns:
            The plan.
        """
        return Move(self.buffers[name], self.row, terms, decay)


def slots_of(named_parameters: Iterable[tuple[str, Tensor]]) -> list[Slot]:
    """Slots of the parameters that require a gradient, tied weights once.

    Args:
        named_parameters: (name, tensor) pairs; empty tensors are left out.

    Returns:
        One slot per tensor, in the order given.

    Raises:
        TypeError: The parameters come without names.
        ValueError: Nothing is trainable, a tensor is not a contiguous float tensor, or two names
            hash to one id (their noise would be equal).
    """
    slots: dict[int, Slot] = {}
    seen: set[int] = set()
    for item in named_parameters:
        if isinstance(item, Tensor | Mapping):
            raise TypeError(
                "the noise of a tensor depends on its name: give model.named_parameters(), not"
                " model.parameters() or parameter groups"
            )
        name, parameter = item
        if not parameter.requires_grad or id(parameter) in seen or parameter.numel() == 0:
            continue
        seen.add(id(parameter))
        if not parameter.is_floating_point() or not parameter.is_contiguous():
            raise ValueError(f"parameter {name} must be a contiguous floating-point tensor")
        slot = Slot(name, parameter, tensor_id(name))
        if slot.id in slots:
            raise ValueError(f"parameters {slots[slot.id].name} and {name} share a noise id")
        slots[slot.id] = slot
    if not slots:
        raise ValueError("no parameter requires a gradient: there is nothing to train")
    return list(slots.values())
