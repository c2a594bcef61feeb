"""LDSD's estimator (Parfenov et al. 2026, arXiv 2602.13659, Algorithm 2): the best of K candidates.

F_k = L(w + eps v_k); the gradient is the two-sided difference along one direction, and every
candidate gets its leave-one-out advantage A_k = (K F_k - sum_j F_j) / (K - 1).
"""

from zobench.zo import noise
from zobench.zo.estimators.base import Asks, Estimator
from zobench.zo.feedback import GRAD, POLICY, Feedback, Key, Step


class BestOfK(Estimator):
    """K + 1 forwards: K candidates and the mirror of the chosen one, no memory.

    The reported loss is the mean over the candidates.

    Formula:
        ```text
        F_k = L(w + eps z_k),  k = 1..K;  best = argmin_k F_k
        c = (F_best - L(w - eps z_best)) / (2 eps) along z_best
        A_k = (K F_k - sum_j F_j) / (K - 1)
        ```

    Args:
        candidates: Directions per step, K, at least 2.
        choice: `best` (lowest loss), `random`, or `mean_top`, the mean direction of the better
            half, which costs one forward more.
        variant: `paper`, or `released`, which evaluates the chosen candidate again (K + 2
            forwards).
        tau_free: Divide the advantages by eps, so that the drift of a learnt mean does not depend
            on it.

    Raises:
        ValueError: An argument is out of range.

    References:
        Parfenov et al. 2026, LDSD, arXiv 2602.13659, Algorithm 2.
    """

    gives = frozenset({GRAD, POLICY})

    def __init__(
        self,
        *,
        candidates: int = 5,
        choice: str = "best",
        variant: str = "paper",
        tau_free: bool = False,
    ) -> None:
        if candidates < 2:
            raise ValueError(f"estimator.candidates={candidates}: must be at least 2")
        if choice not in ("best", "random", "mean_top"):
            raise ValueError(f"estimator.choice={choice}: choose best, random or mean_top")
        if variant not in ("paper", "released"):
            raise ValueError(f"estimator.variant={variant}: choose paper or released")
        self.candidates = self.directions = candidates
        self.choice, self.tau_free = choice, tau_free
        self.num_chosen = (candidates + 1) // 2 if choice == "mean_top" else 1
        self.evaluate_again = variant == "released" or self.num_chosen > 1
        self.forwards = candidates + 1 + self.evaluate_again

    def estimate(self, step: Step) -> Asks:
        keys = [step.key(query) for query in range(self.candidates)]
        found = yield [{key: step.eps} for key in keys]
        losses: dict[Key, float] = dict(zip(keys, found, strict=True))
        chosen = self._choose(losses)
        plus = sum(losses[k] for k in chosen) / len(chosen)
        share = 1.0 / len(chosen)
        if self.evaluate_again:
            plus = yield {k: share * step.eps for k in chosen}
        minus = yield {k: -share * step.eps for k in chosen}
        slope = (plus - minus) / (2.0 * step.eps)
        total, others = sum(losses.values()), self.candidates - 1
        scale = 1.0 / step.eps if self.tau_free else 1.0
        policy = {k: scale * (self.candidates * f - total) / others for k, f in losses.items()}
        grad = {k: share * slope for k in chosen}
        return Feedback(loss=total / self.candidates, channels={GRAD: grad, POLICY: policy})

    def _choose(self, losses: dict[Key, float]) -> list[Key]:
        ranked = sorted(losses, key=lambda k: losses[k])
        if self.choice == "random":
            first = min(losses, key=lambda k: k.query)
            drawn = noise.mix(first.seed, first.step, self.candidates) % self.candidates
            return [Key(first.seed, first.step, drawn)]
        return ranked[: self.num_chosen]
