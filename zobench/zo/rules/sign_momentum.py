"""The sign of an averaged estimate: JAGUAR SignSGD's rule (arXiv 2506.04430), also under LDSD."""

from collections.abc import Sequence

from zobench.zo.feedback import DrawnTerm
from zobench.zo.rules.base import Rule, touched_blocks
from zobench.zo.space import Slot


class SignMomentum(Rule):
    """m <- beta m + (1 - beta) g where the step's directions are not 0; w <- w - lr sign(m).

    What was not perturbed keeps its m and moves along it; where m is 0 nothing moves.
    State: one float32 vector per slot (4 bytes a parameter).

    Formula:
        ```text
        m <- beta m + (1 - beta) g where the step's directions are not 0,  g = sum_k c_k z_k
        w <- w - lr sign(m)
        ```

    Args:
        beta: Weight of the old m, in [0, 1).

    Raises:
        ValueError: `beta` is out of range.

    References:
        JAGUAR SignSGD, arXiv 2506.04430.
    """

    def __init__(self, *, beta: float = 0.9) -> None:
        if not 0.0 <= beta < 1.0:
            raise ValueError(f"rule.beta={beta}: must be in [0, 1)")
        self.beta = beta

    def state_bytes(self, slot: Slot) -> int:
        return slot.numel * slot.state_itemsize

    def update(self, slot: Slot, drawn: Sequence[DrawnTerm], *, lr: float, step: int) -> None:
        del step
        momentum = slot.buffer("sign_momentum")
        for place, weights, estimate, touched in touched_blocks(slot, drawn):
            m = momentum[place]
            m.lerp_(estimate, touched.to(m.dtype).mul_(1.0 - self.beta))
            weights.add_(m.sign(), alpha=-lr)
