"""MeZO-GV (Jin, Cen, Tan 2026, arXiv 2601.04710): step along the contrast of good and bad draws.

F_k = L(w + eps z_k), k = 1..M; v = mean z of the lowest F - mean z of the highest; then MeZO's
two-sided difference along v. Costs M + 2 forwards.
"""

from zobench.zo.estimators.base import Asks, Estimator
from zobench.zo.feedback import GRAD, Feedback, Key, Step


class RankContrast(Estimator):
    """c_k = +-(L(w + eps v) - L(w - eps v)) / (2 eps h) for the h best (+) and the h worst (-).

    M + 2 forwards, no memory. The reported loss is the mean over the candidates. With M = 2, as
    shipped, v = +-(z_1 - z_2): the two-sided step is even in v, so the ranking has no effect and
    the step is MeZO's with N(0, 2 I) at double cost. M = 4 is our default for that reason.

    Formula:
        ```text
        F_k = L(w + eps z_k),  k = 1..M;  v = mean z of the h lowest F - mean z of the h highest
        c = (L(w + eps v) - L(w - eps v)) / (2 eps) along v
        ```

    Args:
        candidates: Directions per step, M, at least 2.
        alpha: h / M, in (0, 0.5], to the nearest h that leaves at least one and at most half of the
            candidates on each side.

    Raises:
        ValueError: An argument is out of range.

    References:
        Jin, Cen, Tan 2026, arXiv 2601.04710 (MeZO-GV).
    """

    gives = frozenset({GRAD})

    def __init__(self, *, candidates: int = 4, alpha: float = 0.5) -> None:
        if candidates < 2:
            raise ValueError(f"estimator.candidates={candidates}: must be at least 2")
        if not 0.0 < alpha <= 0.5:
            raise ValueError(f"estimator.alpha={alpha}: must be in (0, 0.5]")
        self.candidates = self.directions = candidates
        self.alpha = alpha
        self.each_side = max(1, min(round(alpha * candidates), candidates // 2))
        self.forwards = candidates + 2

    def estimate(self, step: Step) -> Asks:
        keys = [step.key(query) for query in range(self.candidates)]
        found = yield [{key: step.eps} for key in keys]
        losses: dict[Key, float] = dict(zip(keys, found, strict=True))
        contrast = self._contrast(losses)
        plus, minus = yield [
            {k: sign * step.eps * share for k, share in contrast.items()} for sign in (1.0, -1.0)
        ]
        slope = (plus - minus) / (2.0 * step.eps)
        grad = {k: slope * share for k, share in contrast.items()}
        return Feedback(loss=sum(losses.values()) / self.candidates, channels={GRAD: grad})

    def _contrast(self, losses: dict[Key, float]) -> dict[Key, float]:
        """v by key. The last draw comes first, where the weights are: rounding sees no ranking."""
        ranked = sorted(losses, key=lambda k: losses[k])
        share = 1.0 / self.each_side
        shares = dict.fromkeys(ranked[: self.each_side], share)
        shares |= dict.fromkeys(ranked[-self.each_side :], -share)
        return {k: shares[k] for k in reversed(losses) if k in shares}
