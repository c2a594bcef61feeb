"""MEAZO (Dbouk et al. 2026, arXiv 2605.03869): one adaptive step size for all weights.

With isotropic z every element of g = sum_k c_k z_k has nearly the same second moment, sum_k c_k^2,
so that one scalar does what Adam's vector does: v <- beta v + (1 - beta) sum_k c_k^2,
w <- w - lr g / (sqrt(v / (1 - beta^t)) + rms_eps).
"""

import math
from collections.abc import Mapping

from zobench.zo.feedback import Key
from zobench.zo.rules.base import Change, Kind, Rule


class ScalarRMS(Rule):
    """MeZO's direction over the root mean square of the coefficients so far; no tensor state.

    Our source gives no numbers: beta and rms_eps are Adam's, and with several queries the sum of
    the squared coefficients stands for the squared coefficient.

    Formula:
        ```text
        v <- beta v + (1 - beta) sum_k c_k^2
        w <- w - lr g / (sqrt(v / (1 - beta^t)) + rms_eps),  g = sum_k c_k z_k
        ```

    Args:
        beta: Decay rate of the mean square, in [0, 1).
        rms_eps: Is added to the root.

    Raises:
        ValueError: `beta` is out of range.

    References:
        Dbouk et al. 2026, MEAZO, arXiv 2605.03869.
    """

    def __init__(self, *, beta: float = 0.999, rms_eps: float = 1e-8) -> None:
        if not 0.0 <= beta < 1.0:
            raise ValueError(f"rule.beta={beta}: must be in [0, 1)")
        self.beta, self.rms_eps = beta, rms_eps
        self.square = 0.0

    def begin_step(self, grad: Mapping[Key, float], *, step: int) -> None:
        now = math.fsum(c * c for c in grad.values())
        self.square = self.beta * self.square + (1.0 - self.beta) * now
        corrected = self.square / (1.0 - self.beta ** (step + 1))
        self._scale = math.sqrt(corrected) + self.rms_eps

    def change(self, grad: Mapping[Key, float], kind: Kind, *, lr: float, step: int) -> Change:
        del kind, step
        rate = -lr / self._scale
        return Change({key: rate * c for key, c in grad.items()})

    def state_dict(self) -> dict[str, object]:
        return {"square": self.square}

    def load_state_dict(self, state: dict[str, object]) -> None:
        square = state["square"]
        assert isinstance(square, float)
        self.square = square
