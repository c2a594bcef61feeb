"""Two-sided (central difference) estimator: SPSA as in MeZO, Algorithm 1 (q = 1) and 2 (q > 1)."""

from zobench.zo.estimators.base import Asks, Estimator
from zobench.zo.feedback import GRAD, Feedback, Key, Step


class TwoSided(Estimator):
    """c_k = (L(w + eps z_k) - L(w - eps z_k)) / (2 eps q); costs 2 q forwards, no memory.

    The reported loss is the mean of all evaluations, L(w) + O(eps^2).

    Formula:
        ```text
        c_k = (L(w + eps z_k) - L(w - eps z_k)) / (2 eps q),  k = 1..q
        ```

    Args:
        queries: Directions per step, q, at least 1.

    Raises:
        ValueError: `queries` is below 1.

    References:
        Malladi et al. 2023, arXiv 2305.17333, Algorithms 1 (q = 1) and 2 (q > 1).
    """

    gives = frozenset({GRAD})
    device_scalars = True

    def __init__(self, *, queries: int = 1) -> None:
        if queries < 1:
            raise ValueError(f"estimator.queries={queries}: must be at least 1")
        self.queries = self.directions = queries
        self.forwards = 2 * queries

    def estimate(self, step: Step) -> Asks:
        keys = [step.key(query) for query in range(self.queries)]
        found = yield [{key: sign * step.eps} for key in keys for sign in (1.0, -1.0)]
        grad: dict[Key, float] = {}
        total = 0.0
        for key, plus, minus in zip(keys, found[::2], found[1::2], strict=True):
            grad[key] = (plus - minus) / (2.0 * step.eps * self.queries)
            total += plus + minus
        return Feedback(loss=total / (2 * self.queries), channels={GRAD: grad})
