"""What every sampler is: the law of the direction z, and how it is learnt."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from enum import StrEnum

from zobench.zo.directions import Direction
from zobench.zo.feedback import Key, Replay
from zobench.zo.part import Part
from zobench.zo.passes.move import Move
from zobench.zo.space import Slot


class ReplayClass(StrEnum):
    """What it takes to draw a direction of an earlier step again."""

    PURE = "pure"  # its key
    EPOCH = "epoch"  # its key: the bases of its time are named by the step of their refresh
    STATE = "state"  # the learnt state of its time, which replaying the ledger rebuilds
    DATA = "data"  # activations of its batch: the ledger alone does not do


class Steady(StrEnum):
    """How long directions stay what they are but for the key of their noise (see `sheets`)."""

    NEVER = "never"
    STEP = "step"  # until the next begin_step
    RUN = "run"


class Sampler(Part, ABC):
    """Draws directions by key; the same key gives the same direction until the next `begin_step`.

    `needs` names the feedback channels that it learns from. State belongs in `slot.buffer(...)`
    or in `state_dict`.
    """

    replay_class: ReplayClass = ReplayClass.STATE
    steady: Steady = Steady.NEVER  # the same recipe for all keys of a step
    weighted: bool = False  # whether `weight` may differ from 1
    most_directions: int | None = None  # a step; None is any number
    layers: int = 0  # of its LAYERS directions, with the queries -1, -2, ...; known once bound

    def bind(self, slots: Sequence[Slot], seed: int) -> None:
        """Called once, with all slots and the run's seed, before the first step."""
        self.slots, self.seed = slots, seed

    def begin_step(self, step: int) -> None:
        """The place where the law of z changes."""

    def watch(self) -> AbstractContextManager[object]:
        """Around the evaluation of the clean weights, where that is a step's first (CLEAN).

        A law that reads activations may change once more here, before the first direction.
        """
        return nullcontext()

    @abstractmethod
    def direction(self, slot: Slot, key: Key) -> Direction | None:
        """The part of z(key) that belongs to the slot; None leaves the slot out of this step."""

    def weight(self, slot: Slot) -> float:
        """What the slot's part of the estimate is multiplied by; 1 unless drawing was unequal."""
        del slot
        return 1.0

    def revise(self, slot: Slot, replays: list[Replay]) -> list[Replay]:
        """What the rule gets instead: for released code that updates along another z."""
        del slot
        return replays

    def ride(self, slot: Slot, move: Move, replays: Sequence[Replay]) -> Move:
        """The rule's move on the slot, with a tally of directions that `observe` will ask for."""
        del slot, replays
        return move

    def observe(self, slot: Slot, replays: Sequence[Replay]) -> Move | None:
        """Stage what this step teaches about the slot; the law must stay as it is.

        May return what is to be done to the slot's state: the engine does it for all slots at once.
        """

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


def against_walk(norm: float, walk: float, drift: float | None = None) -> dict[str, float]:
    """Vitals of a learnt state: its norm, and its drift over the length of a random walk.

    walk: expected drift if every increment's sign were a fair coin, given the increments' sizes; a
    state that learns nothing has a ratio near 1. drift: from where the walk began, `norm` if that
    was 0. The ratio is left out as long as nothing has moved.
    """
    drift = norm if drift is None else drift
    return {"state_norm": norm} | ({"state_over_walk": drift / walk} if walk > 0.0 else {})
