"""The sign of an averaged estimate: JAGUAR SignSGD's rule (arXiv 2506.04430), also under LDSD."""

from collections.abc import Mapping

from torch import Tensor

from zobench.zo.feedback import Key
from zobench.zo.rules.base import BlockChange, Kind, Rule, estimate_of, touched_by
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

    def change(self, grad: Mapping[Key, float], kind: Kind, *, lr: float, step: int) -> BlockChange:
        del kind, step

        def apply(slot: Slot, place: slice, weights: Tensor, z: Mapping[Key, Tensor]) -> None:
            m, touched = slot.buffer("sign_momentum")[place], touched_by(grad, z, weights)
            gain = touched.to(m.dtype).mul_(1.0 - self.beta)
            m.lerp_(estimate_of(grad, z, weights), gain)
            weights.add_(m.sign(), alpha=-lr)

        return BlockChange(apply)
