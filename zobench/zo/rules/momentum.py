"""Heavy-ball momentum on the estimate (MeZO-momentum, Malladi et al. 2023, appendix B)."""

from collections.abc import Sequence

from zobench.zo.feedback import Replay
from zobench.zo.rules.base import estimate_blocks
from zobench.zo.space import Slot


class Momentum:
    """m <- beta m + g; w <- w - lr m. State: one float32 vector per slot (4 bytes a parameter)."""

    def __init__(self, *, beta: float = 0.9) -> None:
        if not 0.0 <= beta < 1.0:
            raise ValueError(f"rule.beta={beta}: must be in [0, 1)")
        self.beta = beta

    def update(self, slot: Slot, replays: Sequence[Replay], *, lr: float, step: int) -> None:
        del step
        momentum = slot.buffer("momentum")
        for place, weights, estimate in estimate_blocks(slot, replays):
            part = momentum[place].mul_(self.beta).add_(estimate)
            weights.add_(part, alpha=-lr)
