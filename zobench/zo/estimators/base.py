"""What every estimator is: the points where the loss is evaluated, and what the losses mean."""

from collections.abc import Callable, Generator
from typing import Protocol

from zobench.zo.feedback import Feedback, Key, Point


class Estimator(Protocol):
    """Turns losses into coefficients of directions; tensors never reach it."""

    emits: frozenset[str]  # the feedback channels that it fills
    directions: int  # distinct directions in a step
    forwards: int  # evaluations of the loss in a step

    def estimate(self, key: Callable[[int], Key], eps: float) -> Generator[Point, float, Feedback]:
        """Yield a point, receive its loss, ..., return the feedback.

        key(q) names the q-th direction of the step; eps is the perturbation radius.
        """
