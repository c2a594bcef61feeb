"""MeZO-Greedy (Jin, Cen, Tan 2026, arXiv 2601.04710): the best draw becomes the new point.

F_0 = L(w), F_k = L(w + eps z_k), k = 1..K; w <- w + eps z of the lowest F_k if that is below F_0.
Costs K + 1 forwards.
"""

from zobench.zo.estimators.base import Asks, Estimator
from zobench.zo.feedback import CLEAN, MOVE, Feedback, Key, Step


class Greedy(Estimator):
    """Moves to the best of K candidates and of staying, whatever the learning rate; no memory.

    The batch's loss never rises. K + 1 forwards. The reported loss is the clean loss F_0.

    Formula:
        ```text
        F_0 = L(w),  F_k = L(w + eps z_k),  k = 1..K;  best = argmin_k F_k
        move = eps z_best if F_best < F_0, else 0
        ```

    Args:
        candidates: Directions per step, K, at least 1. Our source gives no number; 4 is ours.

    Raises:
        ValueError: `candidates` is below 1.

    References:
        Jin, Cen, Tan 2026, arXiv 2601.04710 (MeZO-Greedy).
    """

    gives = frozenset({MOVE, CLEAN})

    def __init__(self, *, candidates: int = 4) -> None:
        if candidates < 1:
            raise ValueError(f"estimator.candidates={candidates}: must be at least 1")
        self.candidates = self.directions = candidates
        self.forwards = candidates + 1

    def estimate(self, step: Step) -> Asks:
        keys = [step.key(query) for query in range(self.candidates)]
        clean, *shifted = yield [{}, *({key: step.eps} for key in keys)]
        losses: dict[Key, float] = dict(zip(keys, shifted, strict=True))
        best = min(losses, key=lambda k: losses[k])
        move = {best: step.eps} if losses[best] < clean else {}
        return Feedback(loss=clean, channels={MOVE: move})
