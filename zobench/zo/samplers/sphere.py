"""Directions on the sphere of radius sqrt(d), d counting all trainable elements of the model."""

import math

from zobench.zo.directions import Drawn
from zobench.zo.feedback import Key
from zobench.zo.samplers.base import ReplayClass, Sampler
from zobench.zo.space import Slot


class Sphere(Sampler):
    """z = sqrt(d) n / ||n|| with n ~ N(0, I): uniform on the sphere, E[z z^T] = I.

    The norm is taken over the whole model, which costs one more draw of n per direction.

    Formula:
        ```text
        z = sqrt(d) n / |n|,  n ~ N(0, I)
        ```
    """

    replay_class = ReplayClass.PURE

    def begin_step(self, step: int) -> None:
        del step
        self._factors: dict[Key, float] = {}

    def direction(self, slot: Slot, key: Key) -> Drawn:
        if key not in self._factors:
            self._factors[key] = self._factor(key)
        return Drawn.normal(key, slot.id, self._factors[key])

    def _factor(self, key: Key) -> float:
        """sqrt(d) / ||n||, both over the whole model."""
        square = sum(slot.square_norm(Drawn.normal(key, slot.id)) for slot in self.slots)
        return math.sqrt(sum(slot.numel for slot in self.slots) / square)
