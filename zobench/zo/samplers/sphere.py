"""Directions on the sphere of radius sqrt(d), d counting all trainable elements of the model."""

import math

import torch

from zobench.zo import noise
from zobench.zo.directions import Dense
from zobench.zo.feedback import Key
from zobench.zo.samplers.base import Sampler
from zobench.zo.space import Slot


class Sphere(Sampler):
    """z = sqrt(d) n / ||n|| with n ~ N(0, I): uniform on the sphere, E[z z^T] = I.

    The norm is taken over the whole model, which costs one more draw of n per direction.
    """

    def begin_step(self, step: int) -> None:
        del step
        self._factors: dict[Key, float] = {}

    def direction(self, slot: Slot, key: Key) -> Dense:
        if key not in self._factors:
            self._factors[key] = self._factor(key)
        return Dense(self._stream(slot, key), noise.Law.NORMAL16, self._factors[key])

    def _stream(self, slot: Slot, key: Key) -> noise.Stream:
        return noise.Stream(noise.mix(*key), slot.id)

    def _factor(self, key: Key) -> float:
        """sqrt(d) / ||n||, summed in float64 block by block."""
        dimension, square = 0, 0.0
        for slot in self.slots:
            normal = Dense(self._stream(slot, key), noise.Law.NORMAL16)
            for start, stop in slot.spans():
                part = normal.draw(start, stop - start, slot.parameter.device)
                square += float(torch.sum(torch.square(part), dtype=torch.float64))
            dimension += slot.numel
        return math.sqrt(dimension / square)
