"""R-AdaZO (Shu et al. 2025, arXiv 2502.01014): Adam whose second moment is that of the first.

m <- beta1 m + (1 - beta1) g; v <- beta2 v + (1 - beta2) m^2; w <- w - lr m / (sqrt(v) + adam_eps).
Averaging has taken much of the noise out of m, so that v measures more gradient and less noise.
"""

from collections.abc import Mapping

from torch import Tensor

from zobench.zo.feedback import Key
from zobench.zo.rules.base import Change, InTorch, Kind, Rule
from zobench.zo.space import Slot


class RAdaZO(Rule):
    """Adam whose second moment is that of the first. State: two float32 vectors per slot.

    There is no bias correction, as in the released code. Our source gives no decay rates and not
    the place of adam_eps: beta1 and beta2 are those of the usage example in the authors'
    repository, and adam_eps stands outside the root as in our other rules.

    Formula:
        ```text
        m <- beta1 m + (1 - beta1) g,  v <- beta2 v + (1 - beta2) m^2,  g = sum_k c_k z_k
        w <- w - lr m / (sqrt(v) + adam_eps)
        ```

    Args:
        beta1: Decay rate of the first moment, in [0, 1).
        beta2: Decay rate of the second moment, in [0, 1).
        adam_eps: Is added to the root.

    Raises:
        ValueError: A decay rate is out of range.

    References:
        Shu et al. 2025, R-AdaZO, arXiv 2502.01014.
    """

    def __init__(self, *, beta1: float = 0.9, beta2: float = 0.99, adam_eps: float = 1e-8) -> None:
        if not (0.0 <= beta1 < 1.0 and 0.0 <= beta2 < 1.0):
            raise ValueError(f"rule.beta1={beta1}, rule.beta2={beta2}: must be in [0, 1)")
        self.beta1, self.beta2, self.adam_eps = beta1, beta2, adam_eps

    def state_bytes(self, slot: Slot) -> int:
        return 2 * slot.numel * slot.state_itemsize

    def change(self, grad: Mapping[Key, float], kind: Kind, *, lr: float, step: int) -> Change:
        del kind, step

        def update(weights: Tensor, g: Tensor, m: Tensor, v: Tensor) -> None:
            m.lerp_(g, 1.0 - self.beta1)
            v.mul_(self.beta2).addcmul_(m, m, value=1.0 - self.beta2)
            weights.addcdiv_(m, v.sqrt().add_(self.adam_eps), value=-lr)

        names = "radazo_mean", "radazo_square"
        return Change(grad, state=lambda slot: InTorch(tuple(map(slot.buffer, names)), update))
