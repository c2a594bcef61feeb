"""AdaMeZO (Cai et al. 2026, arXiv 2605.00650): Adam without moments, from the last steps' scalars.

g_s = sum_k c_k z_k of step s is known from its keys and coefficients, so that block by block
m = sum_s a_s g_s and v = sum_s b_s g_s^2 over the last h steps, a_s ~ beta1^age, b_s ~ beta2^age,
are drawn again at every step: w <- w - lr m / (sqrt(v) + adam_eps). Costs h draws more than MeZO.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from zobench.zo.feedback import GRAD, PAST, Key
from zobench.zo.rules.base import BlockChange, Kind, Rule, estimate_of
from zobench.zo.space import Slot


class WindowedAdam(Rule):
    """Adam's moments over `window` steps, today's included; no tensor state, h scalars a query.

    It draws the directions of the window again at every step. The weights of each moment are scaled
    to the sum 1, which our source leaves open: as long as the window holds the whole run, this is
    Adam's bias correction.

    Formula:
        ```text
        g_s = sum_k c_k z_k of step s,  m = sum_s a_s g_s,  v = sum_s b_s g_s^2,  the last h steps
        a_s ~ beta1^age,  b_s ~ beta2^age, each with the sum 1
        w <- w - lr m / (sqrt(v) + adam_eps)
        ```

    Args:
        beta1: Decay rate of the first moment, in [0, 1).
        beta2: Decay rate of the second moment, in [0, 1).
        window: Steps, h, at least 1.
        adam_eps: Is added to the root.

    Raises:
        ValueError: An argument is out of range.

    References:
        Cai et al. 2026, AdaMeZO, arXiv 2605.00650.
    """

    needs = frozenset({GRAD, PAST})

    def __init__(
        self,
        *,
        beta1: float = 0.7,
        beta2: float = 0.9,
        window: int = 10,
        adam_eps: float = 1e-8,
    ) -> None:
        if not (0.0 <= beta1 < 1.0 and 0.0 <= beta2 < 1.0):
            raise ValueError(f"rule.beta1={beta1}, rule.beta2={beta2}: must be in [0, 1)")
        if window < 1:
            raise ValueError(f"rule.window={window}: must be at least 1")
        self.beta1, self.beta2, self.adam_eps = beta1, beta2, adam_eps
        self.window: deque[dict[Key, float]] = deque(maxlen=window)  # newest first

    def begin_step(self, grad: Mapping[Key, float], *, step: int) -> None:
        del step
        self.window.appendleft(dict(grad))

    def past_keys(self) -> Iterable[Key]:
        return [key for age, grad in enumerate(self.window) if age for key in grad]

    def change(self, grad: Mapping[Key, float], kind: Kind, *, lr: float, step: int) -> BlockChange:
        del kind, step
        steps = [grad, *list(self.window)[1:]]  # today's are weighted for the slots
        shares = zip(_shares(self.beta1, len(steps)), _shares(self.beta2, len(steps)), strict=True)
        ages = [*zip(shares, steps, strict=True)]

        def apply(slot: Slot, place: slice, weights: Tensor, z: Mapping[Key, Tensor]) -> None:
            del slot, place
            m, v = torch.zeros_like(weights), torch.zeros_like(weights)
            for (share1, share2), own in ages:
                estimate = estimate_of({k: c for k, c in own.items() if k in z}, z, weights)
                m.add_(estimate, alpha=share1)
                v.addcmul_(estimate, estimate, value=share2)
            weights.addcdiv_(m, v.sqrt_().add_(self.adam_eps), value=-lr)

        return BlockChange(apply)

    def state_dict(self) -> dict[str, object]:
        return {"window": [[(*key, c) for key, c in grad.items()] for grad in self.window]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.window.clear()
        self.window.extend(
            {Key(seed, step, query): c for seed, step, query, c in grad} for grad in state["window"]
        )


def _shares(beta: float, count: int) -> list[float]:
    """beta^age over their sum, for the ages 0 .. count - 1."""
    powers = [beta**age for age in range(count)]
    return [power / sum(powers) for power in powers]
