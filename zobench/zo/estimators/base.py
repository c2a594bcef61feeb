"""The interface of estimators: the points of evaluation, and coefficients from the losses."""

from abc import ABC, abstractmethod
from collections.abc import Generator
from typing import Any

from torch import Tensor

from zobench.zo.feedback import Feedback, Point, Request, Step
from zobench.zo.part import Part

Ask = Point | Request | list[Point]
Asks = Generator[Ask, Any, Feedback]


class Estimator(Part, ABC):
    """Turns losses into coefficients of directions; tensors never reach it.

    Attributes:
        gives: The feedback channels that it fills.
        directions: Distinct directions that it has drawn in a step.
        forwards: Evaluations of the loss in a step, on average.
        by_example: Whether the closure has to return the loss of each example, as a vector.
    """

    directions: int  # distinct directions that it has drawn in a step
    forwards: float  # evaluations of the loss in a step, on average
    by_example: bool = False

    def cost(self, steps: int) -> int:
        """Evaluations in the first steps, where they are not the same in each.

        Args:
            steps: A number of steps, from the first.

        Returns:
            How many forwards those take together.
        """
        return round(self.forwards * steps)

    def of_losses(self, point: Point, losses: Tensor | float) -> float:
        """The number that `estimate` receives for what the closure returned at a point.

        Args:
            point: Where the weights are.
            losses: The batch's loss; of an estimator `by_example` the loss of each example, (B,).

        Returns:
            The loss, which a ledger holds.
        """
        del point
        return float(losses)

    def report(self, steps: int, rate: float) -> dict[str, float]:
        """What a run's result says about its steps, beyond losses.

        Args:
            steps: Steps taken.
            rate: Share of the training examples that a batch holds.

        Returns:
            Numbers by name.
        """
        del steps, rate
        return {}

    @abstractmethod
    def estimate(self, step: Step) -> Asks:
        """Yield a point, receive its loss, ..., return the feedback.

        For a list of points, none of which depends on the loss of another, it receives the list of
        their losses: such points may be evaluated together. State changes after the last evaluation
        only, since a step may fail.

        Args:
            step: Seed, number, eps and lr of the step; `step.key(query)` names a direction.

        Yields:
            A point (mapping from key to scale), a `Request`, or a list of points.

        Returns:
            The loss to report, and coefficients by channel and key.
        """
