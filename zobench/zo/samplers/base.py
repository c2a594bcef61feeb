"""The interface of samplers: the law of the direction z, and how it is learnt."""

from abc import ABC
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from enum import StrEnum

from zobench.zo.directions import Drawn
from zobench.zo.feedback import Channels, DrawnTerm, Key
from zobench.zo.moves import Direction, Recipe
from zobench.zo.part import Part
from zobench.zo.slot_tables import Sums
from zobench.zo.space import Slot


class ReplayClass(StrEnum):
    """What is needed to draw a direction of an earlier step again.

    Attributes:
        PURE: Its key.
        EPOCH: Its key; the step of a refresh names the bases of its time.
        STATE: The learnt state of its time, which replaying the ledger rebuilds.
        DATA: The activations of its batch; the ledger alone is not enough.
    """

    PURE = "pure"
    EPOCH = "epoch"
    STATE = "state"
    DATA = "data"


class Sampler(Part, ABC):
    """Draws directions by key; the same key gives the same direction until the next `begin_step`.

    State belongs in `slot.buffer(...)` (vectors) or in `state_dict` (scalars).

    Attributes:
        needs: The feedback channels that it learns from.
        replay_class: What it takes to draw an earlier direction again.
        weighted: Whether `weight` may differ from 1.
        most_directions: Directions a step at most; None is any number.
        layers: Number of its extra directions, one per layer, with the queries -1, -2, ...; known
            once it is bound.
    """

    replay_class: ReplayClass = ReplayClass.STATE
    weighted: bool = False
    most_directions: int | None = None
    layers: int = 0

    def bind(self, slots: Sequence[Slot], seed: int) -> None:
        """Take the slots and the seed; called once, before the first step.

        Args:
            slots: All trainable tensors.
            seed: The run's seed.
        """
        self.slots, self.seed = slots, seed

    def begin_step(self, step: int) -> None:
        """Change the law of z; this is the only place for it.

        Args:
            step: Number of the step, from 0. A step that is repeated comes here again.
        """

    def watch(self) -> AbstractContextManager[object]:
        """Observe the evaluation of the clean weights, where it is a step's first evaluation.

        A law that reads activations may change once more here, before the first direction.

        Returns:
            A context manager around that evaluation.
        """
        return nullcontext()

    def recipe(self, slot: Slot) -> Recipe | None:
        """The law of z on the slot, the same for all directions of a step but for their keys.

        A sampler defines this, or `direction` where its directions are made key by key. Without a
        `begin_step` of its own the law is that of the whole run.

        Args:
            slot: A trainable tensor.

        Returns:
            A recipe; None leaves the slot out of this step.
        """
        raise NotImplementedError(f"{type(self).__name__} defines neither recipe nor direction")

    def direction(self, slot: Slot, key: Key) -> Direction | None:
        """The part of z(key) that belongs to the slot.

        Args:
            slot: A trainable tensor.
            key: Name of the direction: (seed, step, query).

        Returns:
            A direction, which is drawn where it is needed; None leaves the slot out of this step.
        """
        recipe = self.recipe(slot)
        return None if recipe is None else Drawn.of(recipe, key, slot.id)

    @property
    def by_key(self) -> bool:
        """Whether `direction` counts, not `recipe`: the one that the nearer class defines."""
        kinds = type(self).__mro__
        return next("recipe" not in vars(k) for k in kinds if {"recipe", "direction"} & {*vars(k)})

    def weight(self, slot: Slot) -> float:
        """What the slot's part of the estimate is multiplied by.

        Args:
            slot: A trainable tensor.

        Returns:
            1, unless the slot takes part with some probability.
        """
        del slot
        return 1.0

    def released_update(self, slot: Slot, drawn: list[DrawnTerm]) -> list[DrawnTerm]:
        """Change what the rule gets: for released code that updates along another z.

        Args:
            slot: A trainable tensor.
            drawn: The step's directions on the slot.

        Returns:
            What the rule gets instead.
        """
        del slot
        return drawn

    def sums(self, channels: Channels) -> Mapping[Key, float]:
        """What `observe` wants summed over the directions, so that the update's pass does it.

        Args:
            channels: The step's coefficients of directions, by channel and key.

        Returns:
            Weights by key, see `zobench.zo.slot_tables.Sums`; none for no sums.
        """
        del channels
        return {}

    def observe(self, slots: Sequence[Slot], channels: Channels, sums: Sums | None) -> None:
        """Stage what this step teaches; the law must stay as it is.

        No direction of the step is drawn any more, except here.

        Args:
            slots: Those that took part in the step.
            channels: The step's coefficients of directions, by channel and key.
            sums: What `sums` wanted; None where the update could not take it on the way.
        """

    def end_step(self) -> None:
        """Commit what was staged."""

    def mean_direction(self, slot: Slot) -> Direction | None:
        """The learnt mean of the current step's law on the slot, up to a common positive factor.

        Args:
            slot: A trainable tensor.

        Returns:
            A direction, for diagnosis: it may be zero. None where the law has no such mean, or none
            yet.
        """
        del slot
        return None

    def metrics(self) -> dict[str, float]:
        """Scalars about the learnt state that are worth logging; reads the state, so it costs time.

        Returns:
            Numbers by name.
        """
        return {}


def over_random_walk(norm: float, walk: float, drift: float | None = None) -> dict[str, float]:
    """Metrics of a learnt state: its norm, and its drift over the length of a random walk.

    Args:
        norm: Norm of the state.
        walk: Expected drift if every increment's sign were a fair coin, given the increments'
            sizes; a state that learns nothing has a ratio near 1.
        drift: Distance from where the walk began; `norm` if that was 0.

    Returns:
        `state_norm`, and `state_over_walk` unless nothing has moved yet.
    """
    drift = norm if drift is None else drift
    return {"state_norm": norm} | ({"state_over_walk": drift / walk} if walk > 0.0 else {})
