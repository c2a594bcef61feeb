"""BSZO (Feng and Huang 2026, arXiv 2601.01452): a Kalman filter on the slopes along k directions.

The slopes g in R^k have the prior N(0, prior I). A reading along a unit h in R^k,
y = (L(w + eps sum_i h_i z_i) - L(w)) / eps, is h.g plus noise of variance `noise`. The first k
readings are along the axes, `extra` more along the most uncertain h; the estimate of g is its
posterior mean. Costs 1 + k + extra forwards.

The card counts 3 for k = 2 "with caching", which it does not spell out: the released code evaluates
nothing for the third reading but counts an axis reading again. Here it is evaluated, which makes 4.
The code also adapts the noise variance from step to step; we do not.
"""

import numpy as np
from numpy.typing import NDArray

from zobench.zo.estimators.base import Asks, Estimator
from zobench.zo.feedback import CLEAN, GRAD, Feedback, Step

Array = NDArray[np.float64]
_SAME = 1e-9  # relative: eigenvalues closer than this are one, projections shorter are zero


class Kalman(Estimator):
    """c = the posterior mean of the k slopes; 1 + k + extra forwards, no memory.

    As noise -> 0 these are the one-sided differences themselves, without an extra reading or on a
    linear loss. The reported loss is the clean one.

    Formula:
        ```text
        prior of the k slopes: N(0, prior I)
        reading along a unit h: y = (L(w + eps sum_i h_i z_i) - L(w)) / eps = h.slopes + noise
        c = posterior mean of the slopes
        ```

    Args:
        subspace: Directions per step, k, at least 1.
        extra: Readings after those along the k directions, at least 0.
        prior: Variance of a slope before it is read, above 0.
        noise: Variance of a reading, above 0. Only its ratio to `prior` matters; our source gives
            no numbers, 1 and 1 have the ratio of the released code's defaults.

    Raises:
        ValueError: An argument is out of range.

    References:
        Feng and Huang 2026, BSZO, arXiv 2601.01452.
    """

    gives = frozenset({GRAD, CLEAN})

    def __init__(
        self, *, subspace: int = 2, extra: int = 1, prior: float = 1.0, noise: float = 1.0
    ) -> None:
        if subspace < 1:
            raise ValueError(f"estimator.subspace={subspace}: must be at least 1")
        if extra < 0:
            raise ValueError(f"estimator.extra={extra}: must not be negative")
        if prior <= 0.0 or noise <= 0.0:
            raise ValueError(f"estimator.prior={prior}, estimator.noise={noise}: must be positive")
        self.subspace = self.directions = subspace
        self.extra, self.prior, self.noise = extra, prior, noise
        self.forwards = 1 + subspace + extra

    def estimate(self, step: Step) -> Asks:
        axes = [{step.key(i): step.eps} for i in range(self.subspace)]
        clean, *read = yield [{}, *axes]
        mean, covariance = np.zeros(self.subspace), self.prior * np.eye(self.subspace)
        for number in range(self.subspace + self.extra):
            if number < self.subspace:
                h, shifted = np.eye(self.subspace)[number], read[number]
            else:
                h = most_uncertain(mean, covariance)
                shifted = yield {step.key(i): step.eps * float(x) for i, x in enumerate(h) if x}
            gain = covariance @ h / (h @ covariance @ h + self.noise)
            mean = mean + gain * ((shifted - clean) / step.eps - h @ mean)
            covariance = covariance - np.outer(gain, h @ covariance)
        grad = {step.key(i): float(mean[i]) for i in range(self.subspace)}
        return Feedback(loss=clean, channels={GRAD: grad})


def most_uncertain(mean: Array, covariance: Array) -> Array:
    """Unit vector in the top eigenspace of the covariance: the one nearest to the mean.

    After the axes all eigenvalues are equal, so that this is the direction of the mean. Where the
    mean has no part there it is an eigenvector, its largest element positive.
    """
    values, vectors = np.linalg.eigh(covariance)
    top: Array = vectors[:, values >= values[-1] * (1.0 - _SAME)]
    projected: Array = top @ (top.T @ mean)
    length = float(np.linalg.norm(projected))
    if length > _SAME * float(np.linalg.norm(mean)):
        return projected / length
    first: Array = top[:, 0]
    return first * np.sign(first[np.argmax(np.abs(first))])
