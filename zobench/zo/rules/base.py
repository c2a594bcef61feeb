"""What every rule is, and the pass that rules with elementwise state share."""

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from zobench.zo.feedback import Replay
from zobench.zo.space import Slot


class Rule(Protocol):
    """Moves one slot by the estimate g = sum of coefficient * z, restoring it in the same pass."""

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
