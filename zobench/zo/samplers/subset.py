"""A law on a part of the slots: the base of samplers that choose slots."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager

from zobench.zo.feedback import PREVIOUS, Channels, DrawnTerm, Key
from zobench.zo.moves import Direction, Recipe
from zobench.zo.samplers.base import Sampler
from zobench.zo.slot_tables import Sums
from zobench.zo.space import Slot


class Subset(Sampler):
    """The directions of another law on chosen slots; it learns from those slots only.

    Every direction of a step lives on the step's slots. The estimate is that of the chosen slots:
    it is not divided by their chance of being chosen.

    Args:
        inner: The law on those slots.
    """

    def __init__(self, inner: Sampler) -> None:
        self.inner = inner
        self.needs, self.weighted = inner.needs, inner.weighted
        self.gives = inner.gives - {PREVIOUS}  # momentum moves slots that a step leaves out
        self.most_directions, self.replay_class = inner.most_directions, inner.replay_class

    @abstractmethod
    def chosen(self, step: int) -> frozenset[int]:
        """Ids of the slots that take part in the step."""

    def bind(self, slots: Sequence[Slot], seed: int) -> None:
        super().bind(slots, seed)
        self.inner.bind(slots, seed)
        self.layers = self.inner.layers
        self._earlier: dict[int, frozenset[int]] = {}

    def begin_step(self, step: int) -> None:
        self.inner.begin_step(step)
        self._step, self.drawn, self._earlier = step, self.chosen(step), {}

    def _takes_part(self, slot: Slot, step: int) -> bool:
        if step == self._step:
            return slot.id in self.drawn
        if step not in self._earlier:
            self._earlier[step] = self.chosen(step)
        return slot.id in self._earlier[step]

    def state_bytes(self, slot: Slot) -> int:
        return self.inner.state_bytes(slot)

    def watch(self) -> AbstractContextManager[object]:
        return self.inner.watch()

    @property
    def by_key(self) -> bool:
        return self.inner.by_key

    def recipe(self, slot: Slot) -> Recipe | None:
        return self.inner.recipe(slot) if self._takes_part(slot, self._step) else None

    def direction(self, slot: Slot, key: Key) -> Direction | None:
        return self.inner.direction(slot, key) if self._takes_part(slot, key.step) else None

    def weight(self, slot: Slot) -> float:
        return self.inner.weight(slot)

    def released_update(self, slot: Slot, drawn: list[DrawnTerm]) -> list[DrawnTerm]:
        return self.inner.released_update(slot, drawn) if drawn else drawn

    def sums(self, channels: Channels) -> Mapping[Key, float]:
        return self.inner.sums(channels)

    def observe(self, slots: Sequence[Slot], channels: Channels, sums: Sums | None) -> None:
        self.inner.observe(slots, channels, sums)

    def end_step(self) -> None:
        self.inner.end_step()

    def mean_direction(self, slot: Slot) -> Direction | None:
        return self.inner.mean_direction(slot)

    def metrics(self) -> dict[str, float]:
        return self.inner.metrics()

    def state_dict(self) -> dict[str, object]:
        return self.inner.state_dict()

    def load_state_dict(self, state: dict[str, object]) -> None:
        self.inner.load_state_dict(state)
