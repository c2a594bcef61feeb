"""Adam on the estimate (MeZO-Adam, Malladi et al. 2023, appendix B; Kingma and Ba 2015, Alg. 1)."""

from collections.abc import Sequence

from zobench.zo.feedback import Replay
from zobench.zo.rules.base import Rule, estimate_blocks
from zobench.zo.space import Slot


class Adam(Rule):
    """Bias-corrected Adam. State: two float32 vectors per slot (8 bytes a parameter)."""

    linear = ("adam_mean",)

    def __init__(self, *, beta1: float = 0.9, beta2: float = 0.999, adam_eps: float = 1e-8) -> None:
        if not (0.0 <= beta1 < 1.0 and 0.0 <= beta2 < 1.0):
            raise ValueError(f"rule.beta1={beta1}, rule.beta2={beta2}: must be in [0, 1)")
        self.beta1, self.beta2, self.adam_eps = beta1, beta2, adam_eps

    def state_bytes(self, slot: Slot) -> int:
        return 2 * slot.numel * slot.state_itemsize

    def update(self, slot: Slot, replays: Sequence[Replay], *, lr: float, step: int) -> None:
        mean, square = slot.buffer("adam_mean"), slot.buffer("adam_square")
        correction1 = 1.0 - self.beta1 ** (step + 1)
        correction2 = 1.0 - self.beta2 ** (step + 1)
        for place, weights, estimate in estimate_blocks(slot, replays):
            m = mean[place].lerp_(estimate, 1.0 - self.beta1)
            v = square[place].mul_(self.beta2).addcmul_(estimate, estimate, value=1.0 - self.beta2)
            scale = v.div(correction2).sqrt_().add_(self.adam_eps)
            weights.addcdiv_(m, scale, value=-lr / correction1)
