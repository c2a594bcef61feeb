"""LDSD's law (Parfenov et al. 2026, arXiv 2602.13659, Algorithm 2): noise around a learnt mean.

v = mu + sigma n, n ~ N(0, I); after each step mu <- mu - gamma_mu / (K sigma) * sum_k A_k n_k, over
the K candidates that were evaluated, with the advantages A_k of the estimator's policy channel. The
released code rebuilds other noise than it evaluated, so that its mu is a random walk; here the
update replays the candidates by key. gamma_mu = 0 is the control without learning.
"""

from collections.abc import Sequence

from zobench.zo.directions import Around, Dense
from zobench.zo.feedback import POLICY, Key, Replay
from zobench.zo.samplers.base import Sampler
from zobench.zo.space import Slot, edit


class LearnedMean(Sampler):
    """gamma_mu: learning rate of mu; sigma: standard deviation of the noise.

    State: mu, one float32 vector per slot (4 bytes a parameter). mu starts at 0.
    Plain descent, as in the paper: no momentum, no schedule, no normalisation.
    """

    needs = frozenset({POLICY})

    def __init__(self, *, gamma_mu: float, sigma: float = 1.0) -> None:
        if sigma <= 0.0 or gamma_mu < 0.0:
            raise ValueError(
                f"sampler.sigma={sigma}, sampler.gamma_mu={gamma_mu}: sigma must be positive,"
                " gamma_mu must not be negative"
            )
        self.gamma_mu, self.sigma = gamma_mu, sigma

    def direction(self, slot: Slot, key: Key) -> Around:
        return Around(slot.buffer("learned_mean"), Dense.normal(key, slot.id, self.sigma))

    def observe(self, slot: Slot, replays: Sequence[Replay]) -> None:
        """Move the slot's mean: no direction of this step is drawn on it any more."""
        learnt = [r for r in replays if POLICY in r.coefficients]
        if self.gamma_mu == 0.0 or not learnt:
            return
        rate = self.gamma_mu / (len(learnt) * self.sigma)
        for start, mean in edit(slot.buffer("learned_mean"), slot.spans()):
            for replay in learnt:
                advantage = replay.coefficients[POLICY]
                Dense.normal(replay.key, slot.id).add_to(mean, start, -rate * advantage)
