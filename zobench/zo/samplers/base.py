"""What every sampler is: the law of the direction z, and how it is learnt."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from zobench.zo.directions import Direction
from zobench.zo.feedback import Key, Replay
from zobench.zo.space import Slot


class Sampler(ABC):
    """Draws directions by key; the same key gives the same direction until the next `begin_step`.

    `needs` names the feedback channels that it learns from. State belongs in `slot.buffer(...)`
    or in `state_dict`.
    """

    needs: frozenset[str] = frozenset()
    most_directions: int | None = None  # a step; None is any number

    def bind(self, slots: Sequence[Slot], seed: int) -> None:
        """Called once, with all slots and the run's seed, before the first step."""
        self.slots, self.seed = slots, seed

    def begin_step(self, step: int) -> None:
        """The only place where the law of z may change."""

    @abstractmethod
    def direction(self, slot: Slot, key: Key) -> Direction | None:
        """The part of z(key) that belongs to the slot; None leaves the slot out of this step."""

    def weight(self, slot: Slot) -> float:
        """What the slot's part of the estimate is multiplied by; 1 unless drawing was unequal."""
        del slot
        return 1.0

    def observe(self, slot: Slot, replays: Sequence[Replay]) -> None:
        """Stage what this step teaches about the slot; the law must stay as it is."""

    def end_step(self) -> None:
        """Commit what was staged."""

    def learnt(self, slot: Slot) -> Direction | None:
        """The learnt mean of the current step's law on the slot, up to a common positive factor.

        None where the law has no such mean, or has not begun one. For diagnosis: it may be zero.
        """
        del slot
        return None

    def vitals(self) -> dict[str, float]:
        """Scalars about the learnt state that are worth logging; reads the state, so it costs."""
        return {}

    def state_dict(self) -> dict[str, object]:
        """Scalars that the slots' buffers do not hold."""
        return {}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Take back what `state_dict` gave."""


def against_walk(norm: float, walk: float, drift: float | None = None) -> dict[str, float]:
    """Vitals of a learnt state: its norm, and its drift over the length of a random walk.

    walk: expected drift if every increment's sign were a fair coin, given the increments' sizes; a
    state that learns nothing has a ratio near 1. drift: from where the walk began, `norm` if that
    was 0. The ratio is left out as long as nothing has moved.
    """
    drift = norm if drift is None else drift
    return {"state_norm": norm} | ({"state_over_walk": drift / walk} if walk > 0.0 else {})
