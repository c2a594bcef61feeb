"""Where weights are displaced and how they are rounded: what `scratch` and `inplace` stand for.

16-bit weights that are perturbed in place come back rounded at every step: after 1,000 steps that
change nothing bfloat16 has drifted by a tenth, and updates smaller than half a weight's spacing are
lost in it (README, Numerics). So they are left clean by default, with what rounding takes away from
an update kept beside them. `inplace` with `nearest` is the arithmetic of MeZO's code and of those
that follow it.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch

from zobench.zo import noise
from zobench.zo.rounding import Mode, Rounding
from zobench.zo.samplers.base import Sampler
from zobench.zo.scratch import Scratch
from zobench.zo.sheets import Sheets
from zobench.zo.space import Slot
from zobench.zo.walk import InPlace, Walk

REMAINDER = "remainder"  # the buffer of a slot: 2 bytes a parameter
_ROUNDING = 21  # stream number of the noise that rounds


class Arithmetic:
    """walk: `inplace` or `scratch`; rounding of updates: `nearest`, `stochastic`, `compensated`.

    auto: scratch and compensated where a slot has 16 bits, else inplace. Slots of float32 and more
    are never rounded. Compensated in place is refused: displaced weights have no remainder.
    """

    def __init__(self, *, walk: str = "auto", rounding: str = "auto") -> None:
        if walk not in ("auto", "inplace", "scratch"):
            raise ValueError(f"arithmetic.walk={walk}: choose auto, inplace or scratch")
        if rounding not in ("auto", *Mode):
            raise ValueError(f"arithmetic.rounding={rounding}: choose auto or {', '.join(Mode)}")
        if walk == "inplace" and rounding == Mode.REMAINDER:
            raise ValueError(
                "arithmetic.rounding=compensated: keeps remainders of clean weights, which"
                " arithmetic.walk=inplace overwrites; choose scratch"
            )
        self.walk, self.rounding = walk, rounding

    def begin(self, slots: Sequence[Slot], sampler: Sampler, sheets: Sheets) -> Walk:
        """The walk for these slots; 16-bit ones get the buffers that their rounding needs."""
        half = [slot for slot in slots if slot.parameter.dtype.itemsize < 4]
        scratch = self.walk == "scratch" or (self.walk == "auto" and bool(half))
        usual = Mode.REMAINDER if scratch else Mode.NEAREST
        self._mode = usual if self.rounding == "auto" else Mode(self.rounding)
        for slot in half if self._mode is Mode.REMAINDER else ():
            slot.rounding = Rounding(self._mode, slot.buffer(REMAINDER, torch.int16))
        self._dithered = half if self._mode is Mode.STOCHASTIC else []
        return Scratch(slots, sampler, sheets) if scratch else InPlace(slots, sampler, sheets)

    def begin_update(self, seed: int, step: int) -> None:
        """New noise for the rounding of this step's update."""
        for slot in self._dithered:
            stream = noise.Stream(noise.mix(seed, step, 0), slot.id, _ROUNDING)
            slot.rounding = Rounding(self._mode, stream=stream)

    def end_update(self) -> None:
        """Back to nearest, for the next walk."""
        for slot in self._dithered:
            slot.rounding = replace(slot.rounding, mode=Mode.NEAREST, stream=None)
