"""Where weights are displaced and how they are rounded.

16-bit weights that are perturbed in place come back rounded at every step: after 1,000 steps that
change nothing bfloat16 has drifted by a tenth, and updates smaller than half a weight's spacing are
lost in it (docs/numerics.md). By default 2 bytes beside each weight keep what rounding takes away,
at a displacement as at an update: the two walk as one float32. `inplace` with `nearest` is the
arithmetic of MeZO's code and of those that follow it, `scratch` with `stochastic` leaves weights
clean that have no remainders.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch

from zobench.zo import noise
from zobench.zo.displacement import Displacement, InPlace
from zobench.zo.planner import Planner
from zobench.zo.rounding import Mode, Rounding
from zobench.zo.samplers.base import Sampler
from zobench.zo.scratch import Scratch
from zobench.zo.space import Slot

REMAINDER = "remainder"  # the buffer of a slot: 2 bytes a parameter
_ROUNDING = 21  # stream number of the noise that rounds


# The rounding that goes with a walk where none is named.
_USUAL = {"auto": Mode.REMAINDER, "inplace": Mode.NEAREST, "scratch": Mode.STOCHASTIC}


class Arithmetic:
    """How weights are displaced, and how 16-bit weights are rounded.

    float32 and float64 weights are never rounded. By default a 16-bit weight has 2 bytes beside it
    and is displaced in place, as the float32 that the pair is.

    Args:
        walk: `inplace` displaces the weights themselves, `scratch` displaces copies module by
            module, `auto` is the one that goes with the rounding.
        rounding: Of 16-bit weights: `nearest` (the arithmetic of the papers' code), `compensated`
            (2 bytes a weight for what rounding takes away), `stochastic` (up or down by chance), or
            `auto`: compensated in place, stochastic in scratch.

    Raises:
        ValueError: A name is not known, or `scratch` is asked for with another rounding than
            `stochastic`.
    """

    def __init__(self, *, walk: str = "auto", rounding: str = "auto") -> None:
        if walk not in _USUAL:
            raise ValueError(f"arithmetic.walk={walk}: choose auto, inplace or scratch")
        if rounding not in ("auto", *Mode):
            raise ValueError(f"arithmetic.rounding={rounding}: choose auto or {', '.join(Mode)}")
        self._mode = _USUAL[walk] if rounding == "auto" else Mode(rounding)
        if walk == "scratch" and self._mode is not Mode.STOCHASTIC:
            raise ValueError(
                f"arithmetic.walk=scratch: rounds by chance, not {rounding}; choose inplace, or"
                " arithmetic.rounding=stochastic"
            )
        self._walk = walk

    def begin(self, slots: Sequence[Slot], sampler: Sampler, planner: Planner) -> Displacement:
        """Choose the walk for these slots; 16-bit ones get the buffers that their rounding needs.

        Args:
            slots: The trainable tensors.
            sampler: Draws the directions of the walk.
            planner: The plans for all slots at once.

        Returns:
            How the weights get to the points.
        """
        half = [slot for slot in slots if slot.parameter.dtype.itemsize < 4]
        by_chance = self._walk == "auto" and self._mode is Mode.STOCHASTIC and bool(half)
        scratch = self._walk == "scratch" or by_chance
        for slot in half if self._mode is Mode.REMAINDER else ():
            slot.rounding = Rounding(self._mode, slot.buffer(REMAINDER, torch.int16))
        self._dithered = half if self._mode is Mode.STOCHASTIC else []
        return Scratch(slots, sampler, planner) if scratch else InPlace(slots, sampler, planner)

    def begin_update(self, seed: int, step: int) -> None:
        """Take new noise for the rounding of this step's update.

        Args:
            seed: The run's seed.
            step: Number of the step, from 0.
        """
        for slot in self._dithered:
            stream = noise.Stream(noise.mix(seed, step, 0), slot.id, _ROUNDING)
            slot.rounding = Rounding(self._mode, stream=stream)

    def end_update(self) -> None:
        """Go back to rounding to nearest, for the next walk."""
        for slot in self._dithered:
            slot.rounding = replace(slot.rounding, mode=Mode.NEAREST, stream=None)
