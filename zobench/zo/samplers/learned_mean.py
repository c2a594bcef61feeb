"""LDSD's law (Parfenov et al. 2026, arXiv 2602.13659, Algorithm 2): noise around a learnt mean.

v = mu + sigma n, n ~ N(0, I); after each step mu <- mu - gamma_mu / (K sigma) * sum_k A_k n_k, over
the K candidates that were evaluated, with the advantages A_k of the estimator's policy channel. The
released code rebuilds other noise than it evaluated, so that its mu is a random walk; here the
update draws the candidates again by key. gamma_mu = 0 is the control without learning.
"""

import math
from collections.abc import Sequence

from zobench.zo.directions import Drawn, stored
from zobench.zo.feedback import POLICY, Channels
from zobench.zo.moves import Direction, Recipe, Term
from zobench.zo.passes.apply import apply_moves
from zobench.zo.samplers.base import Sampler, over_random_walk
from zobench.zo.slot_state import BufferNoise
from zobench.zo.slot_tables import Sums
from zobench.zo.space import Slot

_START = 1  # stream number of mu's random start


class LearnedMean(Sampler):
    """LDSD's law: noise around a learnt mean mu, moved by plain descent on the advantages.

    No momentum, no schedule, no normalisation, as in the paper. State: mu, one float32 vector per
    slot (4 bytes a weight).

    Formula:
        ```text
        z_k = mu + sigma n_k,  n_k ~ N(0, I)
        mu <- mu - gamma_mu / (K sigma) sum_k A_k n_k,  A_k the advantage of candidate k
        ```

    Args:
        gamma_mu: Learning rate of mu, at least 0; 0 is the control without learning.
        sigma: Standard deviation of the noise, above 0.
        init: Of mu: `zero` (the paper's SGD and AdaMM forms) or `unit`, a random unit vector per
            slot (its JAGUAR form).

    Raises:
        ValueError: An argument is out of range.

    References:
        Parfenov et al. 2026, arXiv 2602.13659, Algorithm 2.
    """

    needs = frozenset({POLICY})

    def __init__(self, *, gamma_mu: float, sigma: float = 1.0, init: str = "zero") -> None:
        if sigma <= 0.0 or gamma_mu < 0.0:
            raise ValueError(
                f"sampler.sigma={sigma}, sampler.gamma_mu={gamma_mu}: sigma must be positive,"
                " gamma_mu must not be negative"
            )
        if init not in ("zero", "unit"):
            raise ValueError(f"sampler.init={init}: choose zero or unit")
        self.gamma_mu, self.sigma, self.random_start = gamma_mu, sigma, init == "unit"

    def bind(self, slots: Sequence[Slot], seed: int) -> None:
        super().bind(slots, seed)
        self._buffers: BufferNoise | None = None
        self._walk = 0.0  # expected |mu|^2 if every advantage were independent of its noise
        if self.random_start:
            for slot in slots:
                random = Drawn.normal((seed, 0, 0), slot.id, number=_START)
                length = math.sqrt(slot.square_norm(random))
                slot.buffer("learned_mean")
                apply_moves([slot.move_buffer("learned_mean", [Term(random, 1.0 / length)])])
                self._walk += 1.0

    def state_bytes(self, slot: Slot) -> int:
        return slot.numel * slot.state_itemsize

    def recipe(self, slot: Slot) -> Recipe:
        return Recipe(vector=slot.buffer("learned_mean"), sigma=self.sigma)

    def observe(self, slots: Sequence[Slot], channels: Channels, sums: Sums | None) -> None:
        """Move the mean: no direction of this step is drawn any more."""
        del sums
        advantages = channels.get(POLICY, {})
        if self.gamma_mu == 0.0 or not advantages or not slots:
            return
        rate = self.gamma_mu / (len(advantages) * self.sigma)
        squares = math.fsum(a**2 for a in advantages.values())
        for slot in slots:
            self._walk += rate**2 * slot.numel * squares
        if self._buffers is None or self._buffers.slots != slots:
            self._buffers = BufferNoise(slots, "learned_mean")
        self._buffers.add([(key, 0, -rate * a) for key, a in advantages.items()])

    def mean_direction(self, slot: Slot) -> Direction | None:
        mean = slot.buffers.get("learned_mean")
        return None if mean is None else stored(mean)

    def metrics(self) -> dict[str, float]:
        """|mu|, and |mu| against that of a mean that learnt nothing."""
        means = [(slot, self.mean_direction(slot)) for slot in self.slots]
        square = math.fsum(slot.square_norm(mean) for slot, mean in means if mean is not None)
        return over_random_walk(math.sqrt(square), math.sqrt(self._walk))

    def state_dict(self) -> dict[str, object]:
        return {"walk": self._walk}

    def load_state_dict(self, state: dict[str, object]) -> None:
        self._walk = state["walk"]  # type: ignore[assignment]
