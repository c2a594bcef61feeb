"""Differences to the mean of one-sided losses, after an evaluation of the clean weights (AIM-ZO).

The coefficients are RLOO's times eps, as in the released code, whose learning rates count on it.
The clean loss is no part of them: its forward is there for samplers that read activations.
"""

from zobench.zo.estimators.base import Asks, Estimator
from zobench.zo.feedback import CLEAN, GRAD, POLICY, Feedback, Key, Step


class Centered(Estimator):
    """c_k = (F_k - mean F) / (N - 1), not divided by eps; N + 1 forwards, no memory.

    The reported loss is the clean loss.

    Formula:
        ```text
        F_0 = L(w),  F_k = L(w + eps z_k),  k = 1..N
        c_k = (F_k - mean of F_1..F_N) / (N - 1)
        ```

    Args:
        queries: Directions per step, N, at least 2.

    Raises:
        ValueError: `queries` is below 2.

    References:
        AIM-ZO, github.com/EkkoXy/AIM-ZO, its default estimator.
    """

    gives = frozenset({GRAD, POLICY, CLEAN})
    device_scalars = True

    def __init__(self, *, queries: int = 15) -> None:
        if queries < 2:
            raise ValueError(f"estimator.queries={queries}: must be at least 2")
        self.queries = self.directions = queries
        self.forwards = queries + 1

    def estimate(self, step: Step) -> Asks:
        keys = [step.key(query) for query in range(self.queries)]
        clean, *shifted = yield [{}, *({key: step.eps} for key in keys)]
        losses: dict[Key, float] = dict(zip(keys, shifted, strict=True))
        mean = sum(losses.values()) / self.queries
        weights = {key: (loss - mean) / (self.queries - 1) for key, loss in losses.items()}
        return Feedback(loss=clean, channels={GRAD: weights, POLICY: weights})
