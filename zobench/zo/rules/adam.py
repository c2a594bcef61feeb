"""Adam on the estimate (MeZO-Adam, Malladi et al. 2023, appendix B; Kingma and Ba 2015, Alg. 1)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from zobench.zo.feedback import Key
from zobench.zo.passes import kernel
from zobench.zo.rules.base import Change, Kind, Rule
from zobench.zo.space import Slot


@dataclass(frozen=True, eq=False)
class Moments:
    """Adam's two moments and its step: a StateUpdate.

    Attributes:
        mean: First moment, one element per weight.
        square: Second moment, likewise.
        betas: Their decay rates.
        unbias: 1 / (1 - beta^t) of each.
        lr: Learning rate.
        adam_eps: Is added to the root of the second moment.
    """

    mean: Tensor
    square: Tensor
    betas: tuple[float, float]
    unbias: tuple[float, float]
    lr: float
    adam_eps: float
    kernel: ClassVar[int] = kernel.ADAM

    @property
    def buffers(self) -> tuple[Tensor, ...]:
        return self.mean, self.square

    @property
    def scalars(self) -> tuple[float, ...]:
        (beta1, beta2), (first, second) = self.betas, self.unbias
        return 1.0 - beta1, beta2, self.lr * first, second, self.adam_eps

    def apply(self, place: slice, weights: Tensor, estimate: Tensor) -> None:
        (beta1, beta2), (first, second) = self.betas, self.unbias
        m = self.mean[place].lerp_(estimate, 1.0 - beta1)
        v = self.square[place].mul_(beta2).addcmul_(estimate, estimate, value=1.0 - beta2)
        scale = v.mul(second).sqrt_().add_(self.adam_eps)
        weights.addcdiv_(m, scale, value=-self.lr * first)


class Adam(Rule):
    """Bias-corrected Adam. State: two float32 vectors per slot (8 bytes a parameter).

    Formula:
        ```text
        m <- beta1 m + (1 - beta1) g,  v <- beta2 v + (1 - beta2) g^2,  g = sum_k c_k z_k
        w <- w - lr m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + adam_eps)
        ```

    Args:
        beta1: Decay rate of the first moment, in [0, 1).
        beta2: Decay rate of the second moment, in [0, 1).
        adam_eps: Is added to the root of the second moment; not the perturbation radius.

    Raises:
        ValueError: A decay rate is out of range.

    References:
        Malladi et al. 2023, arXiv 2305.17333, appendix B (MeZO-Adam); Kingma and Ba 2015, Adam,
        Algorithm 1.
    """

    linear = ("adam_mean",)

    def __init__(self, *, beta1: float = 0.9, beta2: float = 0.999, adam_eps: float = 1e-8) -> None:
        if not (0.0 <= beta1 < 1.0 and 0.0 <= beta2 < 1.0):
            raise ValueError(f"rule.beta1={beta1}, rule.beta2={beta2}: must be in [0, 1)")
        self.beta1, self.beta2, self.adam_eps = beta1, beta2, adam_eps

    def state_bytes(self, slot: Slot) -> int:
        return 2 * slot.numel * slot.state_itemsize

    def change(self, grad: Mapping[Key, float], kind: Kind, *, lr: float, step: int) -> Change:
        del kind
        betas = self.beta1, self.beta2
        unbias = 1.0 / (1.0 - betas[0] ** (step + 1)), 1.0 / (1.0 - betas[1] ** (step + 1))

        def moments(slot: Slot) -> Moments:
            buffers = slot.buffer("adam_mean"), slot.buffer("adam_square")
            return Moments(*buffers, betas, unbias, lr, self.adam_eps)

        return Change(grad, state=moments)
