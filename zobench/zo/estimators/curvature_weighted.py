"""1.5-SPSA (Chaubard, Kochenderfer and Re; arXiv id not known to us): probes weighted by curvature.

rho_k = (f_k+ - f_k-) / (2 eps) and c_k = (f_k+ + f_k- - 2 f_0) / eps^2 along each of n directions;
g = 1/n sum_k rho_k z_k / max(1, |c_k|^power). Costs 2 n + 1 forwards.
"""

from zobench.zo.estimators.base import Asks, Estimator
from zobench.zo.feedback import CLEAN, GRAD, Feedback, Key, Step


class CurvatureWeighted(Estimator):
    """Averaged two-sided differences, each divided by max(1, |second difference|^power).

    2 n + 1 forwards, no memory. The reported loss is the clean one.

    Formula:
        ```text
        rho_k = (f_k+ - f_k-) / (2 eps),  h_k = (f_k+ + f_k- - 2 f_0) / eps^2,  k = 1..n
        c_k = rho_k / (n max(1, |h_k|^power))
        ```

    Args:
        queries: Directions per step, n, at least 1.
        power: At least 0; 0 weighs all directions alike.

    Raises:
        ValueError: An argument is out of range.

    References:
        Chaubard, Kochenderfer and Re, 1.5-SPSA (arXiv id not known to us).
    """

    gives = frozenset({GRAD, CLEAN})

    def __init__(self, *, queries: int = 160, power: float = 0.1) -> None:
        if queries < 1:
            raise ValueError(f"estimator.queries={queries}: must be at least 1")
        if power < 0.0:
            raise ValueError(f"estimator.power={power}: must not be negative")
        self.queries = self.directions = queries
        self.power = power
        self.forwards = 2 * queries + 1

    def estimate(self, step: Step) -> Asks:
        keys = [step.key(query) for query in range(self.queries)]
        pairs = [{key: sign * step.eps} for key in keys for sign in (1.0, -1.0)]
        clean, *found = yield [{}, *pairs]
        grad: dict[Key, float] = {}
        for key, plus, minus in zip(keys, found[::2], found[1::2], strict=True):
            curvature = abs(plus + minus - 2.0 * clean) / step.eps**2
            slope = (plus - minus) / (2.0 * step.eps * self.queries)
            grad[key] = slope / max(1.0, curvature**self.power)
        return Feedback(loss=clean, channels={GRAD: grad})
