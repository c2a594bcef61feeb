"""The scalars that cross the borders between sampler, estimator and rule."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from zobench.zo.directions import Direction

GRAD = "grad"  # what the rule reads: estimate = sum of coefficient * z
POLICY = "policy"  # advantages, for samplers that learn their law


class Key(NamedTuple):
    """The name of one direction: with the slot's id it determines every number in it."""

    seed: int
    step: int
    query: int


Point = Mapping[Key, float]  # displacement from the clean weights: sum of scale * z(key)


@dataclass(frozen=True)
class Feedback:
    """What an estimator made of a step's losses: the loss to report, coefficients per channel."""

    loss: float
    channels: Mapping[str, Mapping[Key, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Replay:
    """One direction of a finished step on one slot, with everything it is needed for.

    `restore` brings the weights back from the last evaluated point; `coefficients` holds the
    channels that mention the direction.
    """

    key: Key
    direction: Direction
    restore: float
    coefficients: Mapping[str, float]

    @property
    def grad(self) -> float:
        return self.coefficients.get(GRAD, 0.0)
