"""ZO-SGD-Conservative (ZO-Bench, Zhang et al. 2024, arXiv 2402.11592): a step that may be refused.

c = (L(w + eps z) - L(w - eps z)) / (2 eps) as in MeZO; then w, w - lr c z and w + lr c z are
evaluated and the best of the three is kept. Costs 5 forwards.
"""

from zobench.zo.estimators.base import Asks, Estimator
from zobench.zo.feedback import MOVE, Feedback, Step


class Conservative(Estimator):
    """Moves by 0, -lr c z or +lr c z, whichever has the lowest loss; 5 forwards, no memory.

    The loss of the batch never rises; between equals it stays, or else steps downhill. The reported
    loss is the clean one.

    Formula:
        ```text
        c = (L(w + eps z) - L(w - eps z)) / (2 eps)
        move = the best of {0, -lr c z, +lr c z} by L(w + move)
        ```

    References:
        Zhang et al. 2024, ZO-Bench, arXiv 2402.11592 (ZO-SGD-Conservative).
    """

    gives = frozenset({MOVE})
    directions = 1
    forwards = 5

    def estimate(self, step: Step) -> Asks:
        key = step.key(0)
        plus, minus = yield [{key: step.eps}, {key: -step.eps}]
        length = step.lr * (plus - minus) / (2.0 * step.eps)
        clean, down, up = yield [{}, {key: -length}, {key: length}]
        losses = {0.0: clean, -length: down, length: up}
        best = min(losses, key=lambda move: losses[move])
        return Feedback(loss=clean, channels={MOVE: {key: best} if best else {}})
