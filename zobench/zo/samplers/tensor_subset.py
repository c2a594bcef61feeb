"""A law on a random part of the tensors: JAGUAR's sampling, which LDSD builds on (`params_ratio`).

Each step one subset of the slots is drawn; every direction of the step lives on it, so candidates
of one step differ in their noise only. The released LDSD code draws a subset per candidate and then
updates its mean on the winner's; its authors' later code draws one a step, and so do we.
"""

from collections.abc import Sequence

from zobench.zo import noise
from zobench.zo.directions import Direction
from zobench.zo.feedback import Key, Replay
from zobench.zo.samplers.base import Sampler
from zobench.zo.space import Slot

_SUBSET = 3  # stream number of the draw that decides who takes part


class TensorSubset(Sampler):
    """The directions of `inner` on a subset of the slots; it learns from those slots only.

    share: of the slots, drawn without replacement and equally likely; at least one slot. The
    estimate is that of the drawn slots: it is not divided by their chance of being drawn.
    """

    def __init__(self, inner: Sampler, *, share: float = 0.1) -> None:
        if not 0.0 < share <= 1.0:
            raise ValueError(f"sampler.share={share}: must be in (0, 1]")
        self.inner, self.share = inner, share
        self.needs, self.most_directions = inner.needs, inner.most_directions

    def bind(self, slots: Sequence[Slot], seed: int) -> None:
        super().bind(slots, seed)
        self.inner.bind(slots, seed)

    def begin_step(self, step: int) -> None:
        self.inner.begin_step(step)
        key = noise.mix(self.seed, step, 0)
        ids = [slot.id for slot in self.slots]
        order = sorted(ids, key=lambda i: noise.uniform(noise.Stream(key, i, _SUBSET)))
        self.drawn = frozenset(order[: max(1, round(self.share * len(order)))])

    def direction(self, slot: Slot, key: Key) -> Direction | None:
        return self.inner.direction(slot, key) if slot.id in self.drawn else None

    def weight(self, slot: Slot) -> float:
        return self.inner.weight(slot)

    def observe(self, slot: Slot, replays: Sequence[Replay]) -> None:
        if slot.id in self.drawn:
            self.inner.observe(slot, replays)

    def end_step(self) -> None:
        self.inner.end_step()

    def learnt(self, slot: Slot) -> Direction | None:
        return self.inner.learnt(slot)

    def vitals(self) -> dict[str, float]:
        return self.inner.vitals()

    def state_dict(self) -> dict[str, object]:
        return self.inner.state_dict()

    def load_state_dict(self, state: dict[str, object]) -> None:
        self.inner.load_state_dict(state)
