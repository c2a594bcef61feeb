"""A method of your own: the two-sided slope, clipped, so that one bad batch moves little."""

from zobench.zo.estimators.base import Asks, Estimator
from zobench.zo.feedback import GRAD, Feedback, Step


class Clipped(Estimator):
    """c = (L(w + eps z) - L(w - eps z)) / (2 eps), cut to [-limit, limit]; costs 2 forwards.

    Args:
        limit: Largest |c|, above 0, in units of the loss per unit of z.

    Raises:
        ValueError: `limit` is not above 0.
    """

    gives = frozenset({GRAD})  # coefficients for the rule
    forwards = 2

    def __init__(self, *, limit: float) -> None:
        if limit <= 0:
            raise ValueError(f"estimator.limit={limit}: must be above 0")
        self.limit = limit

    def estimate(self, step: Step) -> Asks:
        key = step.key(0)  # the name of a direction z, which is drawn wherever it is needed
        plus, minus = yield [{key: step.eps}, {key: -step.eps}]
        slope = (plus - minus) / (2.0 * step.eps)
        clipped = max(-self.limit, min(self.limit, slope))
        return Feedback(loss=(plus + minus) / 2.0, channels={GRAD: {key: clipped}})
