"""Evolution strategies on z-scores: ES at scale (Qiu et al. 2025, arXiv 2509.24372) and EGGROLL.

s_k = (F_k - mean F) / std F over F_k = L(w + eps z_k), population standard deviation; the step is
-lr / N sum_k s_k z_k, the 1/eps absorbed in lr. EGGROLL (Sarkar et al. 2025, arXiv 2511.16652)
pairs +z with -z. Its fast batched forward is not implemented. Costs N forwards.
"""

from statistics import fmean, pstdev

from zobench.zo.estimators.base import Asks, Estimator
from zobench.zo.feedback import GRAD, Feedback, Key, Step


class ZScored(Estimator):
    """c_k = s_k / N; antithetic: N / 2 directions with c_k = (s_k+ - s_k-) / N.

    N forwards, no memory. Where all losses are equal there is no step. The reported loss is the
    mean over the population.

    Formula:
        ```text
        F_k = L(w + eps z_k),  s_k = (F_k - mean F) / std F,  c_k = s_k / N
        antithetic: c_k = (s_k+ - s_k-) / N over N / 2 pairs
        ```

    Args:
        population: Losses per step, N, at least 2, and even if antithetic.
        antithetic: Pair +z with -z, as EGGROLL does.

    Raises:
        ValueError: `population` is out of range.

    References:
        Qiu et al. 2025, ES at scale, arXiv 2509.24372; Sarkar et al. 2025, EGGROLL, arXiv
        2511.16652.
    """

    gives = frozenset({GRAD})

    def __init__(self, *, population: int = 30, antithetic: bool = False) -> None:
        if population < 2:
            raise ValueError(f"estimator.population={population}: must be at least 2")
        if antithetic and population % 2:
            raise ValueError(f"estimator.population={population}: must be even if antithetic")
        self.population = self.forwards = population
        self.antithetic = antithetic
        self.directions = population // 2 if antithetic else population

    def estimate(self, step: Step) -> Asks:
        signs = (1.0, -1.0) if self.antithetic else (1.0,)
        keys = [step.key(query) for query in range(self.directions)]
        signed = [(key, sign) for key in keys for sign in signs]
        losses: list[float] = yield [{key: sign * step.eps} for key, sign in signed]
        mean = fmean(losses)
        spread = pstdev(losses)  # exact: equal losses give 0, not rounding
        grad: dict[Key, float] = dict.fromkeys(keys, 0.0)
        for (key, sign), loss in zip(signed, losses, strict=True):
            grad[key] += sign * (loss - mean) / (spread * self.population) if spread else 0.0
        return Feedback(loss=mean, channels={GRAD: grad})
