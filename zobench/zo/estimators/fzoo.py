"""FZOO (Dang et al. 2025, arXiv 2506.09034): one-sided differences over the losses' own spread.

g = sum_k (F_k - F_0) / (N s) z_k with F_0 = L(w), F_k = L(w + eps z_k) and s the population
standard deviation of F_1..F_N, as in the released code; eps cancels. Costs N + 1 forwards,
which an optimizer with `pack` evaluates as one batch, as the paper does.
"""

from statistics import pstdev

from zobench.zo.estimators.base import Asks, Estimator
from zobench.zo.feedback import CLEAN, GRAD, Feedback, Key, Step


class FZOO(Estimator):
    """c_k = (F_k - F_0) / (N s), the same for L -> a L + b; where s is 0 there is no step.

    s is the population standard deviation of F_1..F_N. N + 1 forwards, no memory. The reported loss
    is the clean loss F_0.

    Formula:
        ```text
        F_0 = L(w),  F_k = L(w + eps z_k),  s = std(F_1..F_N)
        c_k = (F_k - F_0) / (N s)
        ```

    Args:
        queries: Directions per step, N, at least 2, since one loss has no spread.

    Raises:
        ValueError: `queries` is below 2.

    References:
        Dang et al. 2025, FZOO, arXiv 2506.09034.
    """

    gives = frozenset({GRAD, CLEAN})

    def __init__(self, *, queries: int = 8) -> None:
        if queries < 2:
            raise ValueError(f"estimator.queries={queries}: must be at least 2")
        self.queries = self.directions = queries
        self.forwards = queries + 1

    def estimate(self, step: Step) -> Asks:
        keys = [step.key(query) for query in range(self.queries)]
        clean, *shifted = yield [{}, *({key: step.eps} for key in keys)]
        losses: dict[Key, float] = dict(zip(keys, shifted, strict=True))
        spread = self.queries * pstdev(losses.values())  # exact: equal losses give 0, not rounding
        grad = {k: (loss - clean) / spread if spread else 0.0 for k, loss in losses.items()}
        return Feedback(loss=clean, channels={GRAD: grad})
