"""The interface of estimators: the points of evaluation, and coefficients from the losses."""

from abc import ABC, abstractmethod
from collections.abc import Generator
from typing import Any

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
    """

    directions: int  # distinct directions that it has drawn in a step
    forwards: float  # evaluations of the loss in a step, on average

    def cost(self, steps: int) -> int:
        """Evaluations in the first steps, where they are not the same in each.

        Args:
            steps: A number of steps, from the first.

        Returns:
            How many forwards those take together.
        """
        return round(self.forwards * steps)

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
