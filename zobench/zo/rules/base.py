"""The interface of rules: what becomes of the estimate, for all slots of one kind at once."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from zobench.zo.feedback import GRAD, DrawnTerm, Key
from zobench.zo.moves import Direction, Move, StateUpdate, Term
from zobench.zo.part import Part
from zobench.zo.passes.kernel import IN_TORCH
from zobench.zo.space import Slot


class Kind(NamedTuple):
    """What a rule knows of a slot; slots of one kind are moved alike.

    Attributes:
        vector: Whether it has one dimension at most.
        coordinates: Whether the sampler's directions have coordinates there.
    """

    vector: bool
    coordinates: bool

    @classmethod
    def of(cls, slot: Slot) -> "Kind":
        return cls(slot.parameter.dim() <= 1, slot.coordinates_shape is not None)


class Change(NamedTuple):
    """w <- decay * w + sum of scale * z; with state, that sum goes through the state instead.

    Attributes:
        scales: Of the directions.
        decay: Factor of the weights.
        state: A slot's state update, if there is any; the same but for the slot's buffers.
    """

    scales: Mapping[Key, float]
    decay: float = 1.0
    state: Callable[[Slot], StateUpdate] | None = None

    def move(self, slot: Slot, drawn: Sequence[DrawnTerm]) -> Move:
        """The move of a slot, which also restores it."""
        terms = []
        for term in drawn:
            scale = self.scales.get(term.key, 0.0) if GRAD in term.coefficients else 0.0
            terms.append(Term(term.direction, self.decay * term.restore, scale))
        state_update = self.state(slot) if self.state else None
        return slot.move(terms, decay=self.decay, state_update=state_update)


class BlockChange(NamedTuple):
    """A change of the weights block by block, for what is no function of the estimate alone.

    Attributes:
        apply: Gets the slot, a place in it, the clean weights there, to edit, and the directions'
            numbers there by key; these are drawn when they are looked up.
    """

    apply: Callable[[Slot, slice, Tensor, Mapping[Key, Tensor]], None]

    def move(self, slot: Slot, drawn: Sequence[DrawnTerm]) -> None:
        """Restore the slot and change it."""
        directions = _estimated(drawn)
        for start, weights in slot.edit():
            _restore(drawn, start, weights)
            place = slice(start, start + weights.numel())
            self.apply(slot, place, weights, Blocks(directions, start, weights))


class SlotChange(NamedTuple):
    """w <- w + step, for a step that needs the whole slot.

    Attributes:
        step: Gets the slot and its directions by key, and returns the step as a direction.
    """

    step: Callable[[Slot, Mapping[Key, Direction]], Direction]

    def move(self, slot: Slot, drawn: Sequence[DrawnTerm]) -> None:
        """Restore the slot and change it."""
        step = self.step(slot, _estimated(drawn))
        for start, weights in slot.edit():
            _restore(drawn, start, weights)
            step.add_to(weights, start, 1.0)


class Rule(Part, ABC):
    """Turns the estimate g = sum of coefficient * z into a change of the weights.

    It never sees displaced weights: the plan restores them in the pass that applies the change.

    Attributes:
        linear: Names of buffers that are linear in the estimate, as a momentum is.
    """

    needs = frozenset({GRAD})
    linear: tuple[str, ...] = ()  # buffers that are linear in the estimate, as a momentum is

    def begin_step(self, grad: Mapping[Key, float], *, step: int) -> None:
        """Receive the step's coefficients before the slots are updated, for scalar statistics.

        Args:
            grad: Coefficient of each direction.
            step: Number of the step, from 0.
        """

    def past_keys(self) -> Iterable[Key]:
        """Directions of earlier steps that `change` needs again; requires PAST.

        Returns:
            Their keys.
        """
        return ()

    @abstractmethod
    def change(
        self, grad: Mapping[Key, float], kind: Kind, *, lr: float, step: int
    ) -> Change | BlockChange | SlotChange | None:
        """What becomes of the slots of a kind.

        Args:
            grad: Coefficient of each direction; empty where the slots take no part in the step.
            kind: That of the slots.
            lr: Learning rate of the step.
            step: Number of the step, from 0.

        Returns:
            The change; None where the weights only come back to the clean point.
        """


@dataclass(frozen=True, eq=False)
class InTorch:
    """A StateUpdate by torch operations alone.

    Attributes:
        buffers: Vectors, one element per weight.
        function: Edits a block of the weights, given it, the estimate there, and the buffers'
            blocks, which it edits, too.
    """

    buffers: tuple[Tensor, ...]
    function: Callable[..., None]
    kernel: ClassVar[int] = IN_TORCH
    scalars: ClassVar[tuple[float, ...]] = ()

    def apply(self, place: slice, weights: Tensor, estimate: Tensor) -> None:
        self.function(weights, estimate, *(buffer[place] for buffer in self.buffers))


class Blocks(Mapping[Key, Tensor]):
    """One block of each direction, in the weights' dtype."""

    def __init__(self, directions: Mapping[Key, Direction], start: int, weights: Tensor) -> None:
        self._directions, self._start, self._weights = directions, start, weights

    def __getitem__(self, key: Key) -> Tensor:
        weights = self._weights
        z = self._directions[key].draw(self._start, weights.numel(), weights.device)
        return z.to(weights.dtype)

    def __iter__(self) -> Iterator[Key]:
        return iter(self._directions)

    def __len__(self) -> int:
        return len(self._directions)


def estimate_of(grad: Mapping[Key, float], z: Mapping[Key, Tensor], like: Tensor) -> Tensor:
    """The sum of coefficient * z on a block, of the shape and dtype of `like`."""
    estimate = torch.zeros_like(like)
    for key, coefficient in grad.items():
        estimate.add_(z[key], alpha=coefficient)
    return estimate


def touched_by(grad: Mapping[Key, float], z: Mapping[Key, Tensor], like: Tensor) -> Tensor:
    """Where some direction that has a coefficient is not 0, a bool tensor."""
    touched = torch.zeros_like(like, dtype=torch.bool)
    for key in grad:
        touched.logical_or_(z[key])
    return touched


def _estimated(drawn: Sequence[DrawnTerm]) -> dict[Key, Direction]:
    """Directions with a coefficient, and those of earlier steps, which have none."""
    return {t.key: t.direction for t in drawn if GRAD in t.coefficients or not t.moves}


def _restore(drawn: Sequence[DrawnTerm], start: int, weights: Tensor) -> None:
    for term in drawn:
        if term.restore:
            term.direction.add_to(weights, start, term.restore)
