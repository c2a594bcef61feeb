"""The sign of an averaged estimate: JAGUAR SignSGD's rule (arXiv 2506.04430), also under LDSD."""

from collections.abc import Sequence

from zobench.zo.feedback import Replay
from zobench.zo.rules.base import Rule, estimate_blocks
from zobench.zo.space import Slot


class SignMomentum(Rule):
    """m <- beta m + (1 - beta) g on the slots of this step; w <- w - lr sign(m) on all slots.

    A slot without directions keeps its m and moves along it; where m is 0 nothing moves.
    State: one float32 vector per slot (4 bytes a parameter).
    """

    def __init__(self, *, beta: float = 0.9) -> None:
        if not 0.0 <= beta < 1.0:
            raise ValueError(f"rule.beta={beta}: must be in [0, 1)")
        self.beta = beta

    def state_bytes(self, slot: Slot) -> int:
        return slot.numel * slot.state_itemsize

    def update(self, slot: Slot, replays: Sequence[Replay], *, lr: float, step: int) -> None:
        del step
        momentum = slot.buffer("sign_momentum")
        for place, weights, estimate in estimate_blocks(slot, replays):
            m = momentum[place]
            if replays:
                m.lerp_(estimate, 1.0 - self.beta)
            weights.add_(m.sign(), alpha=-lr)
