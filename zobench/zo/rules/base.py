"""What every rule is, and the pass that rules with elementwise state share."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from zobench.zo.feedback import GRAD, Key, Replay
from zobench.zo.part import Part
from zobench.zo.space import Slot


class Rule(Part, ABC):
    """Moves one slot by the estimate g = sum of coefficient * z, restoring it in the same pass."""

    needs = frozenset({GRAD})

    def begin_step(self, grad: Mapping[Key, float], *, step: int) -> None:
        """Called once before the slots, with the step's coefficients: for scalar statistics."""

    def recall(self) -> Iterable[Key]:
        """Directions of earlier steps that `update` wants to see again; needs PAST."""
        return ()

    @abstractmethod
    def update(self, slot: Slot, replays: Sequence[Replay], *, lr: float, step: int) -> None:
        """Apply step number `step` (from 0) with learning rate `lr`.

        The weights come displaced; adding each replay's `restore` times its direction cleans them.
        """


def estimate_blocks(
    slot: Slot, replays: Sequence[Replay]
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """(place, weights, estimate) per block: clean weights to edit and g; each z is drawn once."""
    for start, weights in slot.edit():
        estimate = torch.zeros_like(weights)
        for replay in replays:
            z = replay.direction.draw(start, weights.numel(), weights.device).to(weights.dtype)
            weights.add_(z * replay.restore)  # rounded as in the walk, so that it cancels
            estimate.add_(z, alpha=replay.grad)
        yield slice(start, start + weights.numel()), weights, estimate
