"""The scalars that are exchanged between sampler, estimator and rule."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from zobench.zo.moves import Direction

# Feedback channels: coefficients of directions, from the estimator.
GRAD = "grad"  # what most rules read: estimate = sum of coefficient * z
POLICY = "policy"  # advantages, for samplers that learn their law
CURVATURE = "curvature"  # |second differences| along z, for samplers that learn a Hessian
PROBE = "probe"  # a second estimate of the gradient, for samplers that refresh their law from it
MOVE = "move"  # the step itself: w <- w + sum of coefficient * z, without a learning rate

FIRST_PROBE = 1_000_000  # queries from here on are of probes, drawn by the sampler's plain law

# Abilities, in addition to the channels, that one part may need of another.
CLEAN = "clean point first"  # estimator: the first evaluation is of the clean weights
PAST = "past directions"  # sampler: a key of an earlier step gives the direction it gave, weight 1
COORDINATES = "coordinates"  # sampler: directions are small coordinates between two bases
LAYERS = "layer drifts"  # sampler: one direction per layer from the first weights to today's
PREVIOUS = "previous step"  # sampler: the direction of the step before
MOMENTUM = "momentum"  # rule: its buffer `momentum` times -lr is what moved the weights
PLAIN = "plain descent"  # rule: moves the weights by -lr * sum of coefficient * z and nothing else


class Key(NamedTuple):
    """The name of one direction: with the slot's id it determines every number in it.

    Attributes:
        seed: The run's seed.
        step: Number of the step, from 0.
        query: Number of the direction in the step. From 0 up they are drawn; negative ones name a
            sampler's extra directions.
    """

    seed: int
    step: int
    query: int


Point = Mapping[Key, float]  # displacement from the clean weights: sum of scale * z(key)


# Coefficients of directions, by channel and key.
Channels = Mapping[str, Mapping[Key, float]]


class Request(NamedTuple):
    """An evaluation that is more than the step's loss at a point.

    Attributes:
        point: Displacement from the clean weights: the sum of scale * z(key).
        batch: Evaluate this batch of the anchor data instead of the step's.
        along: Also differentiate along this direction, in forward mode; the result is then
            (loss, slope) and costs two forwards.
    """

    point: Point
    batch: int | None = None
    along: Key | None = None


@dataclass(frozen=True)
class Step:
    """The step, as an estimator sees it.

    Attributes:
        seed: The run's seed.
        number: Number of the step, from 0.
        eps: Perturbation radius.
        lr: Learning rate.
        layers: How many drifts the sampler has, see LAYERS.
    """

    seed: int
    number: int
    eps: float
    lr: float = 0.0
    layers: int = 0

    def key(self, query: int) -> Key:
        """The name of one of the step's directions.

        Args:
            query: Its number, from 0.

        Returns:
            The key.
        """
        return Key(self.seed, self.number, query)


@dataclass(frozen=True)
class Feedback:
    """An estimator's result: the coefficients that follow from a step's losses.

    Attributes:
        loss: The loss to report.
        channels: Coefficients of directions, by channel and key: GRAD is what most rules read, MOVE
            moves the weights without a learning rate, POLICY, CURVATURE and PROBE are for samplers
            that learn.
    """

    loss: float
    channels: Channels = field(default_factory=dict)

    def drawn_term(
        self, key: Key, direction: Direction, at: Point, weight: float = 1.0
    ) -> "DrawnTerm":
        """The key's direction on a slot whose weights are at the point, with its coefficients.

        Args:
            key: Name of the direction.
            direction: That direction on the slot.
            at: Where the weights are.
            weight: Of the slot; multiplies the coefficient of GRAD.

        Returns:
            The direction with its coefficients and its scale of the restore.
        """
        coefficients = {name: c[key] for name, c in self.channels.items() if key in c}
        if GRAD in coefficients:
            coefficients[GRAD] *= weight
        return DrawnTerm(
            key, direction, coefficients.get(MOVE, 0.0) - at.get(key, 0.0), coefficients
        )


@dataclass(frozen=True)
class DrawnTerm:
    """One direction of a finished step on one slot, with its coefficients.

    Attributes:
        key: Name of the direction.
        direction: That direction on the slot.
        restore: Scale that brings the weights back from the last evaluated point, and on to where
            the estimator moves them.
        coefficients: Those of the channels that mention the direction.
    """

    key: Key
    direction: Direction
    restore: float
    coefficients: Mapping[str, float]

    @property
    def grad(self) -> float:
        return self.coefficients.get(GRAD, 0.0)

    @property
    def moves(self) -> bool:
        """Whether the weights move along it, back or on."""
        return GRAD in self.coefficients or bool(self.restore)
