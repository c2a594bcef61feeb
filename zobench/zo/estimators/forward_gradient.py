"""Forward gradient (Baydin et al. 2022, arXiv 2202.08587): the slope along z without a difference.

c = <grad L(w), z> by forward-mode differentiation: exact, at any eps, but it holds z and a tangent
of every activation. ZO-Bench has it as a baseline with one direction a step.
"""

from zobench.zo.estimators.base import Asks, Estimator
from zobench.zo.feedback import GRAD, Feedback, Request, Step


class ForwardGradient(Estimator):
    """One pass with tangents per query, counted as 2 forwards; while it runs one z is in memory.

    The reported loss is the clean loss.

    Formula:
        ```text
        c_k = <grad L(w), z_k> / q, by forward-mode differentiation
        ```

    Args:
        queries: Directions per step, at least 1.

    Raises:
        ValueError: `queries` is below 1.

    References:
        Baydin et al. 2022, Gradients without Backpropagation, arXiv 2202.08587.
    """

    gives = frozenset({GRAD})

    def __init__(self, *, queries: int = 1) -> None:
        if queries < 1:
            raise ValueError(f"estimator.queries={queries}: must be at least 1")
        self.queries = self.directions = queries
        self.forwards = 2 * queries

    def estimate(self, step: Step) -> Asks:
        grad, loss = {}, 0.0
        for query in range(self.queries):
            key = step.key(query)
            loss, slope = yield Request({}, along=key)
            grad[key] = slope / self.queries
        return Feedback(loss, {GRAD: grad})
