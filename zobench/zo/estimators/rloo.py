"""Leave-one-out score-function estimator over K one-sided evaluations (LOREN, arXiv 2511.07971)."""

from zobench.zo.estimators.base import Asks, Estimator
from zobench.zo.feedback import GRAD, POLICY, Feedback, Key, Step


class RLOO(Estimator):
    """w_k = (F_k - mean F) / (K - 1), c_k = w_k / eps; K forwards, no clean loss, no memory.

    F_k = L(w + eps z_k); w_k is 1/K times F_k less the mean of the others. The policy channel holds
    w_k. The reported loss is the mean of all F_k.

    Formula:
        ```text
        F_k = L(w + eps z_k),  w_k = (F_k - mean F) / (K - 1),  c_k = w_k / eps
        ```

    Args:
        queries: Directions per step, K, at least 2.

    Raises:
        ValueError: `queries` is below 2.

    References:
        Seung et al. 2026, LOREN, arXiv 2511.07971.
    """

    gives = frozenset({GRAD, POLICY})
    device_scalars = True

    def __init__(self, *, queries: int = 6) -> None:
        if queries < 2:
            raise ValueError(f"estimator.queries={queries}: must be at least 2")
        self.queries = self.directions = self.forwards = queries

    def estimate(self, step: Step) -> Asks:
        keys = [step.key(query) for query in range(self.queries)]
        found = yield [{key: step.eps} for key in keys]
        losses: dict[Key, float] = dict(zip(keys, found, strict=True))
        mean = sum(losses.values()) / self.queries
        policy = {k: (loss - mean) / (self.queries - 1) for k, loss in losses.items()}
        grad = {k: weight / step.eps for k, weight in policy.items()}
        return Feedback(loss=mean, channels={GRAD: grad, POLICY: policy})
