"""KerZOO (Mi et al. 2025, arXiv 2505.18886): a random radius, and a kernel that removes a bias.

c = (L(w + eps r z) - L(w - eps r z)) / (2 eps) K(r), r uniform on [-1, 1]. With E[r K(r)] = 1 and
E[r^3 K(r)] = 0 the eps^2 term of the difference's bias vanishes. Costs 2 forwards.
"""

from zobench.zo import noise
from zobench.zo.estimators.base import Asks, Estimator
from zobench.zo.feedback import GRAD, Feedback, Key, Step

_RADIUS = 20  # stream number of the draw of r


def radius(key: Key) -> float:
    """r in [-1, 1), named by the key."""
    return 2.0 * noise.uniform(noise.Stream(noise.mix(*key), 0, _RADIUS)) - 1.0


def weight(r: float) -> float:
    """K(r) = (15/4) r (5 - 7 r^2)."""
    return 3.75 * r * (5.0 - 7.0 * r * r)


class Kernel(Estimator):
    """The two-sided difference at radius eps r, weighted by K(r); nothing to set.

    2 forwards, no memory. Its price is variance: on a linear loss E[c^2] is E[r^2 K(r)^2] = 6.25
    times MeZO's. Our source gives no settings. The reported loss is the mean of both evaluations.

    Formula:
        ```text
        c = (L(w + eps r z) - L(w - eps r z)) / (2 eps) K(r),  r uniform on [-1, 1]
        K(r) = 15/4 r (5 - 7 r^2)
        ```

    References:
        Mi et al. 2025, KerZOO, arXiv 2505.18886.
    """

    gives = frozenset({GRAD})
    directions = 1
    forwards = 2

    def estimate(self, step: Step) -> Asks:
        key = step.key(0)
        r = radius(key)
        plus, minus = yield [{key: step.eps * r}, {key: -step.eps * r}]
        grad = {key: (plus - minus) / (2.0 * step.eps) * weight(r)}
        return Feedback(loss=(plus + minus) / 2.0, channels={GRAD: grad})
