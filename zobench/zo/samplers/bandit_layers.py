"""AdaLeZO's law (arXiv 2604.18264): layers drawn by a bandit that learns from the loss difference.

Layers are drawn with replacement. A layer's estimate is multiplied by how often it was drawn over
how often it was to be expected, which keeps the estimate unbiased whatever the probabilities are.
Blocks are those of LeZO (`block_cycle`). The saving is LeZO's: blocks that are not drawn are not
touched, and there is no forward pass and no tensor more.

From the abstract: a non-stationary bandit over layers, drawing with replacement, weights by inverse
probability; from a summary of the paper: values of layers as moving averages. Inferred, since the
algorithm itself was not at hand: the value is that of |c| relative to its own average, as in
CurvZO, a probability is the share of the value mixed with an even share, and all constants.
"""

from collections.abc import Sequence
from itertools import accumulate

from zobench.zo import noise
from zobench.zo.feedback import GRAD, Channels
from zobench.zo.samplers.base import ReplayClass, Sampler
from zobench.zo.samplers.layer_names import block_of, natural
from zobench.zo.samplers.subset import Subset
from zobench.zo.slot_tables import Sums
from zobench.zo.space import Slot

_DRAW = 16  # stream number of the draws that choose layers


class BanditLayers(Subset):
    """AdaLeZO's law: the directions of another law on layers that a bandit draws.

    State: one number per layer, no tensors.

    Formula:
        ```text
        p_l = (1 - explore) V_l / sum V + explore / L
        n_l = how often layer l is drawn in k draws with replacement
        z_l = the inner law's z_l where n_l > 0, else 0;  its estimate is c z_l n_l / (k p_l)
        V_l <- (1 - rate) V_l + rate |c| / (average of |c|),  where n_l > 0
        ```

    Args:
        inner: The law on the layers that are drawn.
        draws: k, at least 1.
        explore: Share of the probability that is even over the layers, in (0, 1].
        rate: Weight of the new value in the moving averages, in (0, 1].

    Raises:
        ValueError: An argument is out of range.

    References:
        Wang et al. 2026, AdaLeZO, arXiv 2604.18264.
    """

    def __init__(
        self, inner: Sampler, *, draws: int = 6, explore: float = 0.3, rate: float = 0.1
    ) -> None:
        if draws < 1:
            raise ValueError(f"sampler.draws={draws}: must be at least 1")
        for name, value in (("explore", explore), ("rate", rate)):
            if not 0.0 < value <= 1.0:
                raise ValueError(f"sampler.{name}={value}: must be in (0, 1]")
        super().__init__(inner)
        self.needs, self.weighted = inner.needs | {GRAD}, True
        if inner.replay_class is not ReplayClass.DATA:
            self.replay_class = ReplayClass.STATE  # who took part depends on the values of the time
        self.draws, self.explore, self.rate = draws, explore, rate
        self._scale, self._staged = 0.0, 0.0

    def bind(self, slots: Sequence[Slot], seed: int) -> None:
        super().bind(slots, seed)
        names = sorted({block_of(slot.name) for slot in slots}, key=natural)
        place = {name: number for number, name in enumerate(names)}
        self._layer = {slot.id: place[block_of(slot.name)] for slot in slots}
        self.values = [1.0] * len(names)

    def chosen(self, step: int) -> frozenset[int]:
        total, count = sum(self.values), len(self.values)
        even = self.explore / count
        self.probabilities = [(1.0 - self.explore) * v / total + even for v in self.values]
        ends = list(accumulate(self.probabilities))
        self.counts = [0] * count
        key = noise.mix(self.seed, step, 0)
        for draw in range(self.draws):
            at = noise.uniform(noise.Stream(key, draw, _DRAW)) * ends[-1]
            self.counts[next(layer for layer, end in enumerate(ends) if at < end)] += 1
        return frozenset(slot.id for slot in self.slots if self.counts[self._layer[slot.id]])

    def weight(self, slot: Slot) -> float:
        layer = self._layer[slot.id]
        share = self.counts[layer] / (self.draws * self.probabilities[layer])
        return self.inner.weight(slot) * share

    def observe(self, slots: Sequence[Slot], channels: Channels, sums: Sums | None) -> None:
        super().observe(slots, channels, sums)
        self._staged = sum(abs(c) for c in channels.get(GRAD, {}).values())

    def end_step(self) -> None:
        """Move the values of the layers that were drawn."""
        super().end_step()
        self._scale = (1.0 - self.rate) * self._scale + self.rate * self._staged
        if self._scale:
            reward = self.rate * self._staged / self._scale
            for layer, times in enumerate(self.counts):
                if times:
                    self.values[layer] = (1.0 - self.rate) * self.values[layer] + reward

    def metrics(self) -> dict[str, float]:
        """The largest probability over an even one, and the inner law's own."""
        largest = max(self.probabilities) * len(self.probabilities)
        return {**self.inner.metrics(), "largest_share": largest}

    def state_dict(self) -> dict[str, object]:
        own = {"values": list(self.values), "scale": self._scale}
        return {**own, "inner": self.inner.state_dict()}

    def load_state_dict(self, state: dict[str, object]) -> None:
        self.values = list(state["values"])  # type: ignore[call-overload]
        self._scale = state["scale"]  # type: ignore[assignment]
        self.inner.load_state_dict(state["inner"])  # type: ignore[arg-type]
