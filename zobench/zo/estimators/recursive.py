"""Acc-ZOM (Huang et al. 2022, JMLR 23): momentum that is corrected for the step it was made before.

m_t = g_t(w_t) + beta (m_{t-1} - g_t(w_{t-1})), both estimates g_t from one batch and one direction:
the rule's m <- beta m + g with the coefficient c(w_t) - beta c(w_{t-1}). The paper lets the rate
fall as t^(-1/3) and 1 - beta with its square; here both are what they are set to. The row of that
name in ZO-Bench-like tables is plain momentum (`mezo_momentum`).
"""

from zobench.zo.estimators.base import Asks, Estimator
from zobench.zo.feedback import GRAD, PREVIOUS, Feedback, Step


class Recursive(Estimator):
    """Two pairs a step, 4 forwards: at the weights before the last step, and at today's.

    The first step has no step before it and averages two directions instead.

    Formula:
        ```text
        c(x) = (L(x + eps z_t) - L(x - eps z_t)) / (2 eps)
        c = c(w_t) - beta c(w_{t-1}), so that m_t = c(w_t) z_t + beta (m_{t-1} - c(w_{t-1}) z_t)
        ```

    Args:
        beta: The rule's momentum, in [0, 1).

    Raises:
        ValueError: `beta` is out of range.

    References:
        Huang et al. 2022, Acc-ZOM, JMLR 23.
    """

    gives = frozenset({GRAD})
    needs = frozenset({PREVIOUS})
    directions = 2
    forwards = 4

    def __init__(self, *, beta: float) -> None:
        if not 0.0 <= beta < 1.0:
            raise ValueError(f"estimator.beta={beta}: must be in [0, 1)")
        self.beta = beta
        self._lr: float | None = None  # of the last step

    def estimate(self, step: Step) -> Asks:
        eps, total = step.eps, 0.0
        if self._lr is None:
            keys, slopes = (step.key(0), step.key(1)), {}
            found = yield [{key: sign * eps} for key in keys for sign in (1.0, -1.0)]
            for key, plus, minus in zip(keys, found[::2], found[1::2], strict=True):
                slopes[key] = (plus - minus) / (4.0 * eps)
                total += plus + minus
            self._lr = step.lr
            return Feedback(total / 4, {GRAD: slopes})
        key, back = step.key(0), {step.key(-1): self._lr}
        pair = [{key: eps}, {key: -eps}]
        *earlier, plus, minus = yield [*({**back, **point} for point in pair), *pair]
        before = (earlier[0] - earlier[1]) / (2.0 * eps)
        now = (plus - minus) / (2.0 * eps)
        self._lr = step.lr
        return Feedback((plus + minus) / 2, {GRAD: {key: now - self.beta * before}})

    def state_dict(self) -> dict[str, object]:
        return {"lr": self._lr}

    def load_state_dict(self, state: dict[str, object]) -> None:
        self._lr = state["lr"]  # type: ignore[assignment]
