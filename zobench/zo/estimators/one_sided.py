"""One-sided (forward difference) estimator: the clean loss is the base point of all queries."""

from zobench.zo.estimators.base import Asks, Estimator
from zobench.zo.feedback import CLEAN, GRAD, Feedback, Step


class OneSided(Estimator):
    """c_k = (L(w + eps z_k) - L(w)) / (eps q); costs q + 1 forwards, no memory.

    The reported loss is the clean loss L(w).

    Formula:
        ```text
        c_k = (L(w + eps z_k) - L(w)) / (eps q),  k = 1..q
        ```

    Args:
        queries: Directions per step, q, at least 1.

    Raises:
        ValueError: `queries` is below 1.
    """

    gives = frozenset({GRAD, CLEAN})
    device_scalars = True

    def __init__(self, *, queries: int = 1) -> None:
        if queries < 1:
            raise ValueError(f"estimator.queries={queries}: must be at least 1")
        self.queries = self.directions = queries
        self.forwards = queries + 1

    def estimate(self, step: Step) -> Asks:
        keys = [step.key(query) for query in range(self.queries)]
        clean, *shifted = yield [{}, *({key: step.eps} for key in keys)]
        share = step.eps * self.queries
        grad = {key: (loss - clean) / share for key, loss in zip(keys, shifted, strict=True)}
        return Feedback(loss=clean, channels={GRAD: grad})
