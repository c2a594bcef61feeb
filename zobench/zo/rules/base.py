"""What every rule is, and the pass that rules with elementwise state share."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from zobench.zo.feedback import GRAD, Key, Replay
from zobench.zo.part import Part
from zobench.zo.passes.move import Move
from zobench.zo.space import Slot


class Rule(Part, ABC):
    """Moves one slot by the estimate g = sum of coefficient * z, restoring it in the same pass."""

    needs = frozenset({GRAD})
    alike: bool = False  # matrices have the same scales, and so have vectors; one move for each
    linear: tuple[str, ...] = ()  # buffers that are linear in the estimate, as a momentum is

    def begin_step(self, grad: Mapping[Key, float], *, step: int) -> None:
        """Called once before the slots, with the step's coefficients: for scalar statistics."""

    def recall(self) -> Iterable[Key]:
        """Directions of earlier steps that `update` wants to see again; needs PAST."""
        return ()

    @abstractmethod
    def update(self, slot: Slot, replays: Sequence[Replay], *, lr: float, step: int) -> Move | None:
        """What step number `step` (from 0) with learning rate `lr` does to the slot's weights.

        The weights come displaced; adding each replay's `restore` times its direction cleans them.
        The engine carries out the moves of all slots in one pass; None: it is done already, or the
        slot stays.
        """


def estimate_blocks(
    slot: Slot, replays: Sequence[Replay]
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """(place, weights, estimate) per block: clean weights to edit and g; each z is drawn once."""
    for start, weights in slot.edit():
        estimate = torch.zeros_like(weights)
        for replay in replays:
            estimate.add_(_restored(replay, start, weights), alpha=replay.grad)
        yield slice(start, start + weights.numel()), weights, estimate


def touched_blocks(
    slot: Slot, replays: Sequence[Replay]
) -> Iterator[tuple[slice, Tensor, Tensor, Tensor]]:
    """As `estimate_blocks`, and a bool block: where some direction of the step is not 0."""
    for start, weights in slot.edit():
        estimate = torch.zeros_like(weights)
        touched = torch.zeros_like(weights, dtype=torch.bool)
        for replay in replays:
            z = _restored(replay, start, weights)
            touched.logical_or_(z)
            estimate.add_(z, alpha=replay.grad)
        yield slice(start, start + weights.numel()), weights, estimate, touched


def _restored(replay: Replay, start: int, weights: Tensor) -> Tensor:
    """The direction's block, after bringing the weights back along it."""
    z = replay.direction.draw(start, weights.numel(), weights.device).to(weights.dtype)
    weights.add_(z * replay.restore)  # a product and a sum, as in the walk: it cancels
    return z
