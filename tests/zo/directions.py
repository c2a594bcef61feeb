"""Directions of samplers on slots that take part."""

from zobench.zo.feedback import Key
from zobench.zo.moves import Direction
from zobench.zo.samplers.base import Sampler
from zobench.zo.space import Slot


def z_of(sampler: Sampler, slot: Slot, key: Key) -> Direction:
    """The direction of that name on the slot."""
    direction = sampler.direction(slot, key)
    assert direction is not None
    return direction
