"""Three losses along one direction: slope and curvature, for HiZOO (Zhao et al., arXiv 2402.15173).

c = (f+ - f-) / (2 eps) as in MeZO, and |f+ + f- - 2 f_0| / (2 eps^2), from which a sampler learns a
diagonal Hessian. Costs 3 forwards.
"""

from zobench.zo.estimators.base import Asks, Estimator
from zobench.zo.feedback import CLEAN, CURVATURE, GRAD, Feedback, Step


class ThreePoint(Estimator):
    """GRAD: the two-sided difference; CURVATURE: half the size of the second one.

    3 forwards, no memory. On a quadratic the curvature is |z.H z| / 2. The reported loss is the
    clean one.

    Formula:
        ```text
        c = (f+ - f-) / (2 eps),  f+- = L(w +- eps z)
        kappa = |f+ + f- - 2 f_0| / (2 eps^2),  f_0 = L(w)
        ```

    References:
        Zhao et al., HiZOO, arXiv 2402.15173.
    """

    gives = frozenset({GRAD, CURVATURE, CLEAN})
    directions = 1
    forwards = 3

    def estimate(self, step: Step) -> Asks:
        key = step.key(0)
        clean, plus, minus = yield [{}, {key: step.eps}, {key: -step.eps}]
        slope = (plus - minus) / (2.0 * step.eps)
        curvature = abs(plus + minus - 2.0 * clean) / (2.0 * step.eps**2)
        return Feedback(loss=clean, channels={GRAD: {key: slope}, CURVATURE: {key: curvature}})
